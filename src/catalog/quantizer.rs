//! Semantic ids: from an embedding to residual codes (spec section 8).

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;

use crate::error::CatalogError;

use crate::model::files::read_header;

use super::columns::{Tensor, write_tensors};

/// What a quantizer makes codes of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuantizerKind {
    /// Items, of their embedding `[d_item]`.
    Poi,
    /// Creatives, of their embedding `[creative_embedding_size]`.
    Creative,
}

impl QuantizerKind {
    /// As it stands in tensor names: `quantizer.{name}.codebook`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Poi => "poi",
            Self::Creative => "creative",
        }
    }
}

/// One layer of the encoder MLP.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderLayer {
    /// [out, in]
    pub weight: Vec<f32>,
    /// `[out]`
    pub bias: Vec<f32>,
}

/// A residual quantizer: y = MLP(e); r_0 = y; k_j = argmin_k ||r_j - codebook[j, k]||^2, the lowest k of
/// equals; r_{j+1} = r_j - codebook[j, k_j].
///
/// All in f32, each sum one accumulator from the lowest index up, products rounded before they are added, the
/// bias last: the codes do not depend on the machine, on threads, or on the rows beside a row.
#[derive(Debug, Clone)]
pub struct Quantizer {
    input: usize,
    encoder: Vec<EncoderLayer>,
    /// [in, out] per layer: a row of products is added to all outputs at once.
    transposed: Vec<Vec<f32>>,
    layers: usize,
    codes: usize,
    width: usize,
    /// [C, W, d_q]
    codebook: Vec<f32>,
    /// [C, d_q, W]: the distances to all codes grow together, dimension by dimension.
    by_dimension: Vec<f32>,
}

impl Quantizer {
    /// A quantizer of embeddings of `input` values; ReLU stands between the layers of `encoder`, none after
    /// its last, and no layers mean the identity. `codebook` is `shape` = [C, W, d_q].
    ///
    /// # Errors
    /// [`CatalogError::Quantizer`] naming the part whose size does not fit or that is not finite.
    pub fn new(
        input: usize,
        encoder: Vec<EncoderLayer>,
        codebook: Vec<f32>,
        shape: [usize; 3],
    ) -> Result<Self, CatalogError> {
        let fault = |message: String| Err(CatalogError::Quantizer { message });
        let [layers, codes, width] = shape;
        let mut size = input;
        for (i, layer) in encoder.iter().enumerate() {
            let (weights, out) = (layer.weight.len(), layer.bias.len());
            if weights != out * size {
                return fault(format!("encoder layer {i} has {weights} weights, expected {out} x {size}"));
            }
            size = out;
        }
        if size != width {
            return fault(format!("the codebook is {width} wide, but the encoder's output {size}"));
        }
        if input == 0
            || layers == 0
            || width == 0
            || !(1..=1 << 16).contains(&codes)
            || codebook.len() != layers * codes * width
        {
            return fault(format!(
                "the codebook has {} values, expected {layers} x {codes} x {width}",
                codebook.len()
            ));
        }
        let parts = encoder.iter().flat_map(|layer| [&layer.weight, &layer.bias]).chain([&codebook]);
        if parts.flatten().any(|value| !value.is_finite()) {
            return fault("the quantizer holds a NaN or an infinity, expected finite numbers".into());
        }
        let mut sizes = vec![input];
        sizes.extend(encoder.iter().map(|layer| layer.bias.len()));
        let transposed =
            encoder.iter().zip(&sizes).map(|(layer, &rows)| transpose(&layer.weight, rows)).collect();
        let by_dimension = codebook.chunks(codes * width).flat_map(|book| transpose(book, width)).collect();
        Ok(Self { input, encoder, transposed, layers, codes, width, codebook, by_dimension })
    }

    /// Reads `quantizer.{kind}.*` from a safetensors file; `None` where it has no such codebook.
    ///
    /// # Errors
    /// [`CatalogError::Io`] and [`CatalogError::Format`] where the file cannot be read,
    /// [`CatalogError::Quantizer`] where its tensors do not fit together or into `input` values.
    pub fn read(path: &Path, kind: QuantizerKind, input: usize) -> Result<Option<Self>, CatalogError> {
        Self::read_shards(&[path], kind, input)
    }

    /// [`Quantizer::read`] from files that hold the tensors of one model together: a shard may end between an encoder
    /// and its codebook.
    ///
    /// # Errors
    /// As there.
    pub fn read_shards<P: AsRef<Path>>(
        paths: &[P],
        kind: QuantizerKind,
        input: usize,
    ) -> Result<Option<Self>, CatalogError> {
        let prefix = format!("quantizer.{}.", kind.name());
        let mut tensors = Tensors::new();
        for path in paths {
            tensors.extend(read_tensors(path.as_ref(), |name| name.starts_with(&prefix))?);
        }
        Self::from_tensors(&tensors, &prefix, input).map_err(|message| {
            let names: Vec<String> = paths.iter().map(|path| path.as_ref().display().to_string()).collect();
            CatalogError::Quantizer { message: format!("{}: {message}", names.join(", ")) }
        })
    }

