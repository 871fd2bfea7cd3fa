//! The only door to files. Tests put a faulty disk behind it.
//!
//! Assumed of the medium, and nothing more: a 512-byte sector is written whole or not at all, and what
//! was written before a successful [`File::sync_data`] is there after a power cut. A created, renamed or
//! removed name is durable after [`Storage::sync_dir`].

use std::io;

/// A flat directory of files.
pub trait Storage: Clone + Send + 'static {
    /// An open file.
    type File: File;

    /// The names of all files, in no order.
    ///
    /// # Errors
    /// Whatever the medium says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Creates an empty file.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken; `StorageFull` if there is no room.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Gives a file another name, replacing a file of that name.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Handles that are open on it stay readable.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes creations, renames and removals so far durable.
    ///
    /// # Errors
    /// After an error the state of the directory is unknown: the caller must stop.
    fn sync_dir(&self) -> io::Result<()>;
}

/// One open file. Methods take `&self`: one thread writes while others read what is already written.
#[expect(
    clippy::len_without_is_empty,
    reason = "the length is an offset; nobody asks whether a file is empty"
)]
pub trait File: Send + Sync + 'static {
    /// Its length in bytes.
    ///
    /// # Errors
    /// Whatever the medium says.
    fn len(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before the buffer is full.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`, growing the file if it must.
    ///
    /// # Errors
    /// `StorageFull` if there is no room; part of the bytes may then be written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Waits until all that was written is on the medium.
    ///
    /// # Errors
    /// After an error what is on the medium is unknown: the caller must stop, and never try again.
    fn sync_data(&self) -> io::Result<()>;
}
