//! Building a catalog's columns from JSON lines.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::error::CatalogError;
use crate::model::config::ModelConfig;
use crate::money::Micros;

use super::ItemKind;
use super::columns::{Columns, NO_ADVERTISER, Shape};
use super::lines::{AdvertiserLine, CreativeLine, Fault, ItemLine, fault, read_lines};
use super::quantizer::{Quantizer, QuantizerKind};

/// What turns embeddings into codes.
#[derive(Debug, Clone, Default)]
pub struct Quantizers {
    /// Of items; without it every item must come with its codes.
    pub poi: Option<Quantizer>,
    /// Of creatives; without it every creative must come with its codes.
    pub creative: Option<Quantizer>,
}

impl Quantizers {
    /// Reads what there is of `quantizer.{poi,creative}.*` in some safetensors files; of a quantizer that
    /// several hold, the last one's counts.
    ///
    /// # Errors
    /// As [`Quantizer::read`].
    pub fn read<P: AsRef<Path>>(
        paths: impl IntoIterator<Item = P>,
        config: &ModelConfig,
    ) -> Result<Self, CatalogError> {
        let mut found = Self::default();
        for path in paths {
            let path = path.as_ref();
            let poi = Quantizer::read(path, QuantizerKind::Poi, config.item_embedding_size)?;
            found.poi = poi.or(found.poi);
            let creative = Quantizer::read(path, QuantizerKind::Creative, config.creative_embedding_size())?;
            found.creative = creative.or(found.creative);
        }
        Ok(found)
    }

    /// Reads what there is of `quantizer.{poi,creative}.*` in the files that hold the weights of one model together.
    ///
    /// # Errors
    /// As [`Quantizer::read_shards`].
    pub fn read_shards<P: AsRef<Path>>(shards: &[P], config: &ModelConfig) -> Result<Self, CatalogError> {
        Ok(Self {
            poi: Quantizer::read_shards(shards, QuantizerKind::Poi, config.item_embedding_size)?,
            creative: Quantizer::read_shards(
                shards,
                QuantizerKind::Creative,
                config.creative_embedding_size(),
            )?,
        })
    }
}

/// Embeddings that still await their codes.
#[derive(Default)]
struct Pending {
    /// Rows of the column that the codes go to.
    rows: Vec<usize>,
    /// Line that each came from.
    lines: Vec<usize>,
    embeddings: Vec<f32>,
}

/// Gathers a catalog, file after file, for the model of one configuration.
///
/// Advertisers come first, because ads name them; every fault names its file, line and field. A builder that
/// returned an error holds a part of that file: start again with a new one.
#[derive(Debug)]
pub struct CatalogBuilder {
    pub(super) shape: Shape,
    creative_embedding: usize,
    quantizers: Quantizers,
    pub(super) columns: Columns,
    pub(super) seen: HashSet<u64>,
    advertisers: HashSet<u64>,
    budgets: HashMap<usize, u64>,
}

impl CatalogBuilder {
    /// A catalog without items.
    ///
    /// # Errors
    /// [`CatalogError::Quantizer`] where a quantizer's input, layers or codes are not those of `config`.
    pub fn new(config: &ModelConfig, quantizers: Quantizers) -> Result<Self, CatalogError> {
        let shape = Shape::of(config);
        let creative_embedding = config.creative_embedding_size();
        check_quantizer("poi", &quantizers.poi, shape.embedding, shape.poi_layers, shape.codebook)?;
        let layers = shape.creative_layers;
        check_quantizer("creative", &quantizers.creative, creative_embedding, layers, shape.codebook)?;
        let columns = Columns {
            creative_offsets: vec![0],
            active: Some(Vec::new()),
            advertisers: Some(Vec::new()),
            ..Columns::default()
        };
        Ok(Self {
            shape,
            creative_embedding,
            quantizers,
            columns,
            seen: HashSet::new(),
            advertisers: HashSet::new(),
            budgets: HashMap::new(),
        })
    }

