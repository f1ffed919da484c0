//! `bidslate inspect`: what a model directory holds, and whether it fits together.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::bail;
use bidslate::catalog::Catalog;
use bidslate::error::{CatalogError, LoadError};
use bidslate::model::config::{CONFIG_FILE, ModelConfig};
use bidslate::model::files::TensorFiles;
use bidslate::model::tokenizer::check_tokenizer;
use bidslate::model::weights::faults;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

/// Show what a model directory holds and whether it fits together; exit code 1 if it does not.
#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// The model directory.
    dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    fits: bool,
    /// Every fault that was found, one line each.
    faults: Vec<String>,
    config: Option<ModelConfig>,
    weights: Option<WeightsReport>,
    catalog: Option<BTreeMap<String, Column>>,
}

#[derive(Serialize)]
struct WeightsReport {
    files: usize,
    parameters: u64,
    bytes: u64,
    components: Vec<Component>,
}

/// The tensors of one type whose names begin with the same word.
#[derive(Serialize)]
struct Component {
    component: String,
    #[serde(rename = "type")]
    dtype: String,
    tensors: usize,
    parameters: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Column {
    rows: usize,
    #[serde(rename = "type")]
    dtype: String,
    shape: Vec<usize>,
}

impl InspectArgs {
    /// Prints the report.
    pub fn run(self) -> anyhow::Result<()> {
        let report = Report::of(&self.dir);
        let text = if self.json { serde_json::to_string_pretty(&report)? + "\n" } else { report.text() };
        std::io::stdout().lock().write_all(text.as_bytes())?;
        if !report.fits {
            bail!("{} does not fit: {} fault(s)", self.dir.display(), report.faults.len());
        }
        Ok(())
    }
}

impl Report {
    fn of(dir: &Path) -> Self {
        let mut lines = Vec::new();
        let config = keep(ModelConfig::read(&dir.join(CONFIG_FILE)), &mut lines);
        let weights = keep(TensorFiles::open_dir(dir), &mut lines);
        if let Some(config) = &config {
            keep(check_tokenizer(dir, config), &mut lines);
        }
        if let (Some(config), Some(files)) = (&config, &weights) {
            let path = files.path().display();
            lines.extend(faults(files, config).iter().map(|fault| format!("{path}: {fault}")));
        }
        let catalog = read_catalog(&dir.join("catalog.safetensors"), config.as_ref(), &mut lines);
        Self {
            fits: lines.is_empty(),
            faults: lines,
            config,
            weights: weights.as_ref().map(WeightsReport::of),
            catalog: catalog.as_ref().map(columns),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        if let Some(config) = &self.config {
            writeln!(out, "{}", config_table(config))?;
        }
        if let Some(weights) = &self.weights {
            writeln!(out, "{}", weights.table())?;
        }
        if let Some(catalog) = &self.catalog {
            writeln!(out, "{}", catalog_table(catalog))?;
        }
        for fault in &self.faults {
            writeln!(out, "{fault}")?;
        }
        writeln!(out, "{}", if self.fits { "Everything fits." } else { "It does not fit." })
    }
}

/// The columns of a catalog; none where there is no such file, which is no fault: another may be given to the engine.
/// What the model of `config` cannot serve goes to `lines`, as do all faults.
fn read_catalog(path: &Path, config: Option<&ModelConfig>, lines: &mut Vec<String>) -> Option<TensorFiles> {
    if !path.exists() {
        return None;
    }
    let columns = keep(TensorFiles::open_file(path), lines)?;
    if let Some(Err(error)) = config.map(|config| Catalog::open(path, config)) {
        lines.extend(catalog_faults(error));
    }
    Some(columns)
}

fn keep<T>(result: Result<T, LoadError>, lines: &mut Vec<String>) -> Option<T> {
    result.map_err(|error| lines.push(error.to_string())).ok()
}

/// Why a catalog cannot be opened: every column that does not fit, or else the first wrong value.
fn catalog_faults(error: CatalogError) -> Vec<String> {
    match error {
        CatalogError::Columns { path, faults } => {
            faults.iter().map(|fault| format!("{}: {fault}", path.display())).collect()
        }
        error => vec![error.to_string()],
    }
}

impl WeightsReport {
    fn of(files: &TensorFiles) -> Self {
        let mut groups: BTreeMap<(&str, &str), Component> = BTreeMap::new();
        for (name, tensor) in files.tensors() {
            let component = name.split_once('.').map_or(name, |(head, _)| head);
            let group = groups.entry((component, &tensor.dtype)).or_insert_with(|| Component {
                component: component.into(),
                dtype: tensor.dtype.clone(),
                tensors: 0,
                parameters: 0,
                bytes: 0,
            });
            group.tensors += 1;
            group.parameters += tensor.shape.iter().product::<usize>() as u64;
            group.bytes += files.data(tensor).len() as u64;
        }
        let components: Vec<_> = groups.into_values().collect();
        Self {
            files: files.file_count(),
            parameters: components.iter().map(|component| component.parameters).sum(),
            bytes: components.iter().map(|component| component.bytes).sum(),
            components,
        }
    }

