//! The files of a world: `world.json`, every parameter and fitted level, and `truth.safetensors`, the fitted tables.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, anyhow, ensure};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::Parameters;
use super::fit::HOURS;
use crate::data::Data;
use crate::files;

/// What is fitted to all visits. Row-major.
#[derive(Debug, PartialEq)]
pub struct Truth {
    /// Lasting interest, `[users, items]`, mean 0 and variance 1 for each user.
    pub interest: Vec<f32>,
    /// Effect of creatives, `[users, creatives]`, mean 0 within each item and variance 1 over all.
    pub creative_effect: Vec<f32>,
    /// Affinity of hours and categories, `[24, categories]`, mean 0 and variance 1 over hours and items.
    pub hour: Vec<f32>,
    /// Quality of items, `[items]`, standard normal.
    pub quality: Vec<f32>,
}

/// Levels of clicks, in logits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fitted {
    /// Of clicks on POIs.
    pub bias_poi: f64,
    /// Of clicks on creatives.
    pub bias_creative: f64,
}

/// A world and the data that it is about.
#[derive(Debug)]
pub struct World<'a> {
    /// The import.
    pub data: &'a Data,
    /// What was chosen.
    pub parameters: Parameters,
    /// What sets the level of clicks.
    pub fitted: Fitted,
    /// What was fitted.
    pub truth: Truth,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WorldFile {
    parameters: Parameters,
    fitted: Fitted,
    categories: Vec<String>,
}

const WORLD: &str = "world.json";
const TRUTH: &str = "truth.safetensors";

impl<'a> World<'a> {
    /// Reads a world of `data`.
    ///
    /// # Errors
    /// Names the file and what does not fit: a world is of the users, items, creatives and categories it was made of.
    pub fn read(dir: &Path, data: &'a Data) -> anyhow::Result<Self> {
        let path = dir.join(WORLD);
        let text = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        let mut json = serde_json::Deserializer::from_str(&text);
        let file: WorldFile = serde_path_to_error::deserialize(&mut json)
            .map_err(|e| anyhow!("{}: `{}`: {}", path.display(), e.path(), e.inner()))?;
        let same = file.categories == data.catalog.categories;
        ensure!(same, "{}: `categories`: expected those of labels.jsonl", path.display());
        let path = dir.join(TRUTH);
        let bytes = std::fs::read(&path).with_context(|| format!("{}", path.display()))?;
        let truth = read_truth(&bytes, data).map_err(|e| anyhow!("{}: {e:#}", path.display()))?;
        Ok(Self { data, parameters: file.parameters, fitted: file.fitted, truth })
    }

    /// Writes the world into a directory, made if missing.
    ///
    /// # Errors
    /// Names the file.
    pub fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let file = WorldFile {
            parameters: self.parameters.clone(),
            fitted: self.fitted,
            categories: self.data.catalog.categories.clone(),
        };
        let text = serde_json::to_string_pretty(&file)?;
        files::write(&dir.join(WORLD), format!("{text}\n").as_bytes())?;
        files::write(&dir.join(TRUTH), &self.truth_bytes()?)
    }

    fn truth_bytes(&self) -> anyhow::Result<Vec<u8>> {
        let floats =
            [&self.truth.interest, &self.truth.creative_effect, &self.truth.hour, &self.truth.quality]
                .map(|values| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
        let ids =
            id_columns(self.data).map(|ids| ids.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
        let mut views = Vec::new();
        for ((name, shape), bytes) in float_columns(self.data).into_iter().zip(&floats) {
            views.push((name, TensorView::new(Dtype::F32, shape, bytes)?));
        }
        for (name, bytes) in ID_COLUMNS.into_iter().zip(&ids) {
            views.push((name, TensorView::new(Dtype::U64, vec![bytes.len() / 8], bytes)?));
        }
        Ok(safetensors::serialize(views, None::<HashMap<String, String>>)?)
    }
}

/// Names and shapes of the tables.
fn float_columns(data: &Data) -> [(&'static str, Vec<usize>); 4] {
    let (users, items) = (data.visits.users.len(), data.catalog.items.len());
    [
        ("interest", vec![users, items]),
        ("creative_effect", vec![users, data.catalog.creative_ids.len()]),
        ("hour", vec![HOURS, data.catalog.categories.len()]),
        ("quality", vec![items]),
    ]
}

/// The rows and columns of the tables, by external id.
const ID_COLUMNS: [&str; 3] = ["user.number", "item.id", "creative.id"];

fn id_columns(data: &Data) -> [Vec<u64>; 3] {
    let items = data.catalog.items.iter().map(|item| item.id).collect();
    [data.visits.users.clone(), items, data.catalog.creative_ids.clone()]
}

fn read_truth(bytes: &[u8], data: &Data) -> anyhow::Result<Truth> {
    let file = SafeTensors::deserialize(bytes)?;
    for (name, expected) in ID_COLUMNS.into_iter().zip(id_columns(data)) {
        let found = column(&file, name, Dtype::U64, &[expected.len()])?;
        let found = found.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap_or_default()));
        ensure!(found.eq(expected), "{name}: expected the numbers of the data, in their order");
    }
    let mut tables = Vec::new();
    for (name, shape) in float_columns(data) {
        let bytes = column(&file, name, Dtype::F32, &shape)?;
        let values: Vec<f32> =
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap_or_default())).collect();
        ensure!(values.iter().all(|x| x.is_finite()), "{name}: holds a value that is not finite");
        tables.push(values);
    }
    let [interest, creative_effect, hour, quality] =
        tables.try_into().map_err(|_| anyhow!("expected four tables"))?;
    Ok(Truth { interest, creative_effect, hour, quality })
}

fn column<'b>(file: &SafeTensors<'b>, name: &str, dtype: Dtype, shape: &[usize]) -> anyhow::Result<&'b [u8]> {
    let view = file.tensor(name)?;
    ensure!(
        view.dtype() == dtype && view.shape() == shape,
        "{name}: is {:?} {:?}, expected {dtype:?} {shape:?}",
        view.dtype(),
        view.shape()
    );
    Ok(view.data())
}
