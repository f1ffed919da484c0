//! The columns of a catalog in memory: what a builder fills, what a file holds.

use std::borrow::Cow;
use std::path::Path;

use safetensors::{Dtype, SafeTensorError, View};

use crate::error::{CatalogError, TensorFault};
use crate::model::config::ModelConfig;
use crate::model::files;
use crate::money::Micros;

use super::ItemKind;

/// In `item.advertiser`: the item has no advertiser.
pub const NO_ADVERTISER: u64 = u64::MAX;

/// Stands for the file's path in errors about columns that came from no file.
pub(super) const IN_MEMORY: &str = "<memory>";

/// The sizes of a model that its catalogs must share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) poi_layers: usize,
    pub(super) creative_layers: usize,
    pub(super) codebook: usize,
    pub(super) embedding: usize,
}

impl Shape {
    /// Sizes of 0, which no configuration that was checked has, count as 1: nothing divides by zero.
    pub(super) fn of(config: &ModelConfig) -> Self {
        Self {
            poi_layers: config.poi_code_layers.max(1),
            creative_layers: config.creative_code_layers.max(1),
            codebook: config.codebook_size,
            embedding: config.item_embedding_size.max(1),
        }
    }
}

/// A catalog as plain columns of N items and M creatives (spec section 7).
///
/// [`Catalog::from_columns`](super::Catalog::from_columns) serves them, [`Columns::write`] makes a file of
/// them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Columns {
    /// `item.id` `[N]`: external ids, each once.
    pub ids: Vec<u64>,
    /// `item.kind` `[N]`.
    pub kinds: Vec<ItemKind>,
    /// `item.codes` [N, C_p], each below W.
    pub codes: Vec<u16>,
    /// `item.bid_micros` `[N]`, at most [`Micros::MAX`]; organic items count as 0 whatever stands here.
    pub bid_micros: Vec<u64>,
    /// `item.reserve_micros` `[N]`, at most [`Micros::MAX`].
    pub reserve_micros: Vec<u64>,
    /// `item.embedding` [N, d_item]; an item with a NaN or an infinity is never shown.
    pub embeddings: Vec<f32>,
    /// `item.creative_offsets` `[N + 1]`: item i owns creatives `offsets[i]..offsets[i + 1]`.
    pub creative_offsets: Vec<u64>,
    /// `creative.id` `[M]`, each once within its item.
    pub creative_ids: Vec<u64>,
    /// `creative.codes` [M, C_c], each below W.
    pub creative_codes: Vec<u16>,
    /// `item.active` `[N]`; without it every item is active.
    pub active: Option<Vec<bool>>,
    /// `item.advertiser` `[N]`, [`NO_ADVERTISER`] for none. Where `advertiser_ids` is given, ads must name
    /// one.
    pub advertisers: Option<Vec<u64>>,
    /// `advertiser.id` `[A]`, each once; without it the advertisers are those that items name.
    pub advertiser_ids: Option<Vec<u64>>,
    /// `advertiser.budget_micros` `[A]`: what is left to spend; without it budgets never gate.
    pub advertiser_budget_micros: Option<Vec<u64>>,
    /// `advertiser.pacing` `[A]` in [0, 1]: the factor on bids; without it 1.
    pub advertiser_pacing: Option<Vec<f32>>,
}

impl Columns {
    /// Checks every length and value against the model's configuration.
    ///
    /// # Errors
    /// [`CatalogError::Columns`] listing every column of the wrong length, else [`CatalogError::Value`]
    /// naming the first offending value.
    pub fn check(&self, config: &ModelConfig) -> Result<(), CatalogError> {
        let shape = Shape::of(config);
        let rows = self.embeddings.len() / shape.embedding;
        let odd = !self.embeddings.len().is_multiple_of(shape.embedding);
        // A ragged matrix has no number of rows; usize::MAX makes the length check name it.
        self.check_as(&shape, if odd { usize::MAX } else { rows }, Path::new(IN_MEMORY))
    }

    /// Checks everything but the embeddings' values; `embedding_rows` may lie in a mapped file.
    pub(super) fn check_as(
        &self,
        shape: &Shape,
        embedding_rows: usize,
        path: &Path,
    ) -> Result<(), CatalogError> {
        let faults = self.length_faults(shape, embedding_rows);
        if !faults.is_empty() {
            return Err(CatalogError::Columns { path: path.into(), faults });
        }
        self.check_values(shape).map_err(|(column, row, message)| CatalogError::Value {
            path: path.into(),
            column,
            row,
            message,
        })
    }

