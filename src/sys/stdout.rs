use std::sync::atomic::{AtomicBool, Ordering};

static CLOSED: AtomicBool = AtomicBool::new(false);

/// Tells whether the program was started without a standard output. By now it has one: the standard
/// library opens `/dev/null` in the place of what is missing.
pub fn started_without_stdout() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

extern "C" fn look() {
    // SAFETY: the call takes numbers alone, and asks only whether there is such a descriptor.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    CLOSED.store(flags == -1, Ordering::Relaxed);
}

// SAFETY: the section holds pointers to functions of the C calling convention that are called one
// after the other before `main`; this one needs nothing of the standard library's run time. What
// arguments some C libraries pass are left alone.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;
