//! `bidslate catalog build` and `bidslate catalog stats`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use bidslate::catalog::{
    Catalog, CatalogBuilder, CatalogStats, CodeReport, IndexOptions, Quantizers, read_matrix,
};
use bidslate::model::config::ModelConfig;
use clap::{Args, Subcommand};
use comfy_table::{CellAlignment, Table, presets};

use crate::files::keep_apart;
use crate::lines;
use crate::progress::Progress;

/// Makes catalogs, and says what is in them.
#[derive(Args)]
pub struct CatalogArgs {
    #[command(subcommand)]
    command: CatalogCommand,
}

#[derive(Subcommand)]
enum CatalogCommand {
    /// Build a catalog from JSON lines or from an index of semantic ids.
    Build(BuildArgs),
    /// Say what a catalog holds: items, codes, collisions, eligible ads, bids.
    Stats(StatsArgs),
}

#[derive(Args)]
struct BuildArgs {
    /// Model directory: its config.json gives the sizes, its weights the quantizers.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Items, one JSON object a line: {"id", "kind": "ad" | "organic", "codes", "bid_micros",
    /// "reserve_micros", "embedding", "active", "advertiser", "creatives": [{"id", "codes", "embedding"}]}.
    /// Without codes they are made of the embedding.
    #[arg(long, value_name = "FILE", required_unless_present = "index")]
    items: Option<PathBuf>,
    /// Advertisers, one JSON object a line: {"id", "budget_micros", "pacing"}.
    #[arg(long, value_name = "FILE")]
    advertisers: Option<PathBuf>,
    /// Items as trainers of semantic ids write them: {"ITEM": ["<a_114>", "<b_32>", ...]}; each gets one
    /// creative with its own id.
    #[arg(long, value_name = "FILE", conflicts_with = "items")]
    index: Option<PathBuf>,
    /// Which items of the index are ads, one JSON object a line: {"id", "bid_micros", "reserve_micros",
    /// "advertiser"}; the others are organic.
    #[arg(long, value_name = "FILE", requires = "index")]
    bids: Option<PathBuf>,
    /// Embeddings of the items of the index, item i in row i of a tensor of a safetensors file; without it
    /// zeros.
    #[arg(long, value_name = "FILE[:TENSOR]", requires = "index")]
    embeddings: Option<String>,
    /// Codes of the creatives of the index's items; without it zeros.
    #[arg(long, value_name = "CODES", value_delimiter = ',', requires = "index")]
    creative_codes: Option<Vec<u16>>,
    /// Quantizers to use in place of the model's, from `bidslate quantize fit`.
    #[arg(long, value_name = "FILE")]
    quantizer: Vec<PathBuf>,
    /// The catalog to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Args)]
struct StatsArgs {
    /// The catalog.
    catalog: PathBuf,
    /// Model directory that the catalog was made for.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
}

impl CatalogArgs {
    /// Runs the subcommand.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            CatalogCommand::Build(args) => args.run(),
            CatalogCommand::Stats(args) => args.run(),
        }
    }
}

impl BuildArgs {
    fn run(self) -> anyhow::Result<()> {
        self.keep_apart()?;
        let config = ModelConfig::read(&self.model.join("config.json"))?;
        let quantizers = self.quantizers(&config)?;
        let mut builder = CatalogBuilder::new(&config, quantizers)?;
        if let Some(advertisers) = &self.advertisers {
            builder.read_advertisers(advertisers)?;
        }
        if let Some(items) = &self.items {
            let mut progress = Progress::bytes("reading items");
            builder.read_items(items, &mut |done, total| progress.at(done, total))?;
        }
        if let Some(index) = &self.index {
            let embeddings = self.index_embeddings(&config)?;
            let options = IndexOptions {
                bids: self.bids.as_deref(),
                embeddings: embeddings.as_deref(),
                creative_codes: self.creative_codes.as_deref(),
            };
            builder.read_index(index, &options)?;
        }
        let columns = builder.finish();
        columns.write(&self.out, &config)?;
        let report = CodeReport::of(&columns.codes, config.poi_code_layers, config.codebook_size);
        let (items, creatives) = (columns.ids.len(), columns.creative_ids.len());
        lines::print(format_args!("{}: {items} items, {creatives} creatives", self.out.display()))?;
        lines::print(report)
    }

    /// Refuses a catalog in the place of what it is made of.
    fn keep_apart(&self) -> anyhow::Result<()> {
        let weights = self.model.join("model.safetensors");
        let mut inputs = vec![
            ("--items", self.items.as_deref()),
            ("--advertisers", self.advertisers.as_deref()),
            ("--index", self.index.as_deref()),
            ("--bids", self.bids.as_deref()),
            ("--embeddings", self.embeddings.as_deref().map(|source| split_tensor(source).0)),
            ("--model", Some(&*weights)),
        ];
        inputs.extend(self.quantizer.iter().map(|file| ("--quantizer", Some(&**file))));
        keep_apart(&inputs, &[("--out", Some(&self.out))])
    }

