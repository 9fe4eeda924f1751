//! The one place where a file becomes memory.
#![allow(unsafe_code)]

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use crate::{Result, TensorError};

/// A read-only memory-mapped file, shared by the tensors that lie in it.
#[derive(Clone, Debug)]
pub struct MappedFile(Arc<Mmap>);

impl MappedFile {
    /// Maps `path`.
    ///
    /// The file must not be changed in place while it is mapped; blemish itself replaces files by renaming, which is safe.
    ///
    /// # Errors
    /// [`TensorError::Io`] if the file cannot be opened or mapped.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |source| TensorError::Io { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(io)?;
        if file.metadata().map_err(io)?.is_dir() {
            return Err(io(std::io::Error::other("is a folder, not a file")));
        }
        // SAFETY: the map is read-only and private to this process; the documented contract is that nobody truncates or
        // rewrites the file in place meanwhile, and every value read from it is plain data for which any bits are valid.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Ok(MappedFile(Arc::new(map)))
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}
