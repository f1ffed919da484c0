//! Opening a catalog file, strictly.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;

use crate::error::{CatalogError, TensorFault};
use crate::model::files::{self, read_header};

use super::ItemKind;
use super::columns::{Columns, Shape};
use super::embeddings::{Embeddings, FloatType};

/// Columns without which a file is no catalog.
const REQUIRED: [&str; 9] = [
    "item.id",
    "item.kind",
    "item.codes",
    "item.bid_micros",
    "item.reserve_micros",
    "item.embedding",
    "item.creative_offsets",
    "creative.id",
    "creative.codes",
];

/// Reads the columns of a catalog file; the embeddings stay in the map.
pub(super) fn read(path: &Path, shape: &Shape) -> Result<(Columns, Embeddings), CatalogError> {
    let io = |source| CatalogError::Io { path: path.into(), source };
    let file = File::open(path).map_err(io)?;
    let map = Arc::new(map(&file).map_err(io)?);
    let header = read_header(&map).map_err(|message| CatalogError::Format { path: path.into(), message })?;
    let header = Header(header);
    let faults = header.faults(shape);
    if !faults.is_empty() {
        return Err(CatalogError::Columns { path: path.into(), faults });
    }
    Reader { path, file, map, header }.read(shape)
}

/// Maps a file for reading.
#[expect(unsafe_code, reason = "embeddings are far larger than what a process should copy")]
pub(super) fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is read-only and only ever read as bytes, of which every value is valid. A catalog file
    // is replaced by renaming another over it, never written in place, which is documented on
    // `Catalog::open`.
    unsafe { Mmap::map(file) }
}

/// The names, types, shapes and places of a file's columns.
struct Header(files::Header);

impl Header {
    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.0.tensors.get(name)
    }

    /// Length of the first axis of the first of these columns that the file has; 0 where it has none.
    fn rows(&self, names: &[&str]) -> usize {
        names.iter().find_map(|name| self.info(name)?.shape.first().copied()).unwrap_or(0)
    }

    /// Every column's types and shape as they must be, given the numbers of ids.
    fn expected(&self, shape: &Shape) -> Vec<(&'static str, &'static [Dtype], &'static str, Vec<usize>)> {
        let n = self.rows(&["item.id", "item.kind"]);
        let m = self.rows(&["creative.id", "creative.codes"]);
        let a = self.rows(&["advertiser.id", "advertiser.budget_micros", "advertiser.pacing"]);
        const U64: (&[Dtype], &str) = (&[Dtype::U64], "U64");
        const U16: (&[Dtype], &str) = (&[Dtype::U16], "U16");
        const U8: (&[Dtype], &str) = (&[Dtype::U8], "U8");
        const F32: (&[Dtype], &str) = (&[Dtype::F32], "F32");
        const FLOAT: (&[Dtype], &str) = (&[Dtype::F32, Dtype::BF16, Dtype::F16], "F32, BF16 or F16");
        [
            ("advertiser.budget_micros", U64, vec![a]),
            ("advertiser.id", U64, vec![a]),
            ("advertiser.pacing", F32, vec![a]),
            ("creative.codes", U16, vec![m, shape.creative_layers]),
            ("creative.id", U64, vec![m]),
            ("item.active", U8, vec![n]),
            ("item.advertiser", U64, vec![n]),
            ("item.bid_micros", U64, vec![n]),
            ("item.codes", U16, vec![n, shape.poi_layers]),
            ("item.creative_offsets", U64, vec![n.saturating_add(1)]),
            ("item.embedding", FLOAT, vec![n, shape.embedding]),
            ("item.id", U64, vec![n]),
            ("item.kind", U8, vec![n]),
            ("item.reserve_micros", U64, vec![n]),
        ]
        .into_iter()
        .map(|(name, (types, words), shape)| (name, types, words, shape))
        .collect()
    }

    /// Whether a file that holds the other columns must hold this one.
    fn required(&self, name: &str) -> bool {
        let table = ["advertiser.budget_micros", "advertiser.pacing"];
        REQUIRED.contains(&name)
            || (name == "advertiser.id" && table.iter().any(|column| self.info(column).is_some()))
            || (name == "item.advertiser" && self.info("advertiser.id").is_some())
    }

    /// Every missing, unexpected, wrongly shaped or wrongly typed column, sorted by name.
    fn faults(&self, shape: &Shape) -> Vec<TensorFault> {
        let mut faults = Vec::new();
        let expected = self.expected(shape);
        for (name, types, words, expected) in &expected {
            let (name, expected) = (name.to_string(), expected.clone());
            match self.info(&name) {
                None if self.required(&name) => faults.push(TensorFault::Missing { name, expected }),
                None => {}
                Some(info) if !types.contains(&info.dtype) => faults.push(TensorFault::Type {
                    name,
                    dtype: format!("{:?}", info.dtype),
                    expected: words,
                }),
                Some(info) if info.shape != expected => {
                    faults.push(TensorFault::Shape { name, shape: info.shape.clone(), expected })
                }
                Some(_) => {}
            }
        }
        let known = |name: &str| expected.iter().any(|(known, ..)| *known == name);
        let unexpected = self.0.tensors.iter().filter(|(name, _)| !known(name));
        faults.extend(
            unexpected.map(|(name, info)| TensorFault::Unexpected {
                name: name.clone(),
                shape: info.shape.clone(),
            }),
        );
        faults.sort_by(|a, b| a.name().cmp(b.name()));
        faults
    }
}

