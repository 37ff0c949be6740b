/// Gives memory that was freed back to the system, where the allocator keeps it for itself.
///
/// glibc keeps what many threads freed in pieces; after a base of 160,000 files was unpacked, 28 MiB
/// of 134 MiB went back.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no crate wraps malloc_trim. It takes a number, touches only the allocator's own free
    // lists, under the allocator's locks, and may be called from any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
