//! Memory-mapped files.
//!
//! Invariant: the only `unsafe` of this crate is here; what a [`MappedArray`] gives out was checked against the file's length.
#![allow(unsafe_code)]

use crate::StoreError;
use crate::npy::{self, Element};
use memmap2::{Mmap, MmapOptions};
use std::fs::File;
use std::marker::PhantomData;
use std::path::Path;

/// Maps a file that is read once and at once, such as an uncompressed volume; an empty file gives an empty map.
pub fn map_file(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the mapping is read-only. Nothing here writes to source files; if another program shortens one while it is
    // read, the system ends this process (SIGBUS), which leaves a store whole, as any other end does.
    unsafe { MmapOptions::new().populate().map(file) }
}

/// An array `[slices, size, size]` that is paged in from its file as it is touched.
pub(crate) struct MappedArray<T> {
    map: Mmap,
    offset: usize,
    shape: [usize; 3],
    element: PhantomData<T>,
}

impl<T: Element> MappedArray<T> {
    /// Maps a file after its header, its type, its length and its shape (`[slices, rows, columns]`) have been checked.
    pub(crate) fn open(path: &Path, shape: [usize; 3]) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(StoreError::io("read", path))?;
        if file.metadata().map_err(StoreError::io("read", path))?.len() == 0 {
            return Err(StoreError::damaged(path, "it is empty"));
        }
        // SAFETY: the mapping is read-only. The store's files are replaced by renaming, never written in place (see
        // `files`), so the mapped file keeps its content and its length even if the case is prepared anew.
        let map = unsafe { Mmap::map(&file) }.map_err(StoreError::io("map", path))?;
        let header = npy::read::<T>(&map).map_err(|problem| StoreError::damaged(path, problem))?;
        if header.shape != shape {
            let found = header.shape;
            return Err(StoreError::damaged(path, format!("it has shape {found:?}, the index expects {shape:?}")));
        }
        Ok(Self { map, offset: header.offset, shape, element: PhantomData })
    }

    /// The pixels of a slice, row by row. Panics where there is no such slice.
    pub(crate) fn slice(&self, index: usize) -> &[T] {
        let [slices, rows, columns] = self.shape;
        assert!(index < slices, "slice {index} of {slices}");
        let pixels = rows * columns;
        let bytes = &self.map[self.offset + index * pixels * size_of::<T>()..][..pixels * size_of::<T>()];
        // SAFETY: `bytes` has the length of `pixels` elements. It is aligned: a mapping begins at a page, and `npy::read`
        // refuses an offset that is not a multiple of the alignment. `Element` is implemented for plain integers only,
        // for which any bytes are a value.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast::<T>(), pixels) }
    }
}
