//! Lines of a record file: `{"v":1,"crc32":"0123abcd","record":{..}}`, the checksum over the bytes of the record.

use std::io::{self, BufRead};

use super::Record;

/// Version of the format of a line.
pub const FORMAT_VERSION: u32 = 1;

/// What every line begins with.
pub(super) const OPEN: &str = "{\"v\":";
const CHECKSUM: &str = ",\"crc32\":\"";
const BODY: &str = "\",\"record\":";
const CLOSE: &str = "}";
/// Hexadecimal digits of a checksum.
const DIGITS: usize = 8;

/// What is wrong with a line of a record file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineFault {
    /// The file ends before the line does.
    #[error("is cut off after {bytes} bytes")]
    Truncated {
        /// What there is of it.
        bytes: usize,
    },
    /// The line does not have the form of a record.
    #[error("is not a record: {message}")]
    Form {
        /// What was expected.
        message: String,
    },
    /// The line is of another version of the format.
    #[error("is of version {found} of the format, this version reads {FORMAT_VERSION}")]
    Version {
        /// The version.
        found: u32,
    },
    /// The record is not the one that was written.
    #[error("is corrupted: its checksum is {found}, the line says {said}")]
    Checksum {
        /// What the line says.
        said: String,
        /// What its record has.
        found: String,
    },
}

/// The line of a record, with the line feed that ends it.
pub(super) fn write_line(record: &Record) -> Result<Vec<u8>, serde_json::Error> {
    let body = serde_json::to_vec(record)?;
    let head = format!("{OPEN}{FORMAT_VERSION}{CHECKSUM}{}{BODY}", checksum(&body));
    Ok([head.as_bytes(), &body, CLOSE.as_bytes(), b"\n"].concat())
}

/// The record of a line that ends in a line feed.
fn read_line(line: &[u8]) -> Result<Record, LineFault> {
    let form = |message: &str| LineFault::Form { message: message.into() };
    let whole = line.strip_suffix(b"\n").ok_or(LineFault::Truncated { bytes: line.len() })?;
    let rest = whole
        .strip_prefix(OPEN.as_bytes())
        .ok_or_else(|| form("expected a line that starts with {\"v\":"))?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let version = std::str::from_utf8(&rest[..digits]).ok().and_then(|version| version.parse().ok());
    match version {
        Some(FORMAT_VERSION) => {}
        Some(found) => return Err(LineFault::Version { found }),
        None => return Err(form("expected a version")),
    }
    let rest = rest[digits..].strip_prefix(CHECKSUM.as_bytes()).ok_or_else(|| form("expected a checksum"))?;
    let (said, rest) =
        rest.split_at_checked(DIGITS).ok_or_else(|| form("expected a checksum of 8 digits"))?;
    let body = rest
        .strip_prefix(BODY.as_bytes())
        .and_then(|rest| rest.strip_suffix(CLOSE.as_bytes()))
        .ok_or_else(|| form("expected a record"))?;
    let found = checksum(body);
    if said != found.as_bytes() {
        return Err(LineFault::Checksum { said: String::from_utf8_lossy(said).into_owned(), found });
    }
    serde_json::from_slice(body).map_err(|error| form(&error.to_string()))
}

fn checksum(body: &[u8]) -> String {
    format!("{:08x}", crc32fast::hash(body))
}

/// The records of a file, each with the number of its line, from 1. Blank lines are passed over.
#[derive(Debug)]
pub struct RecordReader<R> {
    input: R,
    line: u64,
}

impl<R: BufRead> RecordReader<R> {
    /// Reads from `input`.
    pub fn new(input: R) -> Self {
        Self { input, line: 0 }
    }
}

impl<R: BufRead> Iterator for RecordReader<R> {
    type Item = io::Result<(u64, Result<Record, LineFault>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = Vec::new();
        loop {
            line.clear();
            match self.input.read_until(b'\n', &mut line) {
                Err(error) => return Some(Err(error)),
                Ok(0) => return None,
                Ok(_) => self.line += 1,
            }
            if !line.trim_ascii().is_empty() {
                return Some(Ok((self.line, read_line(&line))));
            }
        }
    }
}