    /// Reads advertisers, one `{"id", "budget_micros", "pacing"}` a line: without a budget they may spend
    /// without end, without a pacing theirs is 1. Ads that are read from now on must name one of them, or
    /// none.
    ///
    /// # Errors
    /// [`CatalogError::Io`], or [`CatalogError::Line`] naming the line, the field and what was expected.
    pub fn read_advertisers(&mut self, path: &Path) -> Result<(), CatalogError> {
        let ids = self.columns.advertiser_ids.get_or_insert_default();
        let pacings = self.columns.advertiser_pacing.get_or_insert_default();
        read_lines(path, &mut |_, _| (), |_, line: AdvertiserLine| {
            if line.id == NO_ADVERTISER {
                return fault("id", format!("is {NO_ADVERTISER}, which stands for no advertiser"));
            }
            if !self.advertisers.insert(line.id) {
                return fault("id", format!("{} again, expected each advertiser once", line.id));
            }
            let pacing = line.pacing.unwrap_or(1.0);
            if !(0.0..=1.0).contains(&pacing) {
                return fault("pacing", format!("is {pacing}, expected 0 to 1"));
            }
            if let Some(budget) = line.budget_micros {
                self.budgets.insert(ids.len(), budget);
            }
            ids.push(line.id);
            pacings.push(pacing);
            Ok(())
        })
    }

    /// Reads items, one a line: `{"id", "kind": "ad" | "organic", "codes", "bid_micros", "reserve_micros",
    /// "embedding", "active", "advertiser", "creatives": [{"id", "codes", "embedding"}]}`.
    ///
    /// `id` and `kind` are required, and so is the bid of an ad. An item without codes is given those that
    /// its quantizer finds for its embedding; one without an embedding has zeros. The same holds for
    /// creatives, whose embeddings are not kept. Reserve 0, active and no advertiser are the defaults.
    /// `progress` is called with the bytes read and to read.
    ///
    /// # Errors
    /// [`CatalogError::Io`], or [`CatalogError::Line`] naming the line, the field, its value and what was
    /// expected: an unknown key, a code out of range, a number that is not finite, a wrong length, an id
    /// twice.
    pub fn read_items(
        &mut self,
        path: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), CatalogError> {
        let (mut items, mut creatives) = (Pending::default(), Pending::default());
        read_lines(path, progress, |number, line: ItemLine| {
            self.add_item(number, line, &mut items, &mut creatives)
        })?;
        let (poi, creative) = (&self.quantizers.poi, &self.quantizers.creative);
        place_codes(path, poi, items, &mut self.columns.codes)?;
        place_codes(path, creative, creatives, &mut self.columns.creative_codes)
    }

    fn add_item(
        &mut self,
        number: usize,
        line: ItemLine,
        items: &mut Pending,
        creatives: &mut Pending,
    ) -> Result<(), Fault> {
        let shape = self.shape;
        let Some(bid) = line.bid_micros.or((line.kind == ItemKind::Organic).then_some(0)) else {
            return fault("bid_micros", "is missing, expected the bid of the ad");
        };
        self.add_head(line.id, line.kind, [bid, line.reserve_micros], line.active, line.advertiser)?;
        if let Some(embedding) = &line.embedding {
            check_embedding("embedding", embedding, shape.embedding)?;
        }
        let given = Given { field: "", codes: line.codes, embedding: line.embedding };
        let column = &mut self.columns.codes;
        let quantizer = self.quantizers.poi.as_ref();
        given.place(number, column, [shape.poi_layers, shape.codebook], quantizer, items)?;
        self.columns.embeddings.extend(given.embedding.unwrap_or_else(|| vec![0.0; shape.embedding]));
        let mut ids = HashSet::new();
        for (i, creative) in line.creatives.into_iter().enumerate() {
            if !ids.insert(creative.id) {
                let message = format!("{} again, expected each creative of an item once", creative.id);
                return fault(format!("creatives[{i}].id"), message);
            }
            self.add_creative(number, i, creative, creatives)?;
        }
        self.columns.creative_offsets.push(self.columns.creative_ids.len() as u64);
        Ok(())
    }

