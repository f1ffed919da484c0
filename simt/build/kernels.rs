//! Where the kernels are, and what they are called.

use std::fs;
use std::path::PathBuf;

use crate::compiler::Failure;

/// A `.cu` file.
pub struct Source {
    pub path: PathBuf,
    /// The path that users see, from the root of the project.
    pub shown: String,
    /// Name of the library it becomes, unique among all directories.
    pub library: String,
}

/// The `.cu` files of directories, which are given with the names users know them by. A directory may be missing.
pub fn find(directories: &[(&str, PathBuf)]) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::new();
    for (shown, directory) in directories {
        if !directory.exists() {
            continue;
        }
        for entry in fs::read_dir(directory).map_err(|e| Failure::io(directory, e))? {
            let path = entry.map_err(|e| Failure::io(directory, e))?.path();
            let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
            if path.extension().is_none_or(|extension| extension != "cu") {
                continue;
            }
            let library = format!("{}-{stem}", shown.replace('/', "-"));
            sources.push(Source { shown: format!("{shown}/{stem}.cu"), library, path });
        }
    }
    sources.sort_by(|a, b| a.shown.cmp(&b.shown));
    Ok(sources)
}

/// The kernels that preprocessed source defines or declares, each once. There, `__global__` has become [`MARK`].
///
/// # Errors
/// A kernel that is not `extern "C"`, by its name.
pub fn names(preprocessed: &str) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    let mut parts = preprocessed.split(MARK);
    let mut before = parts.next().unwrap_or_default();
    for part in parts {
        let declarator = part.split('(').next().unwrap_or_default();
        let name = declarator.split_whitespace().last().unwrap_or_default().to_owned();
        let declaration = before.rsplit([';', '}']).next().unwrap_or_default();
        if !declaration.contains("extern \"C\"") {
            return Err(name);
        }
        if !names.contains(&name) {
            names.push(name);
        }
        before = part;
    }
    Ok(names)
}

/// What `include/simt/keywords.h` makes of `__global__` while the source is scanned.
const MARK: &str = "simt_global_function";