    fn length_faults(&self, shape: &Shape, embedding_rows: usize) -> Vec<TensorFault> {
        let (n, m) = (self.ids.len(), self.creative_ids.len());
        let a = self.advertiser_ids.as_ref().map_or(0, Vec::len);
        let optional = |column: Option<usize>, expected| (column.unwrap_or(expected), expected);
        let lengths = [
            ("advertiser.budget_micros", optional(self.advertiser_budget_micros.as_ref().map(Vec::len), a)),
            ("advertiser.pacing", optional(self.advertiser_pacing.as_ref().map(Vec::len), a)),
            ("creative.codes", (self.creative_codes.len(), m * shape.creative_layers)),
            ("item.active", optional(self.active.as_ref().map(Vec::len), n)),
            ("item.advertiser", optional(self.advertisers.as_ref().map(Vec::len), n)),
            ("item.bid_micros", (self.bid_micros.len(), n)),
            ("item.codes", (self.codes.len(), n * shape.poi_layers)),
            ("item.creative_offsets", (self.creative_offsets.len(), n + 1)),
            ("item.embedding", (embedding_rows, n)),
            ("item.kind", (self.kinds.len(), n)),
            ("item.reserve_micros", (self.reserve_micros.len(), n)),
        ];
        let wrong = lengths.into_iter().filter(|(_, (found, expected))| found != expected);
        wrong
            .map(|(name, (found, expected))| TensorFault::Shape {
                name: name.into(),
                shape: vec![found],
                expected: vec![expected],
            })
            .collect()
    }

    /// The first offending value: its column, its row and what was expected.
    fn check_values(&self, shape: &Shape) -> Result<(), (&'static str, usize, String)> {
        if self.ids.len() >= u32::MAX as usize || self.creative_ids.len() >= u32::MAX as usize {
            return Err(("item.id", u32::MAX as usize, "more rows than 2^32 - 2".into()));
        }
        for (column, amounts) in
            [("item.bid_micros", &self.bid_micros), ("item.reserve_micros", &self.reserve_micros)]
        {
            if let Some(row) = amounts.iter().position(|&micros| micros > Micros::MAX.0) {
                return Err((column, row, format!("is {}, expected at most 2^43", amounts[row])));
            }
        }
        check_codes("item.codes", &self.codes, shape.poi_layers, shape.codebook)?;
        check_codes("creative.codes", &self.creative_codes, shape.creative_layers, shape.codebook)?;
        self.check_offsets()?;
        self.check_creative_ids()?;
        let named_none = |ids: &Vec<u64>| ids.iter().position(|&id| id == NO_ADVERTISER);
        if let Some(row) = self.advertiser_ids.as_ref().and_then(named_none) {
            return Err(("advertiser.id", row, format!("is {NO_ADVERTISER}, which stands for none")));
        }
        for (row, &pacing) in self.advertiser_pacing.iter().flatten().enumerate() {
            if !(0.0..=1.0).contains(&pacing) {
                return Err(("advertiser.pacing", row, format!("is {pacing}, expected 0 to 1")));
            }
        }
        Ok(())
    }

    fn check_offsets(&self) -> Result<(), (&'static str, usize, String)> {
        let column = "item.creative_offsets";
        let (offsets, m) = (&self.creative_offsets, self.creative_ids.len() as u64);
        if let Some(row) = offsets.windows(2).position(|pair| pair[1] < pair[0]) {
            let (before, after) = (offsets[row], offsets[row + 1]);
            return Err((column, row + 1, format!("is {after}, expected at least {before} as before it")));
        }
        // The length check left at least one offset.
        let ends = [(0, offsets[0], 0), (offsets.len() - 1, offsets[offsets.len() - 1], m)];
        match ends.into_iter().find(|(_, found, expected)| found != expected) {
            Some((row, found, expected)) => Err((column, row, format!("is {found}, expected {expected}"))),
            None => Ok(()),
        }
    }

    fn check_creative_ids(&self) -> Result<(), (&'static str, usize, String)> {
        let mut ids = Vec::new();
        for (item, range) in self.creative_offsets.windows(2).enumerate() {
            let (start, end) = (range[0] as usize, range[1] as usize);
            if let Some(id) = duplicate(&self.creative_ids[start..end], &mut ids) {
                let message = format!("{id} twice among the creatives of item {}", self.ids[item]);
                return Err(("creative.id", start, message));
            }
        }
        Ok(())
    }