struct Reader<'a> {
    path: &'a Path,
    file: File,
    map: Arc<Mmap>,
    header: Header,
}

impl Reader<'_> {
    /// Reads every column of a file whose header has no faults.
    fn read(mut self, shape: &Shape) -> Result<(Columns, Embeddings), CatalogError> {
        let kinds = self.kinds()?;
        let active = self.flags("item.active")?;
        let columns = Columns {
            ids: self.column("item.id")?,
            kinds,
            codes: self.column("item.codes")?,
            bid_micros: self.column("item.bid_micros")?,
            reserve_micros: self.column("item.reserve_micros")?,
            embeddings: Vec::new(),
            creative_offsets: self.column("item.creative_offsets")?,
            creative_ids: self.column("creative.id")?,
            creative_codes: self.column("creative.codes")?,
            active,
            advertisers: self.optional("item.advertiser")?,
            advertiser_ids: self.optional("advertiser.id")?,
            advertiser_budget_micros: self.optional("advertiser.budget_micros")?,
            advertiser_pacing: self.optional("advertiser.pacing")?,
        };
        let bytes = self.place("item.embedding").unwrap_or_default();
        let dtype = match self.header.info("item.embedding").map(|info| info.dtype) {
            Some(Dtype::BF16) => FloatType::Bf16,
            Some(Dtype::F16) => FloatType::F16,
            _ => FloatType::F32,
        };
        Ok((columns, Embeddings::mapped(self.map, bytes, dtype, shape.embedding)))
    }

    /// Where a column lies in the file; `None` where it is missing.
    fn place(&self, name: &str) -> Option<Range<usize>> {
        let (start, end) = self.header.info(name)?.data_offsets;
        let data = self.header.0.data_start;
        Some(data + start..data + end)
    }

    /// Copies a column by reading, not through the map: mapped pages would stay resident beside the copy.
    fn column<T: Element>(&mut self, name: &str) -> Result<Vec<T>, CatalogError> {
        let place = self.place(name).unwrap_or_default();
        let mut values = vec![T::zeroed(); place.len() / size_of::<T>()];
        self.file
            .seek(SeekFrom::Start(place.start as u64))
            .and_then(|_| self.file.read_exact(bytemuck::cast_slice_mut(&mut values)))
            .map_err(|source| CatalogError::Io { path: self.path.into(), source })?;
        values.iter_mut().for_each(|value| *value = T::from_little_endian(*value));
        Ok(values)
    }

    fn optional<T: Element>(&mut self, name: &str) -> Result<Option<Vec<T>>, CatalogError> {
        self.place(name).map(|_| self.column(name)).transpose()
    }

    fn kinds(&mut self) -> Result<Vec<ItemKind>, CatalogError> {
        let kinds: Vec<u8> = self.column("item.kind")?;
        let kind = |(row, &kind): (usize, &u8)| match kind {
            0 => Ok(ItemKind::Organic),
            1 => Ok(ItemKind::Ad),
            _ => Err(self.value("item.kind", row, format!("is {kind}, expected 0 (organic) or 1 (ad)"))),
        };
        kinds.iter().enumerate().map(kind).collect()
    }

    fn flags(&mut self, column: &'static str) -> Result<Option<Vec<bool>>, CatalogError> {
        let Some(flags) = self.optional::<u8>(column)? else { return Ok(None) };
        let flag = |(row, &flag): (usize, &u8)| match flag {
            0 | 1 => Ok(flag == 1),
            _ => Err(self.value(column, row, format!("is {flag}, expected 0 or 1"))),
        };
        flags.iter().enumerate().map(flag).collect::<Result<_, _>>().map(Some)
    }

    fn value(&self, column: &'static str, row: usize, message: String) -> CatalogError {
        CatalogError::Value { path: self.path.into(), column, row, message }
    }
}

/// A number as it lies in a file.
trait Element: bytemuck::Pod {
    fn from_little_endian(value: Self) -> Self;
}

impl Element for u8 {
    fn from_little_endian(value: Self) -> Self {
        value
    }
}

impl Element for u16 {
    fn from_little_endian(value: Self) -> Self {
        Self::from_le(value)
    }
}

impl Element for u64 {
    fn from_little_endian(value: Self) -> Self {
        Self::from_le(value)
    }
}

impl Element for f32 {
    fn from_little_endian(value: Self) -> Self {
        Self::from_bits(u32::from_le(value.to_bits()))
    }
}