    fn add_creative(
        &mut self,
        number: usize,
        i: usize,
        line: CreativeLine,
        pending: &mut Pending,
    ) -> Result<(), Fault> {
        let field = format!("creatives[{i}].");
        if let Some(embedding) = &line.embedding {
            check_embedding(&format!("{field}embedding"), embedding, self.creative_embedding)?;
        }
        let given = Given { field: &field, codes: line.codes, embedding: line.embedding };
        let layers = [self.shape.creative_layers, self.shape.codebook];
        let quantizer = self.quantizers.creative.as_ref();
        given.place(number, &mut self.columns.creative_codes, layers, quantizer, pending)?;
        self.columns.creative_ids.push(line.id);
        Ok(())
    }

    /// Adds what an item is apart from codes, embedding and creatives; `amounts` are its bid and its reserve.
    pub(super) fn add_head(
        &mut self,
        id: u64,
        kind: ItemKind,
        amounts: [u64; 2],
        active: bool,
        advertiser: Option<u64>,
    ) -> Result<(), Fault> {
        if !self.seen.insert(id) {
            return fault("id", format!("{id} again, expected each item once"));
        }
        for (field, micros) in ["bid_micros", "reserve_micros"].into_iter().zip(amounts) {
            if micros > Micros::MAX.0 {
                return fault(field, format!("is {micros}, expected at most 2^43"));
            }
        }
        match advertiser {
            Some(NO_ADVERTISER) => {
                return fault("advertiser", format!("is {NO_ADVERTISER}, which stands for none"));
            }
            Some(id) if self.columns.advertiser_ids.is_some() && !self.advertisers.contains(&id) => {
                return fault("advertiser", format!("is {id}, which is not in the file of advertisers"));
            }
            _ => {}
        }
        self.columns.ids.push(id);
        self.columns.kinds.push(kind);
        self.columns.bid_micros.push(amounts[0]);
        self.columns.reserve_micros.push(amounts[1]);
        self.columns.active.get_or_insert_default().push(active);
        self.columns.advertisers.get_or_insert_default().push(advertiser.unwrap_or(NO_ADVERTISER));
        Ok(())
    }

    /// The columns, ready for [`Columns::write`] or [`Catalog::from_columns`](super::Catalog::from_columns);
    /// optional ones only where something was said.
    pub fn finish(mut self) -> Columns {
        let columns = &mut self.columns;
        columns.active = columns.active.take().filter(|active| active.contains(&false));
        let named = |advertisers: &Vec<u64>| advertisers.iter().any(|&id| id != NO_ADVERTISER);
        let table = columns.advertiser_ids.is_some();
        columns.advertisers = columns.advertisers.take().filter(|advertisers| table || named(advertisers));
        if !self.budgets.is_empty() {
            let rows = 0..columns.advertiser_ids.as_ref().map_or(0, Vec::len);
            // A column has no place for "no budget"; no one can spend this one.
            let budget = |row| self.budgets.get(&row).copied().unwrap_or(u64::MAX);
            columns.advertiser_budget_micros = Some(rows.map(budget).collect());
        }
        self.columns
    }
}

/// The codes or the embedding of an item or a creative.
struct Given<'a> {
    /// Path of the object in its line.
    field: &'a str,
    codes: Option<Vec<u16>>,
    embedding: Option<Vec<f32>>,
}

impl Given<'_> {
    /// Appends the codes to `column`, or zeros and the embedding to `pending` where they are to be found yet.
    /// `limits` are the layers and the codes of each.
    fn place(
        &self,
        number: usize,
        column: &mut Vec<u16>,
        limits: [usize; 2],
        quantizer: Option<&Quantizer>,
        pending: &mut Pending,
    ) -> Result<(), Fault> {
        let [layers, codebook] = limits;
        let field = format!("{}codes", self.field);
        match (&self.codes, &self.embedding, quantizer) {
            (Some(codes), ..) => {
                check_codes(&field, codes, layers, codebook)?;
                column.extend_from_slice(codes);
                Ok(())
            }
            (None, Some(embedding), Some(_)) => {
                pending.rows.push(column.len() / layers);
                pending.lines.push(number);
                pending.embeddings.extend_from_slice(embedding);
                column.resize(column.len() + layers, 0);
                Ok(())
            }
            (None, Some(_), None) => {
                fault(field, "is missing, and there is no quantizer that could make codes of the embedding")
            }
            (None, None, _) => fault(field, "is missing, expected codes, or an embedding to make them of"),
        }
    }
}

