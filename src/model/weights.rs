//! The weights of a model: strict loading, and views of the tensors as f32.

use std::borrow::Cow;
use std::path::Path;

use half::{bf16, f16};
use rayon::prelude::*;

use super::config::{CONFIG_FILE, ModelConfig};
use super::files::{StoredTensor, TensorFiles};
use super::tensors::{QuantizerEncoders, QuantizerKind, TensorSpec, expected_tensors};
use crate::digest::Digest;
use crate::error::{LoadError, TensorFault};

/// Key of the files' metadata under which they say where the weights come from.
pub const ORIGIN: &str = "origin";

/// Bytes of a tensor that one task looks through for NaN and infinities.
const SCAN_BLOCK: usize = 1 << 20;

/// Element type of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WeightType {
    /// IEEE single precision.
    F32,
    /// The upper half of an f32.
    BF16,
    /// IEEE half precision.
    F16,
}

impl WeightType {
    /// What a fault says was expected.
    const EXPECTED: &str = "F32, BF16 or F16";

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::BF16 | Self::F16 => 2,
        }
    }

    /// Name in the safetensors format.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::BF16 => "BF16",
            Self::F16 => "F16",
        }
    }

    /// The type of that name, if it is one that weights may have.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::F32, Self::BF16, Self::F16].into_iter().find(|dtype| dtype.name() == name)
    }
}

impl std::fmt::Display for WeightType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The weights of a model, memory-mapped and known to fit its configuration: every tensor is there, none is
/// superfluous, each has its shape and a type that is read, and every element is finite.
///
/// The files must not be changed in place while this lives; replace them by a rename.
#[derive(Debug)]
pub struct Weights {
    files: TensorFiles,
    encoders: QuantizerEncoders,
}

impl Weights {
    /// Maps and checks the weights of the model directory `dir`: `model.safetensors`, or
    /// `model.safetensors.index.json` and its shards.
    ///
    /// # Errors
    /// [`LoadError::Config`] for a configuration out of range, [`LoadError::Io`] and [`LoadError::Format`] for
    /// files that cannot be read, one [`LoadError::Tensors`] that lists every missing, unexpected, wrongly
    /// shaped, wrongly typed and not finite tensor.
    pub fn open(dir: &Path, config: &ModelConfig) -> Result<Self, LoadError> {
        config.check_as(&dir.join(CONFIG_FILE))?;
        let files = TensorFiles::open_dir(dir)?;
        let faults = faults(&files, config);
        if !faults.is_empty() {
            return Err(LoadError::Tensors { path: files.path().into(), faults });
        }
        let encoders = QuantizerEncoders::of(config, files.tensors().map(|(name, _)| name));
        Ok(Self { files, encoders })
    }

    /// The elements of tensor `name`, row-major: borrowed from the file where it holds aligned F32, else
    /// widened (exactly) or copied.
    ///
    /// # Panics
    /// Where the model has no such tensor: names come from
    /// [`expected_tensors`], never from input.
    pub fn f32(&self, name: &str) -> Cow<'_, [f32]> {
        let (tensor, dtype) = self.tensor(name);
        widen(dtype, self.files.data(tensor))
    }

    /// The element type of tensor `name` in the file.
    ///
    /// # Panics
    /// As [`Weights::f32`].
    pub fn dtype(&self, name: &str) -> WeightType {
        self.tensor(name).1
    }

    /// The sizes of the axes of tensor `name`.
    ///
    /// # Panics
    /// As [`Weights::f32`].
    pub fn shape(&self, name: &str) -> &[usize] {
        &self.tensor(name).0.shape
    }

    /// The bytes of tensor `name` as they are in the file: little-endian, row-major, at any alignment.
    ///
    /// # Panics
    /// As [`Weights::f32`].
    pub fn raw(&self, name: &str) -> &[u8] {
        self.files.data(self.tensor(name).0)
    }

    /// Where the weights come from, as the file's metadata say under `origin`.
    pub fn origin(&self) -> Option<&str> {
        self.files.metadata().get(ORIGIN).map(String::as_str)
    }

    /// Digest of the files that hold them.
    pub fn digest(&self) -> Digest {
        self.files.digest()
    }

    /// Names of the tensors, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        self.files.tensors().map(|(name, _)| name)
    }

    /// Bytes of all tensors in the files.
    pub fn bytes(&self) -> usize {
        self.files.tensors().map(|(_, tensor)| self.files.data(tensor).len()).sum()
    }

    /// Number of elements of all tensors.
    pub fn parameters(&self) -> usize {
        self.files.tensors().map(|(_, tensor)| tensor.shape.iter().product::<usize>()).sum()
    }

    /// Whether the quantizer of `kind` has an encoder; without one it quantizes the raw embedding.
    pub fn has_quantizer_encoder(&self, kind: QuantizerKind) -> bool {
        self.encoders.has(kind)
    }

    fn tensor(&self, name: &str) -> (&StoredTensor, WeightType) {
        self.files
            .get(name)
            .and_then(|tensor| Some((tensor, WeightType::from_name(&tensor.dtype)?)))
            .unwrap_or_else(|| panic!("the model has no tensor {name:?}"))
    }
}

