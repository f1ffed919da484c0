//! Weight files as they lie on disk: one safetensors file, or an index and its shards, memory-mapped; and how a
//! safetensors file is written.
//!
//! Nothing here knows what a model needs; [`Weights`](super::weights::Weights) compares with the configuration.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use memmap2::Mmap;
use safetensors::tensor::{Metadata, SafeTensorError, TensorInfo, View, serialize, serialize_to_file};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::digest::Digest;
use crate::error::LoadError;
use crate::json::UniqueMap;

/// Name of the file that holds all weights.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// Name of the index, where the weights are spread over shards.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// Longest header that is read, in bytes: far above any model, and a bound on what a hostile one costs.
const MAX_HEADER: usize = 100_000_000;

/// A tensor of a mapped file.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredTensor {
    /// Element type, by its name in the format: `F32`, `BF16`, `I64`, ...
    pub dtype: String,
    /// Sizes of its axes, row-major.
    pub shape: Vec<usize>,
    file: usize,
    range: Range<usize>,
}

/// Writes a safetensors file beside `path` and renames it over `path`, so that no reader sees half of it; into `path`
/// where that is no regular file.
///
/// The file gets the permissions of any file that is created there. The serializer alone would leave it to its
/// owner, because it writes through a private temporary file of its own.
///
/// # Errors
/// Those of the serializer, with [`SafeTensorError::IoError`] for all that the system refuses. What a regular file at
/// `path` held is then still there.
pub fn write_tensors<S, V>(
    path: &Path,
    tensors: Vec<(S, V)>,
    metadata: Option<HashMap<String, String>>,
) -> Result<(), SafeTensorError>
where
    S: AsRef<str> + Ord + Display,
    V: View,
{
    if path.exists() && !path.is_file() {
        // What is renamed over a device or a pipe would take its place.
        return Ok(fs::write(path, serialize(tensors, metadata)?)?);
    }
    let mut name = path.file_name().ok_or(io::Error::from(io::ErrorKind::InvalidFilename))?.to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let created = File::create(&temporary)?.metadata()?;
    let written = serialize_to_file(tensors, metadata, &temporary)
        .and_then(|()| Ok(fs::set_permissions(&temporary, created.permissions())?))
        .and_then(|()| Ok(File::open(&temporary)?.sync_all()?))
        .and_then(|()| Ok(fs::rename(&temporary, path)?));
    if written.is_err() {
        // Nothing more can be done about a temporary file that will not go away.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Mapped safetensors files, not compared with any configuration.
#[derive(Debug)]
pub struct TensorFiles {
    path: PathBuf,
    maps: Vec<Mmap>,
    tensors: BTreeMap<String, StoredTensor>,
    metadata: BTreeMap<String, String>,
}

impl TensorFiles {
    /// Maps `model.safetensors` of `dir`, or the shards that `model.safetensors.index.json` names.
    ///
    /// # Errors
    /// [`LoadError::Io`] where a file cannot be opened, [`LoadError::Format`] where one is truncated or
    /// malformed, where both layouts are there, where a shard lies outside `dir`, and where the index and the
    /// shards disagree.
    pub fn open_dir(dir: &Path) -> Result<Self, LoadError> {
        let (single, index) = (dir.join(WEIGHTS_FILE), dir.join(INDEX_FILE));
        if !index.exists() {
            return Self::open_file(&single);
        }
        if single.exists() {
            return Err(format_error(
                &index,
                format!("stands beside {WEIGHTS_FILE}; expected one of the two"),
            ));
        }
        Self::open_shards(dir, index)
    }

    /// Maps one safetensors file.
    ///
    /// # Errors
    /// [`LoadError::Io`] where it cannot be opened, [`LoadError::Format`] where it is truncated or malformed.
    pub fn open_file(path: &Path) -> Result<Self, LoadError> {
        let mut files =
            Self { path: path.into(), maps: Vec::new(), tensors: BTreeMap::new(), metadata: BTreeMap::new() };
        files.add(path)?;
        Ok(files)
    }

    fn open_shards(dir: &Path, index: PathBuf) -> Result<Self, LoadError> {
        let weight_map = read_index(&index)?;
        let mut shards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (tensor, shard) in &weight_map {
            shards.entry(shard).or_default().push(tensor);
        }
        for shard in shards.keys() {
            let plain = Path::new(shard).components().all(|part| matches!(part, Component::Normal(_)));
            if !plain || shard.is_empty() {
                let message = format!("names shard {shard:?}, expected a path inside the directory");
                return Err(format_error(&index, message));
            }
        }
        let mut files =
            Self { path: index, maps: Vec::new(), tensors: BTreeMap::new(), metadata: BTreeMap::new() };
        for (shard, tensors) in shards {
            let held = files.add(&dir.join(shard))?;
            files.compare_shard(shard, &tensors, &held, &weight_map)?;
        }
        Ok(files)
    }

    /// Maps one file, takes its tensors in, and returns their names.
    fn add(&mut self, path: &Path) -> Result<Vec<String>, LoadError> {
        let map = map(path)?;
        let header = read_header(&map).map_err(|message| format_error(path, message))?;
        let mut names = Vec::with_capacity(header.tensors.len());
        for (name, info) in header.tensors {
            let (start, end) = info.data_offsets;
            let tensor = StoredTensor {
                dtype: format!("{:?}", info.dtype),
                shape: info.shape,
                file: self.maps.len(),
                range: header.data_start + start..header.data_start + end,
            };
            if self.tensors.insert(name.clone(), tensor).is_some() {
                return Err(format_error(path, format!("tensor {name:?} is also in another shard")));
            }
            names.push(name);
        }
        self.maps.push(map);
        self.metadata.extend(header.metadata);
        Ok(names)
    }

    fn compare_shard(
        &self,
        shard: &str,
        expected: &[&str],
        held: &[String],
        weight_map: &BTreeMap<String, String>,
    ) -> Result<(), LoadError> {
        if let Some(name) = expected.iter().find(|name| !self.tensors.contains_key(**name)) {
            let message = format!("says that {name:?} is in {shard:?}, which does not hold it");
            return Err(format_error(&self.path, message));
        }
        match held.iter().find(|name| weight_map.get(*name).map(String::as_str) != Some(shard)) {
            None => Ok(()),
            Some(name) => {
                let said = match weight_map.get(name) {
                    Some(other) => format!("says that it is in {other:?}"),
                    None => "does not name it".into(),
                };
                Err(format_error(&self.path, format!("{shard:?} holds {name:?}, but the index {said}")))
            }
        }
    }

    /// The weights file, or the index of the shards.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the writers of the files noted about them, by key.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Number of mapped files.
    pub fn file_count(&self) -> usize {
        self.maps.len()
    }

    /// Digest of the files, one after another, shards in the order of their names.
    pub fn digest(&self) -> Digest {
        Digest::of(self.maps.iter().map(|map| &map[..]))
    }

    /// Every tensor, by name.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = (&str, &StoredTensor)> + Clone {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.get(name)
    }

    /// The bytes of a tensor of this directory: little-endian, row-major, at any alignment.
    pub fn data(&self, tensor: &StoredTensor) -> &[u8] {
        // In range by `read_header`; a tensor of another directory yields nothing rather than a panic.
        self.maps.get(tensor.file).and_then(|map| map.get(tensor.range.clone())).unwrap_or_default()
    }
}

/// The header of a safetensors file, checked: the tensors lie one after another and fill the file exactly.
pub(crate) struct Header {
    /// Names and places of the tensors, sorted by name; the places count from `data_start`.
    pub tensors: BTreeMap<String, TensorInfo>,
    /// Where the data begin in the file.
    pub data_start: usize,
    /// What the writer noted about the file.
    pub metadata: BTreeMap<String, String>,
}

/// Reads the header of a safetensors file; `Err` says what is wrong with it.
///
/// The `safetensors` crate checks shapes, types and offsets. Two things it lets through are checked here: names
/// that occur twice, and offsets whose sum with the header's length overflows.
pub(crate) fn read_header(file: &[u8]) -> Result<Header, String> {
    let (length, rest) = file
        .split_first_chunk::<8>()
        .ok_or_else(|| format!("is {} bytes long, expected at least 8", file.len()))?;
    let length = u64::from_le_bytes(*length);
    let json = usize::try_from(length)
        .ok()
        .filter(|&length| length <= MAX_HEADER)
        .and_then(|length| rest.get(..length))
        .ok_or_else(|| format!("header of {length} bytes in a file of {} bytes", file.len()))?;
    let json = std::str::from_utf8(json).map_err(|error| format!("header is not UTF-8: {error}"))?;
    serde_json::from_str::<UniqueMap<IgnoredAny>>(json).map_err(|error| format!("header: {error}"))?;
    let metadata: Metadata = serde_json::from_str(json).map_err(|error| format!("header: {error}"))?;
    let (held, said) = (rest.len() - json.len(), metadata.data_len());
    if held != said {
        return Err(format!("holds {held} bytes of data, its header says {said} (truncated?)"));
    }
    let tensors = metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
    let notes = metadata.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    Ok(Header { tensors, data_start: 8 + json.len(), metadata: notes })
}

#[derive(Deserialize)]
struct Index {
    weight_map: UniqueMap<String>,
}

fn read_index(path: &Path) -> Result<BTreeMap<String, String>, LoadError> {
    let text = fs::read(path).map_err(|error| LoadError::io(path, error))?;
    let index: Index =
        serde_json::from_slice(&text).map_err(|error| format_error(path, error.to_string()))?;
    if index.weight_map.0.is_empty() {
        return Err(format_error(path, "`weight_map` is empty".into()));
    }
    Ok(index.weight_map.0)
}

/// Maps a regular file for reading.
#[allow(unsafe_code, reason = "weights are too large to copy, and mapping a file is unsafe in any crate")]
pub(crate) fn map(path: &Path) -> Result<Mmap, LoadError> {
    let io = |error| LoadError::io(path, error);
    // Looked at before it is opened: to open a pipe waits for a writer.
    if !fs::metadata(path).map_err(io)?.is_file() {
        return Err(format_error(path, "is not a regular file".into()));
    }
    let file = File::open(path).map_err(io)?;
    // SAFETY: the map is read-only and private to this process. The operator must not change or truncate a
    // file in place while it is in use (documented for the model directory); a new version replaces it by a
    // rename, which leaves the mapped file as it is.
    unsafe { Mmap::map(&file) }.map_err(io)
}

fn format_error(path: &Path, message: String) -> LoadError {
    LoadError::Format { path: path.into(), message }
}
