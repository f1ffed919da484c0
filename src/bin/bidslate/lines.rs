//! JSON lines in and out.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use bidslate::record::RecordWriter;
use serde_json::Value;

/// The lines of a file that are not blank, each with its number from 1.
pub fn lines(path: &Path) -> Result<impl Iterator<Item = Result<(usize, Vec<u8>)>> + use<>> {
    let name = path.display().to_string();
    let file = File::open(path).with_context(|| name.clone())?;
    let lines = (1..).zip(BufReader::new(file).split(b'\n'));
    let lines = lines.map(move |(number, line)| Ok((number, line.with_context(|| name.clone())?)));
    Ok(lines.filter(|line| line.as_ref().map_or(true, |(_, line)| !line.trim_ascii().is_empty())))
}

/// Lines of a file that were refused.
#[derive(Default)]
pub struct Refusals {
    refused: u64,
    /// Number of the first.
    first: usize,
}

impl Refusals {
    /// Notes that a line was refused.
    pub fn note(&mut self, number: usize) {
        if self.refused == 0 {
            self.first = number;
        }
        self.refused += 1;
    }

    /// Whether none was.
    pub fn none(&self) -> bool {
        self.refused == 0
    }

    /// Says on standard error how many of `lines` were refused, if any: whoever keeps the answers in a file sees no error
    /// among them.
    pub fn tell(&self, path: &Path, lines: u64) {
        let Self { refused, first } = self;
        let were = if *refused == 1 { "was" } else { "were" };
        if !self.none() {
            eprintln!(
                "{}: {refused} of {lines} lines {were} refused, the first is line {first}",
                path.display()
            );
        }
    }
}

/// Refuses a file that cannot be read twice, as a pipe cannot: it would be empty the second time, and nothing of it
/// answered.
///
/// # Errors
/// Names the file.
pub fn check_rereadable(path: &Path) -> Result<()> {
    let name = || path.display().to_string();
    let regular = std::fs::metadata(path).with_context(name)?.is_file();
    ensure!(regular, "{}: is no regular file, expected one, because it is read twice", name());
    Ok(())
}

/// The id of a line that could not be read as what it should be; null where it has none.
///
/// JSON has no word for a NaN, and its reader stops at one, at a number beyond f64 and at a line cut short. The id is
/// looked for past those: whoever sent the line can then tell which of theirs was refused.
pub fn id(line: &[u8]) -> Value {
    match serde_json::from_slice::<Value>(line) {
        Ok(value) => value.get("id").cloned().unwrap_or(Value::Null),
        Err(_) => id_of_broken(line).unwrap_or(Value::Null),
    }
}

/// The value of the first key `id` of an object that is no JSON; none where the line may be cut off within it.
fn id_of_broken(line: &[u8]) -> Option<Value> {
    if line.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let (mut depth, mut at) = (0i64, 0);
    while let Some(&byte) = line.get(at) {
        at += match byte {
            b'"' => {
                let length = text_length(&line[at..])?;
                let after = line[at + length..].trim_ascii_start();
                if let (1, b"\"id\"", Some(b':')) = (depth, &line[at..at + length], after.first()) {
                    return whole_value(&after[1..]);
                }
                length
            }
            _ => 1,
        };
        depth += match byte {
            b'{' | b'[' => 1,
            b'}' | b']' => -1,
            _ => 0,
        };
    }
    None
}

/// Bytes of the text that `json` begins with, its quotes included; none where it does not end.
fn text_length(json: &[u8]) -> Option<usize> {
    let mut escaped = false;
    let end = json.iter().skip(1).position(|&byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    Some(end? + 2)
}

/// The value that `json` begins with, where more of its object follows.
fn whole_value(json: &[u8]) -> Option<Value> {
    let mut values = serde_json::Deserializer::from_slice(json).into_iter::<Value>();
    let value = values.next()?.ok()?;
    let rest = json[values.byte_offset()..].trim_ascii_start();
    matches!(rest.first(), Some(b',' | b'}')).then_some(value)
}

/// A file to write, or standard output.
pub fn output(path: Option<&Path>) -> Result<Box<dyn Write>> {
    Ok(match path {
        Some(path) => {
            let name = path.display().to_string();
            let file = File::create(path).with_context(|| name.clone())?;
            Box::new(BufWriter::new(Output { name, to: file }))
        }
        None => Box::new(BufWriter::new(Output { name: "standard output".into(), to: io::stdout().lock() })),
    })
}

/// A writer whose errors name it.
struct Output<W> {
    name: String,
    to: W,
}

impl<W> Output<W> {
    fn named(&self, error: io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.name))
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes).map_err(|error| self.named(error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush().map_err(|error| self.named(error))
    }
}

/// Prints a line to standard output.
///
/// # Errors
/// Where nobody reads it any more, as behind `| head`: `println!` would panic there.
pub fn print(line: impl Display) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{line}").context("standard output")
}

/// Says so where a record file ended in an unfinished line.
pub fn note_cut(path: &Path, writer: &RecordWriter) {
    if writer.cut() > 0 {
        let bytes = writer.cut();
        eprintln!("{}: an unfinished last line of {bytes} bytes was cut off", path.display());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_are_found_in_what_is_no_json() {
        for (line, expected) in [
            (r#"{"id": "a", "alpha": NaN}"#, json!("a")),
            (r#"{"alpha": -Infinity, "history": [{"id": 3}, "id", "\\"], "id" : 7}"#, json!(7)),
            (r#"{"alpha": 1e999, "id": "a\"}"}"#, json!("a\"}")),
            (r#" {"id": "cut", "history": [{"item": 1"#, json!("cut")),
            (r#"{"note": "\"id\": 1", "id": -2, "#, json!(-2)),
            // The rest of it may be missing.
            (r#"{"id": 1"#, Value::Null),
            (r#"{"id": "a"#, Value::Null),
            (r#"[{"id": 1, "alpha": NaN}]"#, Value::Null),
            (r#"{"policy": {"id": 1}, "alpha": NaN}"#, Value::Null),
            ("", Value::Null),
            ("NaN", Value::Null),
        ] {
            assert_eq!(id(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn the_id_of_json_is_its_own() {
        assert_eq!(id(br#"{"id": [1], "colour": 2}"#), json!([1]));
        assert_eq!(id(br#"["id", 1]"#), Value::Null);
        assert_eq!(id(b"{\"id\": \"\xff\", \"alpha\": 1}"), Value::Null);
    }
}
