//! The `shutter` program; called under the name `executor` it takes kaniko's command line.

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    shutter::cli::run(std::env::args_os().collect()).into()
}