    fn table(&self) -> Table {
        let mut table = table(&["component", "type", "tensors", "parameters", "bytes"], 2);
        for component in &self.components {
            table.add_row([
                component.component.clone(),
                component.dtype.clone(),
                component.tensors.to_string(),
                component.parameters.to_string(),
                component.bytes.to_string(),
            ]);
        }
        let tensors: usize = self.components.iter().map(|component| component.tensors).sum();
        let files = if self.files == 1 { "1 file".into() } else { format!("{} files", self.files) };
        table.add_row([
            format!("total, {files}"),
            String::new(),
            tensors.to_string(),
            self.parameters.to_string(),
            self.bytes.to_string(),
        ]);
        table
    }
}

fn columns(files: &TensorFiles) -> BTreeMap<String, Column> {
    let column = |tensor: &bidslate::model::files::StoredTensor| Column {
        rows: tensor.shape.first().copied().unwrap_or(1),
        dtype: tensor.dtype.clone(),
        shape: tensor.shape.clone(),
    };
    files.tensors().map(|(name, tensor)| (name.to_owned(), column(tensor))).collect()
}

fn catalog_table(catalog: &BTreeMap<String, Column>) -> Table {
    let mut table = table(&["catalog column", "type", "rows"], 2);
    for (name, column) in catalog {
        table.add_row([name.clone(), column.dtype.clone(), column.rows.to_string()]);
    }
    table
}

fn config_table(config: &ModelConfig) -> Table {
    let mut table = table(&["config.json", ""], 2);
    let heads = |size: usize, heads: usize| format!("{size} wide, {heads} head(s) of {}", size / heads);
    let features = |sizes: &BTreeMap<String, usize>| match sizes.len() {
        0 => "none".to_owned(),
        _ => sizes.iter().map(|(name, size)| format!("{name} ({size})")).collect::<Vec<_>>().join(", "),
    };
    let codes = |layers| format!("{layers} layers of {}", config.codebook_size);
    table.add_row(["vocabulary", &config.vocabulary_size().to_string()]);
    table.add_row(["history, list, beams", &{
        format!("{} behaviours, {} slots, {}", config.history_len, config.list_len, config.beam_width)
    }]);
    table.add_row(["codes of an item", &codes(config.poi_code_layers)]);
    table.add_row(["codes of a creative", &codes(config.creative_code_layers)]);
    table.add_row(["encoder and decoder", &heads(config.hidden_size, config.num_heads)]);
    table.add_row(["blocks", &format!("{} and {}", config.encoder_layers, config.decoder_layers)]);
    table.add_row(["feed-forward", &config.ffn_size.to_string()]);
    table.add_row(["reward model", &heads(config.reward_hidden_size, config.reward_heads)]);
    table.add_row(["reward blocks", &config.reward_layers.to_string()]);
    table.add_row(["item embedding", &config.item_embedding_size.to_string()]);
    table.add_row([
        "quantizer",
        &match config.quantizer_size {
            Some(size) => format!("{:?} to {size}", config.quantizer_hidden),
            None => "none".into(),
        },
    ]);
    table.add_row(["context features", &features(&config.context_features)]);
    table.add_row(["behaviour features", &features(&config.behavior_features)]);
    table.add_row(["bid unit, billable unit", &{
        format!("{} and {} micros", config.bid_unit_micros, config.billable_unit_micros)
    }]);
    table.add_row(["currency", &config.currency.map_or("not declared".into(), |c| c.to_string())]);
    table.add_row(["alpha, beta", &format!("{}, {}", config.alpha, config.beta)]);
    table
}

/// An empty table; columns from `numbers` on are right-aligned.
fn table(header: &[&str], numbers: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(header);
    for column in table.column_iter_mut().skip(numbers) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use bidslate::model::config::ModelSize;
    use bidslate::model::init::init_model;
    use bidslate::model::weights::WeightType;

    use super::*;

    fn model() -> (tempfile::TempDir, ModelConfig) {
        let config = ModelConfig { codebook_size: 8, ..ModelConfig::of_size(ModelSize::Tiny) };
        let dir = tempfile::tempdir().unwrap();
        init_model(dir.path(), &config, WeightType::F16, 1).unwrap();
        (dir, config)
    }

    #[test]
    fn a_sound_directory_fits() {
        let (dir, config) = model();
        let report = Report::of(dir.path());
        assert_eq!((report.fits, &report.faults[..]), (true, &[][..]));
        let weights = report.weights.as_ref().unwrap();
        assert_eq!(weights.bytes, 2 * weights.parameters);
        let embed = weights.components.iter().find(|component| component.component == "embed").unwrap();
        assert_eq!((embed.tensors, embed.parameters), (1, (config.vocabulary_size() * 64) as u64));
        assert!(report.catalog.is_none());
        assert!(report.text().ends_with("Everything fits.\n"));
        InspectArgs { dir: dir.path().into(), json: true }.run().unwrap();
    }

    #[test]
    fn every_fault_is_shown() {
        let (dir, mut config) = model();
        config.list_len += 1;
        config.codebook_size += 1;
        config.write(&dir.path().join(CONFIG_FILE)).unwrap();
        std::fs::write(dir.path().join("catalog.safetensors"), b"short").unwrap();
        let report = Report::of(dir.path());
        // The catalog, the tokenizer, position and payment for the list; embeddings, two heads and two
        // codebooks for the codes.
        assert_eq!(report.faults.len(), 1 + 1 + 2 + 5, "{:#?}", report.faults);
        let text = report.text();
        assert!(report.faults.iter().all(|fault| text.contains(fault)));
        assert!(!report.fits && text.ends_with("It does not fit.\n"));
        let error = InspectArgs { dir: dir.path().into(), json: false }.run().unwrap_err();
        assert!(error.to_string().ends_with("does not fit: 9 fault(s)"), "{error}");
    }

    #[test]
    fn an_empty_directory_does_not_fit() {
        let dir = tempfile::tempdir().unwrap();
        let report = Report::of(dir.path());
        assert_eq!(report.faults.len(), 2, "config.json and model.safetensors: {:#?}", report.faults);
        assert!(!report.fits);
    }
}
