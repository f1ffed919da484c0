//! Files of one JSON value a line: read with file, line and field of whatever is wrong, written in order.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads every line of `path` that is not blank, with its number counted from 1.
///
/// # Errors
/// Names the file, and of a line that does not fit its number, field and what was expected.
pub fn read_lines<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Vec<(usize, T)>> {
    let mut values = Vec::new();
    for (line, text) in read_text(path)? {
        let mut json = serde_json::Deserializer::from_str(&text);
        let value = serde_path_to_error::deserialize(&mut json)
            .map_err(|e| anyhow!("{}:{line}: `{}`: {}", path.display(), e.path(), e.inner()))?;
        json.end().map_err(|e| anyhow!("{}:{line}: {e}", path.display()))?;
        values.push((line, value));
    }
    Ok(values)
}

/// The lines of `path` that are not blank, as they are, with their numbers counted from 1.
///
/// # Errors
/// Names the file.
pub fn read_text(path: &Path) -> anyhow::Result<Vec<(usize, String)>> {
    let file = File::open(path).with_context(|| format!("{}", path.display()))?;
    let mut lines = Vec::new();
    for (line, text) in (1..).zip(BufReader::new(file).lines()) {
        let text = text.with_context(|| format!("{}:{line}", path.display()))?;
        if !text.trim().is_empty() {
            lines.push((line, text));
        }
    }
    Ok(lines)
}

/// A file that is written line by line; its directory is made if missing.
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Lines {
    /// Opens `path`, replacing what it held.
    ///
    /// # Errors
    /// Names the file.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        make_parent(path)?;
        let file = File::create(path).with_context(|| format!("{}", path.display()))?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file) })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// Names the file.
    pub fn push(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let text = serde_json::to_string(value).with_context(|| format!("{}", self.path.display()))?;
        self.push_text(&text)
    }

    /// Adds a line of JSON as it is.
    ///
    /// # Errors
    /// Names the file.
    pub fn push_text(&mut self, text: &str) -> anyhow::Result<()> {
        writeln!(self.file, "{text}").with_context(|| format!("{}", self.path.display()))
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// Names the file.
    pub fn finish(mut self) -> anyhow::Result<()> {
        self.file.flush().with_context(|| format!("{}", self.path.display()))
    }
}

/// Writes a whole file; its directory is made if missing.
///
/// # Errors
/// Names the file.
pub fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    make_parent(path)?;
    std::fs::write(path, bytes).with_context(|| format!("{}", path.display()))
}

fn make_parent(path: &Path) -> anyhow::Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    std::fs::create_dir_all(parent).with_context(|| format!("{}", parent.display()))
}