    fn from_tensors(
        tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>,
        prefix: &str,
        input: usize,
    ) -> Result<Option<Self>, String> {
        let get = |name: String| tensors.get(&format!("{prefix}{name}"));
        let Some((shape, codebook)) = get("codebook".into()) else {
            return match tensors.keys().next() {
                Some(name) => Err(format!("`{name}`, but no `{prefix}codebook`")),
                None => Ok(None),
            };
        };
        let shape: [usize; 3] = shape
            .as_slice()
            .try_into()
            .map_err(|_| format!("`{prefix}codebook` has shape {shape:?}, expected [C, W, d_q]"))?;
        let mut encoder = Vec::new();
        while let Some((weight_shape, weight)) = get(format!("encoder.{}.weight", encoder.len())) {
            let i = encoder.len();
            let Some((bias_shape, bias)) = get(format!("encoder.{i}.bias")) else {
                return Err(format!("missing `{prefix}encoder.{i}.bias`"));
            };
            if weight_shape.len() != 2 || bias_shape != &weight_shape[..1] {
                return Err(format!("`{prefix}encoder.{i}` has shapes {weight_shape:?} and {bias_shape:?}"));
            }
            encoder.push(EncoderLayer { weight: weight.clone(), bias: bias.clone() });
        }
        if tensors.len() != 1 + 2 * encoder.len() {
            return Err(format!(
                "unexpected tensors beside the {} layers of `{prefix}encoder`",
                encoder.len()
            ));
        }
        Self::new(input, encoder, codebook.clone(), shape).map(Some).map_err(|e| e.to_string())
    }

    /// Writes `quantizer.{kind}.*` to a safetensors file, atomically.
    ///
    /// # Errors
    /// [`CatalogError::Io`] where it cannot be written.
    pub fn write(&self, path: &Path, kind: QuantizerKind) -> Result<(), CatalogError> {
        let prefix = format!("quantizer.{}", kind.name());
        let mut names = Vec::new();
        let mut tensors = Vec::new();
        let mut size = self.input;
        for (i, layer) in self.encoder.iter().enumerate() {
            let out = layer.bias.len();
            names.extend([format!("{prefix}.encoder.{i}.weight"), format!("{prefix}.encoder.{i}.bias")]);
            tensors
                .extend([Tensor::f32(&layer.weight, vec![out, size]), Tensor::f32(&layer.bias, vec![out])]);
            size = out;
        }
        names.push(format!("{prefix}.codebook"));
        tensors.push(Tensor::f32(&self.codebook, vec![self.layers, self.codes, self.width]));
        write_tensors(path, names.iter().map(String::as_str).zip(tensors).collect())
    }

    /// Values in an embedding.
    pub fn input_size(&self) -> usize {
        self.input
    }

    /// [C, W, d_q].
    pub fn shape(&self) -> [usize; 3] {
        [self.layers, self.codes, self.width]
    }

    /// The codebook [C, W, d_q].
    pub fn codebook(&self) -> &[f32] {
        &self.codebook
    }

    /// Codes [n, C] of `embeddings` [n, input], rows in parallel.
    ///
    /// # Errors
    /// [`EncodeError`] naming the first row (and its value) that holds a NaN or an infinity, or that
    /// overflows on the way, or where the length is no multiple of the input size.
    pub fn encode(&self, embeddings: &[f32]) -> Result<Vec<u16>, EncodeError> {
        if !embeddings.len().is_multiple_of(self.input) {
            let message = format!("{} values are not rows of {}", embeddings.len(), self.input);
            return Err(EncodeError { row: None, message });
        }
        const ROWS: usize = 64;
        let mut codes = vec![0; embeddings.len() / self.input * self.layers];
        let chunks = codes.par_chunks_mut(ROWS * self.layers).zip(embeddings.par_chunks(ROWS * self.input));
        let faults: Vec<(usize, String)> = chunks
            .enumerate()
            .filter_map(|(chunk, (codes, embeddings))| {
                let mut scratch = Scratch::default();
                let rows = codes.chunks_mut(self.layers).zip(embeddings.chunks(self.input)).enumerate();
                let mut faults = rows.filter_map(|(row, (codes, embedding))| {
                    let fault = self.encode_row(embedding, codes, &mut scratch).err()?;
                    Some((chunk * ROWS + row, fault))
                });
                faults.next()
            })
            .collect();
        match faults.into_iter().min() {
            Some((row, message)) => Err(EncodeError { row: Some(row), message }),
            None => Ok(codes),
        }
    }