    /// The model's quantizers, those that are named in their place. A model without weights has none.
    fn quantizers(&self, config: &ModelConfig) -> anyhow::Result<Quantizers> {
        let own = Quantizers::read_shards(&weights_files(&self.model)?, config)?;
        let given = Quantizers::read(&self.quantizer, config)?;
        Ok(Quantizers { poi: given.poi.or(own.poi), creative: given.creative.or(own.creative) })
    }

    fn index_embeddings(&self, config: &ModelConfig) -> anyhow::Result<Option<Vec<f32>>> {
        let Some(source) = &self.embeddings else { return Ok(None) };
        let (path, tensor) = split_tensor(source);
        let (embeddings, width) = read_matrix(path, tensor)?;
        anyhow::ensure!(
            width == config.item_embedding_size,
            "{}: embeddings of {width} values, but the model's have {}",
            path.display(),
            config.item_embedding_size
        );
        Ok(Some(embeddings))
    }
}

/// `FILE:TENSOR` or `FILE`.
pub fn split_tensor(source: &str) -> (&Path, Option<&str>) {
    match source.rsplit_once(':') {
        Some((path, tensor)) if !Path::new(source).exists() => (Path::new(path), Some(tensor)),
        _ => (Path::new(source), None),
    }
}

/// The files that hold a model's weights: one, or the shards of its index.
fn weights_files(model: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let single = model.join("model.safetensors");
    let index = model.join("model.safetensors.index.json");
    if single.exists() || !index.exists() {
        return Ok(single.exists().then_some(single).into_iter().collect());
    }
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let text = std::fs::read(&index).with_context(|| index.display().to_string())?;
    let parsed: Index = serde_json::from_slice(&text).with_context(|| index.display().to_string())?;
    let quantizers = parsed.weight_map.into_iter().filter(|(name, _)| name.starts_with("quantizer."));
    let mut shards: Vec<PathBuf> = quantizers.map(|(_, shard)| model.join(shard)).collect();
    shards.sort();
    shards.dedup();
    Ok(shards)
}

impl StatsArgs {
    fn run(self) -> anyhow::Result<()> {
        let config = ModelConfig::read(&self.model.join("config.json"))?;
        let stats = CatalogStats::of(&Catalog::open(&self.catalog, &config)?.snapshot());
        if self.json { lines::print(serde_json::to_string_pretty(&stats)?) } else { print_tables(&stats) }
    }
}

fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(head);
    table
}

/// Prints rows of a label and figures, the figures to the right.
fn print(mut table: Table) -> anyhow::Result<()> {
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    lines::print(table)
}

fn print_tables(stats: &CatalogStats) -> anyhow::Result<()> {
    let mut counts = table(&["catalog", "rows"]);
    let rows = [
        ("ads", stats.ads),
        ("organic items", stats.organic),
        ("creatives", stats.creatives),
        ("advertisers", stats.advertisers),
        ("ads eligible now", stats.eligible_ads),
    ];
    counts.add_rows(rows.map(|(name, count)| [name.to_string(), count.to_string()]));
    for (kind, rejected) in [("ads", &stats.rejected_ads), ("organic items", &stats.rejected_organic)] {
        for (reason, count) in rejected {
            counts.add_row([format!("{kind} rejected: {reason}"), count.to_string()]);
        }
    }
    print(counts)?;
    let mut codes = table(&["codes", "used", "perplexity", "collisions", "deepest bucket"]);
    for (name, report) in [("items", &stats.item_codes), ("creatives", &stats.creative_codes)] {
        let share = format!("{:.2} %", report.collisions * 100.0);
        let distinct = format!("{} of {}", report.full_codes, report.rows);
        codes.add_row([name.into(), distinct, String::new(), share, report.deepest.to_string()]);
        for (layer, found) in report.layers.iter().enumerate() {
            let used = format!("{} of {}", found.used, report.codebook_size);
            codes.add_row([format!("  layer {layer}"), used, format!("{:.1}", found.perplexity)]);
        }
    }
    print(codes)?;
    if !stats.bid_quantiles_micros.is_empty() {
        let mut bids = table(&["effective bids of eligible ads", "currency units"]);
        for (quantile, bid) in &stats.bid_quantiles_micros {
            bids.add_row([format!("quantile {quantile}"), bid.to_string()]);
        }
        print(bids)?;
    }
    Ok(())
}
