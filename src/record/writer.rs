//! A file of records that is appended to, whole lines at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::Record;
use super::line::{OPEN, write_line};

/// A file of records that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct RecordError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Appends records to a file that it holds locked.
#[derive(Debug)]
pub struct RecordWriter {
    path: PathBuf,
    file: File,
    /// Bytes of the whole lines.
    length: u64,
    cut: u64,
}

impl RecordWriter {
    /// Opens a file, or makes it. What an earlier writer left of an unfinished last line is cut off; a file that does not
    /// begin as a record does is left as it is.
    ///
    /// # Errors
    /// [`RecordError`] where the file cannot be opened, where another writer holds it, and where it holds something else.
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let fail = |source| RecordError { path: path.into(), source };
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = options.map_err(fail)?;
        file.try_lock().map_err(|error| match error {
            // The system would say that the operation would block.
            TryLockError::WouldBlock => {
                fail(io::Error::new(io::ErrorKind::WouldBlock, "another writer holds it"))
            }
            TryLockError::Error(source) => fail(source),
        })?;
        let (end, length) = lengths(&mut file).map_err(fail)?;
        if !is_of_records(&mut file, end).map_err(fail)? {
            let message = format!("is no file of records, which begin with {OPEN}");
            return Err(fail(io::Error::new(io::ErrorKind::InvalidData, message)));
        }
        let mut writer = Self { path: path.into(), file, length, cut: end - length };
        writer.rewind().map_err(fail)?;
        Ok(writer)
    }

    /// Bytes of an unfinished last line that were cut off when the file was opened.
    pub fn cut(&self) -> u64 {
        self.cut
    }

    /// Appends a line for each record, each in one write, and waits until the system has them on the disk. After an error
    /// the file holds some of the records, whole ones.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn append(&mut self, records: &[Record]) -> Result<(), RecordError> {
        if records.is_empty() {
            return Ok(());
        }
        let written = records.iter().try_for_each(|record| {
            let line = write_line(record)?;
            self.file.write_all(&line)?;
            self.length += line.len() as u64;
            Ok(())
        });
        let done = match written {
            Ok(()) => self.file.sync_data(),
            // A line that was begun goes again; where that fails too, the next reader reports it.
            Err(error) => self.rewind().and(Err(error)),
        };
        done.map_err(|source| RecordError { path: self.path.clone(), source })
    }

    /// Cuts off what is not a whole line, and goes on writing there.
    fn rewind(&mut self) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length)).map(|_| ())
    }
}

/// Whether a file of `end` bytes begins as a record does, or is empty. It may end before the beginning does.
fn is_of_records(file: &mut File, end: u64) -> io::Result<bool> {
    let mut begins = vec![0; OPEN.len().min(end as usize)];
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut begins)?;
    Ok(OPEN.as_bytes().starts_with(&begins))
}

/// Bytes of a file, and of its whole lines.
fn lengths(file: &mut File) -> io::Result<(u64, u64)> {
    const BLOCK: u64 = 1 << 16;
    let end = file.seek(SeekFrom::End(0))?;
    let mut from = end;
    // From the end backwards to the last line feed.
    while from > 0 {
        let start = from.saturating_sub(BLOCK);
        let mut block = vec![0; (from - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block)?;
        if let Some(at) = block.iter().rposition(|&byte| byte == b'\n') {
            return Ok((end, start + at as u64 + 1));
        }
        from = start;
    }
    Ok((end, 0))
}