    fn encode_row(&self, embedding: &[f32], codes: &mut [u16], scratch: &mut Scratch) -> Result<(), String> {
        if let Some(i) = embedding.iter().position(|value| !value.is_finite()) {
            return Err(format!("value {i} is {}, expected a finite number", embedding[i]));
        }
        let residual = &mut scratch.residual;
        residual.clear();
        residual.extend_from_slice(embedding);
        for (i, (layer, weight)) in self.encoder.iter().zip(&self.transposed).enumerate() {
            if i > 0 {
                residual.iter_mut().for_each(|value| *value = value.max(0.0));
            }
            linear(residual, weight, &layer.bias, &mut scratch.next);
            std::mem::swap(residual, &mut scratch.next);
        }
        let book = self.codes * self.width;
        for (layer, code) in codes.iter_mut().enumerate() {
            let (k, distance) = nearest(
                residual,
                &self.by_dimension[layer * book..(layer + 1) * book],
                &mut scratch.distances,
            );
            if !distance.is_finite() {
                return Err(format!("its distance to the codes of layer {layer} overflows"));
            }
            *code = k as u16;
            let entry = &self.codebook[layer * book + k * self.width..][..self.width];
            residual.iter_mut().zip(entry).for_each(|(r, c)| *r -= c);
        }
        Ok(())
    }
}

/// Embeddings that have no codes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("embedding{}: {message}", row.map(|row| format!(" of row {row}")).unwrap_or_default())]
pub struct EncodeError {
    /// The row, from 0; `None` where it is not about one.
    pub row: Option<usize>,
    /// The value and what was expected.
    pub message: String,
}

#[derive(Default)]
struct Scratch {
    residual: Vec<f32>,
    next: Vec<f32>,
    distances: Vec<f32>,
}

/// `matrix` [rows, columns] as [columns, rows].
pub(super) fn transpose(matrix: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| matrix.iter().skip(column).step_by(columns.max(1)).copied()).collect()
}

/// `out` = x W^T + bias, `weight` as [in, out].
fn linear(x: &[f32], weight: &[f32], bias: &[f32], out: &mut Vec<f32>) {
    out.clear();
    out.resize(bias.len(), 0.0);
    for (value, row) in x.iter().zip(weight.chunks(bias.len().max(1))) {
        out.iter_mut().zip(row).for_each(|(out, w)| *out += value * w);
    }
    out.iter_mut().zip(bias).for_each(|(out, b)| *out += b);
}

/// The code nearest to `residual` [d] in `by_dimension` [d, W], and its squared distance; lowest code of
/// equals.
pub(super) fn nearest(residual: &[f32], by_dimension: &[f32], distances: &mut Vec<f32>) -> (usize, f32) {
    let codes = by_dimension.len() / residual.len();
    distances.clear();
    distances.resize(codes, 0.0);
    for (value, row) in residual.iter().zip(by_dimension.chunks(codes)) {
        for (distance, entry) in distances.iter_mut().zip(row) {
            let difference = value - entry;
            *distance += difference * difference;
        }
    }
    // The minimum first and its place second: both loops vectorize, one that tracks the place does not.
    let least = distances
        .iter()
        .fold(f32::INFINITY, |least, &distance| if distance < least { distance } else { least });
    let place = distances.iter().position(|&distance| distance == least);
    place.map_or((0, f32::NAN), |k| (k, least))
}

/// Tensors by name, with their shapes, widened to f32.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Reads the tensors of a safetensors file whose name `wanted` accepts.
fn read_tensors(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Tensors, CatalogError> {
    let file = File::open(path).and_then(|file| super::file::map(&file));
    let map = file.map_err(|source| CatalogError::Io { path: path.into(), source })?;
    let format = |message: String| CatalogError::Format { path: path.into(), message };
    let header = read_header(&map).map_err(format)?;
    let mut tensors = Tensors::new();
    for (name, info) in header.tensors.into_iter().filter(|(name, _)| wanted(name)) {
        let (start, end) = info.data_offsets;
        let data = &map[header.data_start..][start..end];
        let pairs = || data.as_chunks::<2>().0.iter().copied();
        let values = match info.dtype {
            Dtype::F32 => data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::BF16 => pairs().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
            Dtype::F16 => pairs().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
            dtype => return Err(format(format!("`{name}` holds {dtype:?}, expected F32, BF16 or F16"))),
        };
        tensors.insert(name, (info.shape, values));
    }
    Ok(tensors)
}

/// Reads a matrix [n, d] from a safetensors file: the tensor `name`, or the file's only one. Returns the
/// values and d.
///
/// # Errors
/// [`CatalogError::Io`] where the file cannot be read, [`CatalogError::Format`] where it does not hold the
/// matrix.
pub fn read_matrix(path: &Path, name: Option<&str>) -> Result<(Vec<f32>, usize), CatalogError> {
    let format = |message: String| CatalogError::Format { path: path.into(), message };
    let mut tensors = read_tensors(path, |found| name.is_none_or(|name| name == found))?;
    match (tensors.pop_first(), tensors.is_empty()) {
        (Some((name, (shape, values))), true) => match shape[..] {
            [_, width] if width > 0 => Ok((values, width)),
            _ => Err(format(format!("`{name}` has shape {shape:?}, expected [rows, width]"))),
        },
        (None, _) => Err(format(match name {
            Some(name) => format!("no tensor `{name}`"),
            None => "no tensor".into(),
        })),
        (Some(_), false) => Err(format("more than one tensor; name the one to read".into())),
    }
}