    /// Writes a catalog file, atomically: a temporary file beside `path` is renamed over it.
    ///
    /// # Errors
    /// What [`Columns::check`] finds, and [`CatalogError::Io`] where the file cannot be written.
    pub fn write(&self, path: &Path, config: &ModelConfig) -> Result<(), CatalogError> {
        self.check(config)?;
        write_tensors(path, self.tensors(&Shape::of(config)))
    }

    fn tensors(&self, shape: &Shape) -> Vec<(&'static str, Tensor<'_>)> {
        let (n, m) = (self.ids.len(), self.creative_ids.len());
        let kinds = self.kinds.iter().map(|&kind| kind as u8).collect();
        let mut tensors = vec![
            ("item.id", Tensor::u64(&self.ids)),
            ("item.kind", Tensor::u8(kinds)),
            ("item.codes", Tensor::u16(&self.codes, [n, shape.poi_layers])),
            ("item.bid_micros", Tensor::u64(&self.bid_micros)),
            ("item.reserve_micros", Tensor::u64(&self.reserve_micros)),
            ("item.embedding", Tensor::f32(&self.embeddings, vec![n, shape.embedding])),
            ("item.creative_offsets", Tensor::u64(&self.creative_offsets)),
            ("creative.id", Tensor::u64(&self.creative_ids)),
            ("creative.codes", Tensor::u16(&self.creative_codes, [m, shape.creative_layers])),
        ];
        if let Some(active) = &self.active {
            tensors.push(("item.active", Tensor::u8(active.iter().map(|&a| u8::from(a)).collect())));
        }
        let optional = [
            ("item.advertiser", &self.advertisers),
            ("advertiser.id", &self.advertiser_ids),
            ("advertiser.budget_micros", &self.advertiser_budget_micros),
        ];
        tensors
            .extend(optional.into_iter().filter_map(|(name, ids)| Some((name, Tensor::u64(ids.as_ref()?)))));
        if let Some(pacing) = &self.advertiser_pacing {
            tensors.push(("advertiser.pacing", Tensor::f32(pacing, vec![pacing.len()])));
        }
        tensors
    }
}

fn check_codes(
    column: &'static str,
    codes: &[u16],
    layers: usize,
    codebook: usize,
) -> Result<(), (&'static str, usize, String)> {
    match codes.iter().position(|&code| usize::from(code) >= codebook) {
        Some(i) => {
            let message = format!("is {} in layer {}, expected below {codebook}", codes[i], i % layers);
            Err((column, i / layers, message))
        }
        None => Ok(()),
    }
}

/// An id that occurs twice in `ids`; `scratch` is overwritten.
pub(super) fn duplicate(ids: &[u64], scratch: &mut Vec<u64>) -> Option<u64> {
    if ids.len() < 2 {
        return None;
    }
    scratch.clear();
    scratch.extend_from_slice(ids);
    scratch.sort_unstable();
    scratch.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

/// A tensor to be written, little-endian.
pub(super) struct Tensor<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

impl<'a> Tensor<'a> {
    pub(super) fn u8(values: Vec<u8>) -> Self {
        Self { dtype: Dtype::U8, shape: vec![values.len()], bytes: values.into() }
    }

    pub(super) fn u16(values: &'a [u16], shape: [usize; 2]) -> Self {
        Self { dtype: Dtype::U16, shape: shape.into(), bytes: little_endian(values, u16::to_le_bytes) }
    }

    pub(super) fn u64(values: &'a [u64]) -> Self {
        Self { dtype: Dtype::U64, shape: vec![values.len()], bytes: little_endian(values, u64::to_le_bytes) }
    }

    pub(super) fn f32(values: &'a [f32], shape: Vec<usize>) -> Self {
        Self { dtype: Dtype::F32, shape, bytes: little_endian(values, f32::to_le_bytes) }
    }
}

fn little_endian<T: bytemuck::Pod, const B: usize>(values: &[T], bytes: fn(T) -> [u8; B]) -> Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        Cow::Borrowed(bytemuck::cast_slice(values))
    } else {
        Cow::Owned(values.iter().flat_map(|&value| bytes(value)).collect())
    }
}

impl View for Tensor<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// As [`files::write_tensors`].
pub(super) fn write_tensors(path: &Path, tensors: Vec<(&str, Tensor<'_>)>) -> Result<(), CatalogError> {
    files::write_tensors(path, tensors, None).map_err(|error| match error {
        SafeTensorError::IoError(source) => CatalogError::Io { path: path.into(), source },
        other => CatalogError::Format { path: path.into(), message: other.to_string() },
    })
}
