//! JSON lines in and out.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use bidslate::record::RecordWriter;
use serde_json::Value;

/// The lines of a file that are not blank.
pub fn lines(path: &Path) -> Result<impl Iterator<Item = Result<Vec<u8>>> + use<>> {
    let name = path.display().to_string();
    let file = File::open(path).with_context(|| name.clone())?;
    let lines = BufReader::new(file).split(b'\n').map(move |line| line.with_context(|| name.clone()));
    Ok(lines.filter(|line| line.as_ref().map_or(true, |line| !line.trim_ascii().is_empty())))
}

/// The id of a line that could not be read as what it should be; null where it has none.
pub fn id(line: &[u8]) -> Value {
    let id = || serde_json::from_slice::<Value>(line).ok()?.get("id").cloned();
    id().unwrap_or(Value::Null)
}

/// A file to write, or standard output.
pub fn output(path: Option<&Path>) -> Result<Box<dyn Write>> {
    Ok(match path {
        Some(path) => {
            Box::new(BufWriter::new(File::create(path).with_context(|| path.display().to_string())?))
        }
        None => Box::new(BufWriter::new(std::io::stdout().lock())),
    })
}

/// Says so where a record file ended in an unfinished line.
pub fn note_cut(path: &Path, writer: &RecordWriter) {
    if writer.cut() > 0 {
        let bytes = writer.cut();
        eprintln!("{}: an unfinished last line of {bytes} bytes was cut off", path.display());
    }
}
