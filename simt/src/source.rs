//! Finds the source line of an instruction.

use std::path::Path;
use std::process::Command;

use crate::fault::Place;

/// The line of the instruction at `offset` in a library, by `addr2line` of the binutils, which come with the compiler.
/// Of calls that were inlined, the innermost outside of the emulator's own headers counts.
pub(crate) fn line_of(library: &Path, offset: u64) -> Place {
    let unknown = || Place { file: format!("{} + {offset:#x}", library.display()).into(), line: 0 };
    let output = Command::new("addr2line").arg("-ie").arg(library).arg(format!("{offset:#x}")).output();
    let Ok(output) = output else { return unknown() };
    let text = String::from_utf8_lossy(&output.stdout);
    let frames: Vec<Place> = text.lines().filter_map(parse).collect();
    let outside = frames.iter().find(|place| !place.file.contains("/include/simt/"));
    outside.or(frames.first()).cloned().unwrap_or_else(unknown)
}

/// Reads `file:line` or `file:line (discriminator 2)`.
fn parse(frame: &str) -> Option<Place> {
    let (file, rest) = frame.rsplit_once(':')?;
    let line = rest.split_whitespace().next()?.parse().ok()?;
    Some(Place { file: file.into(), line })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_addr2line() {
        let place = |line| Some(Place { file: "/k/a.cu".into(), line });
        assert_eq!(parse("/k/a.cu:12"), place(12));
        assert_eq!(parse("/k/a.cu:12 (discriminator 3)"), place(12));
        assert_eq!(parse("??:?"), None);
    }
}
