//! How the process gets its memory from the system.
#![allow(unsafe_code)]

/// Memory that is freed is kept for the next allocation of the process. A step's tensors are of the same sizes each time, and
/// glibc would give many of them back to the system after each and take them again: a page fault for every 4 KiB, under a
/// lock that all threads share. The peak is a few per cent higher. Without effect where the C library is another one.
pub fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: sets two parameters of the allocator, as the environment variables of the same names would.
    unsafe {
        // 32 MiB, the largest that is taken: tensors up to it come from the heap.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
    }
}