/// Quantizes what is pending into `column`.
fn place_codes(
    path: &Path,
    quantizer: &Option<Quantizer>,
    pending: Pending,
    column: &mut [u16],
) -> Result<(), CatalogError> {
    let Some(quantizer) = quantizer else { return Ok(()) };
    let [layers, ..] = quantizer.shape();
    let codes = quantizer.encode(&pending.embeddings).map_err(|fault| CatalogError::Line {
        path: path.into(),
        line: fault.row.and_then(|row| pending.lines.get(row).copied()).unwrap_or(0),
        field: "embedding".into(),
        message: fault.message,
    })?;
    for (row, codes) in pending.rows.into_iter().zip(codes.chunks(layers)) {
        column[row * layers..(row + 1) * layers].copy_from_slice(codes);
    }
    Ok(())
}

fn check_quantizer(
    name: &str,
    quantizer: &Option<Quantizer>,
    input: usize,
    layers: usize,
    codebook: usize,
) -> Result<(), CatalogError> {
    let Some(quantizer) = quantizer else { return Ok(()) };
    let [found_layers, found_codes, _] = quantizer.shape();
    let found_input = quantizer.input_size();
    if (found_input, found_layers) == (input, layers) && found_codes <= codebook {
        return Ok(());
    }
    let message = format!(
        "the {name} quantizer makes {found_layers} codes below {found_codes} of {found_input} values, \
         but the model has {layers} codes below {codebook} and embeddings of {input}"
    );
    Err(CatalogError::Quantizer { message })
}

pub(super) fn check_codes(field: &str, codes: &[u16], layers: usize, codebook: usize) -> Result<(), Fault> {
    if codes.len() != layers {
        return fault(field, format!("has {} codes, expected {layers}", codes.len()));
    }
    match codes.iter().position(|&code| usize::from(code) >= codebook) {
        Some(i) => fault(format!("{field}[{i}]"), format!("is {}, expected below {codebook}", codes[i])),
        None => Ok(()),
    }
}

fn check_embedding(field: &str, embedding: &[f32], width: usize) -> Result<(), Fault> {
    if embedding.len() != width {
        return fault(field, format!("has {} values, expected {width}", embedding.len()));
    }
    match embedding.iter().position(|value| !value.is_finite()) {
        Some(i) => fault(format!("{field}[{i}]"), "is beyond f32, expected a finite number"),
        None => Ok(()),
    }
}

/// The embeddings [n, width] of the items of a JSON-lines file as [`CatalogBuilder::read_items`] reads it, or
/// of their creatives; what has none is left out. What a quantizer is fitted to.
///
/// # Errors
/// [`CatalogError::Io`], or [`CatalogError::Line`] naming the line and the field.
pub fn read_embeddings(
    path: &Path,
    kind: QuantizerKind,
    width: usize,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<f32>, CatalogError> {
    let mut embeddings = Vec::new();
    read_lines(path, progress, |_, line: ItemLine| {
        let found: Vec<(String, Option<Vec<f32>>)> = match kind {
            QuantizerKind::Poi => vec![("embedding".into(), line.embedding)],
            QuantizerKind::Creative => {
                let creatives = line.creatives.into_iter().enumerate();
                creatives.map(|(i, c)| (format!("creatives[{i}].embedding"), c.embedding)).collect()
            }
        };
        for (field, embedding) in found {
            if let Some(embedding) = embedding {
                check_embedding(&field, &embedding, width)?;
                embeddings.extend(embedding);
            }
        }
        Ok(())
    })?;
    Ok(embeddings)
}
