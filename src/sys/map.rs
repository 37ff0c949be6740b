use memmap2::Mmap;
use std::fs::File;
use std::io;

/// Maps a whole file for reading. The file must be one that is replaced and never changed: what is
/// in a store is written under another name and renamed into place.
pub fn map_file(file: &File) -> io::Result<Mmap> {
    // SAFETY: a mapping is unsound only where somebody shortens or rewrites the file beneath it.
    // Files of a store are never modified in place, by us or by another process of ours, and the
    // store's directory is ours alone; no crate offers a mapping that would be safe without this.
    unsafe { Mmap::map(file) }
}