/// Everything about `files` that does not fit `config` (one that passes its check), sorted by the tensors'
/// names; empty if they fit.
pub fn faults(files: &TensorFiles, config: &ModelConfig) -> Vec<TensorFault> {
    let encoders = QuantizerEncoders::of(config, files.tensors().map(|(name, _)| name));
    let mut specs = expected_tensors(config, encoders);
    specs.sort_by(|a, b| a.name.cmp(&b.name));
    let mut found = Vec::new();
    for spec in &specs {
        match files.get(&spec.name) {
            Some(tensor) => found.extend(layout_faults(spec, tensor)),
            None => {
                found.push(TensorFault::Missing { name: spec.name.clone(), expected: spec.shape.clone() })
            }
        }
    }
    for (name, tensor) in files.tensors() {
        if specs.binary_search_by(|spec| spec.name.as_str().cmp(name)).is_err() {
            found.push(TensorFault::Unexpected { name: name.into(), shape: tensor.shape.clone() });
        }
    }
    found.extend(scan(files));
    // Stable, so that the faults of one tensor keep the order in which they were found.
    found.sort_by(|a, b| fault_name(a).cmp(fault_name(b)));
    found
}

fn layout_faults(spec: &TensorSpec, tensor: &StoredTensor) -> impl Iterator<Item = TensorFault> {
    let name = || spec.name.clone();
    let shape = (tensor.shape != spec.shape).then(|| TensorFault::Shape {
        name: name(),
        shape: tensor.shape.clone(),
        expected: spec.shape.clone(),
    });
    let dtype = WeightType::from_name(&tensor.dtype).is_none().then(|| TensorFault::Type {
        name: name(),
        dtype: tensor.dtype.clone(),
        expected: WeightType::EXPECTED,
    });
    shape.into_iter().chain(dtype)
}

fn fault_name(fault: &TensorFault) -> &str {
    match fault {
        TensorFault::Missing { name, .. }
        | TensorFault::Unexpected { name, .. }
        | TensorFault::Shape { name, .. }
        | TensorFault::Type { name, .. }
        | TensorFault::NotFinite { name, .. } => name,
    }
}

/// The first NaN or infinity of every tensor that has one.
fn scan(files: &TensorFiles) -> Vec<TensorFault> {
    let blocks: Vec<_> = files
        .tensors()
        .filter_map(|(name, tensor)| Some((name, WeightType::from_name(&tensor.dtype)?, files.data(tensor))))
        .flat_map(|(name, dtype, data)| {
            data.chunks(SCAN_BLOCK).enumerate().map(move |(block, bytes)| (name, dtype, block, bytes))
        })
        .collect();
    let mut hits: Vec<_> = blocks
        .into_par_iter()
        .filter_map(|(name, dtype, block, bytes)| {
            let (index, value) = first_not_finite(dtype, bytes)?;
            Some((name, block * SCAN_BLOCK / dtype.size() + index, value))
        })
        .collect();
    hits.dedup_by(|later, first| later.0 == first.0);
    hits.into_iter()
        .map(|(name, index, value)| TensorFault::NotFinite { name: name.into(), index, value })
        .collect()
}

fn first_not_finite(dtype: WeightType, bytes: &[u8]) -> Option<(usize, f64)> {
    match dtype {
        WeightType::F32 => find_exponent(bytes, u32::from_le_bytes, 0x7f80_0000)
            .map(|(index, bits)| (index, f64::from(f32::from_bits(bits)))),
        WeightType::BF16 => find_exponent(bytes, u16::from_le_bytes, 0x7f80)
            .map(|(index, bits)| (index, bf16::from_bits(bits).to_f64())),
        WeightType::F16 => find_exponent(bytes, u16::from_le_bytes, 0x7c00)
            .map(|(index, bits)| (index, f16::from_bits(bits).to_f64())),
    }
}

/// The first element whose exponent bits (`mask`) are all set: a NaN or an infinity.
fn find_exponent<T, const N: usize>(bytes: &[u8], read: fn([u8; N]) -> T, mask: T) -> Option<(usize, T)>
where
    T: Copy + PartialEq + std::ops::BitAnd<Output = T>,
{
    let (elements, _) = bytes.as_chunks::<N>();
    let hit = |element: &[u8; N]| read(*element) & mask == mask;
    // Without an early exit the common case (no hit) vectorizes.
    if !elements.iter().fold(false, |any, element| any | hit(element)) {
        return None;
    }
    elements.iter().position(hit).map(|index| (index, read(elements[index])))
}

fn widen(dtype: WeightType, bytes: &[u8]) -> Cow<'_, [f32]> {
    match dtype {
        WeightType::F32 => match bytemuck::try_cast_slice(bytes) {
            Ok(elements) if cfg!(target_endian = "little") => Cow::Borrowed(elements),
            _ => Cow::Owned(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
        },
        WeightType::BF16 => {
            Cow::Owned(bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect())
        }
        WeightType::F16 => {
            Cow::Owned(bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect())
        }
    }
}
