//! The files that a command writes: none takes the place of one that it reads.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// An option of a command, and the file that it names, if it is given.
pub type Named<'a> = (&'static str, Option<&'a Path>);

/// Refuses an output that could not be made, and one that shares its file with an input or another output: opening it
/// would destroy what the other holds. To be called before anything is opened.
///
/// # Errors
/// Names the option, the file, and what it is already.
pub fn keep_apart(inputs: &[Named], outputs: &[Named]) -> Result<()> {
    let mut taken: Vec<(&str, PathBuf)> = Vec::new();
    for &(option, path) in inputs {
        // What cannot be found is reported when it is read.
        taken.extend(path.and_then(|path| place(path).ok()?).map(|place| (option, place)));
    }
    for &(option, path) in outputs {
        let Some(path) = path else { continue };
        let Some(place) = place(path).with_context(|| format!("{option} {}", path.display()))? else {
            continue;
        };
        if let Some((other, _)) = taken.iter().find(|(_, taken)| *taken == place) {
            bail!("{option} {}: is the file of {other} too, expected one of its own", path.display());
        }
        taken.push((option, place));
    }
    Ok(())
}

/// Where a regular file lies, or would lie, by the one name that it has without links. None of a device or a pipe, which
/// may be shared.
fn place(path: &Path) -> std::io::Result<Option<PathBuf>> {
    if let Ok(found) = fs::metadata(path) {
        if found.is_dir() {
            return Err(std::io::ErrorKind::IsADirectory.into());
        }
        return found.is_file().then(|| fs::canonicalize(path)).transpose();
    }
    let name = path.file_name().ok_or(std::io::ErrorKind::InvalidFilename)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    Ok(Some(fs::canonicalize(folder.unwrap_or(Path::new(".")))?.join(name)))
}
