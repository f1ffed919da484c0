//! A model directory as plain float64 numbers: `config.json`, the weights and the catalog.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// A tensor of any rank, row-major.
#[derive(Debug, Clone)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
}

impl Tensor {
    /// Row `i` of a matrix (of the tensor seen as `[shape[0], everything else]`).
    pub fn row(&self, i: usize) -> &[f64] {
        let width: usize = self.shape[1..].iter().product();
        &self.data[i * width..(i + 1) * width]
    }
}

/// The keys of `config.json` that an allocation needs.
#[derive(Debug, Clone)]
pub struct Config {
    pub history_len: usize,
    pub list_len: usize,
    pub poi_code_layers: usize,
    pub creative_code_layers: usize,
    pub codebook_size: usize,
    pub beam_width: usize,
    pub encoder_layers: usize,
    pub decoder_layers: usize,
    pub num_heads: usize,
    pub reward_layers: usize,
    pub reward_heads: usize,
    pub context_features: HashMap<String, usize>,
    pub behavior_features: HashMap<String, usize>,
    pub bid_unit_micros: u64,
    pub billable_unit_micros: u64,
    pub rms_eps: f64,
    pub rope_theta: f64,
    pub alpha: f64,
    pub beta: f64,
}

/// One creative of an item.
#[derive(Debug, Clone)]
pub struct Creative {
    pub id: u64,
    pub codes: Vec<u16>,
}

/// One row of the catalog. `bid` is the bid that allocation and payment see: the catalog's, paced.
#[derive(Debug, Clone)]
pub struct Item {
    pub id: u64,
    pub is_ad: bool,
    pub codes: Vec<u16>,
    pub bid: u64,
    pub reserve: u64,
    pub embedding: Vec<f64>,
    pub creatives: Vec<Creative>,
    pub active: bool,
    pub budget_spent: bool,
}

/// Everything a model directory holds.
#[derive(Clone)]
pub struct Model {
    pub config: Config,
    pub weights: Arc<HashMap<String, Tensor>>,
    pub items: Vec<Item>,
}

impl Model {
    /// Reads a model directory that is known to be well formed; panics where it is not.
    pub fn read(dir: &Path) -> Self {
        let config = read_config(dir);
        let weights = Arc::new(read_weights(dir));
        let items = read_catalog(&dir.join("catalog.safetensors"));
        Self { config, weights, items }
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> &Tensor {
        self.weights.get(name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    /// The item of that external id.
    pub fn item(&self, id: u64) -> Option<&Item> {
        self.items.iter().find(|item| item.id == id)
    }
}

fn read_config(dir: &Path) -> Config {
    let json: Value = serde_json::from_slice(&std::fs::read(dir.join("config.json")).unwrap()).unwrap();
    let size = |key: &str| json[key].as_u64().unwrap_or_else(|| panic!("{key}")) as usize;
    let micros = |key: &str, default: u64| json.get(key).map_or(default, |v| v.as_u64().unwrap());
    let real = |key: &str, default: f64| json.get(key).map_or(default, |v| v.as_f64().unwrap());
    let features = |key: &str| -> HashMap<String, usize> {
        let Some(Value::Object(map)) = json.get(key) else { return HashMap::new() };
        map.iter().map(|(name, n)| (name.clone(), n.as_u64().unwrap() as usize)).collect()
    };
    Config {
        history_len: size("history_len"),
        list_len: size("list_len"),
        poi_code_layers: size("poi_code_layers"),
        creative_code_layers: size("creative_code_layers"),
        codebook_size: size("codebook_size"),
        beam_width: size("beam_width"),
        encoder_layers: size("encoder_layers"),
        decoder_layers: size("decoder_layers"),
        num_heads: size("num_heads"),
        reward_layers: size("reward_layers"),
        reward_heads: size("reward_heads"),
        context_features: features("context_features"),
        behavior_features: features("behavior_features"),
        bid_unit_micros: micros("bid_unit_micros", 1_000_000),
        billable_unit_micros: micros("billable_unit_micros", 1),
        rms_eps: real("rms_eps", 1e-6),
        rope_theta: real("rope_theta", 10_000.0),
        alpha: real("alpha", 1.2),
        beta: real("beta", 2.0),
    }
}

fn read_weights(dir: &Path) -> HashMap<String, Tensor> {
    let index = dir.join("model.safetensors.index.json");
    if !index.exists() {
        return read_tensors(&dir.join("model.safetensors"));
    }
    let json: Value = serde_json::from_slice(&std::fs::read(index).unwrap()).unwrap();
    let mut weights = HashMap::new();
    let mut shards: Vec<&str> =
        json["weight_map"].as_object().unwrap().values().map(|v| v.as_str().unwrap()).collect();
    shards.sort();
    shards.dedup();
    for shard in shards {
        weights.extend(read_tensors(&dir.join(shard)));
    }
    weights
}

fn read_tensors(path: &Path) -> HashMap<String, Tensor> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let names: Vec<String> = file.names().iter().map(|name| name.to_string()).collect();
    names.into_iter().map(|name| (name.clone(), reals(&file, &name))).collect()
}

/// A floating-point tensor of a file.
fn reals(file: &SafeTensors, name: &str) -> Tensor {
    let view = file.tensor(name).unwrap();
    let bytes = view.data();
    let data = match view.dtype() {
        Dtype::F32 => bytes.chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]) as f64).collect(),
        Dtype::BF16 => bytes.chunks(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f64()).collect(),
        Dtype::F16 => bytes.chunks(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f64()).collect(),
        other => panic!("{name} holds {other:?}"),
    };
    Tensor { shape: view.shape().to_vec(), data }
}

/// An unsigned integer column of a file, if it is there.
fn integers(file: &SafeTensors, name: &str) -> Option<Vec<u64>> {
    let view = file.tensor(name).ok()?;
    let bytes = view.data();
    Some(match view.dtype() {
        Dtype::U8 => bytes.iter().map(|&b| b as u64).collect(),
        Dtype::U16 => bytes.chunks(2).map(|b| u16::from_le_bytes([b[0], b[1]]) as u64).collect(),
        Dtype::U64 => bytes.chunks(8).map(|b| u64::from_le_bytes(b.try_into().unwrap())).collect(),
        other => panic!("{name} holds {other:?}"),
    })
}

/// An advertiser's part in its ads' bids.
struct Advertiser {
    id: u64,
    budget: u64,
    pacing: f64,
}

fn read_advertisers(file: &SafeTensors) -> Vec<Advertiser> {
    let Some(ids) = integers(file, "advertiser.id") else { return Vec::new() };
    let budgets = integers(file, "advertiser.budget_micros").unwrap();
    let pacings = reals(file, "advertiser.pacing").data;
    (0..ids.len()).map(|i| Advertiser { id: ids[i], budget: budgets[i], pacing: pacings[i] }).collect()
}

fn read_catalog(path: &Path) -> Vec<Item> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let column = |name: &str| integers(&file, name).unwrap_or_else(|| panic!("no column {name}"));
    let rows = |name: &str, i: usize| -> Vec<u16> {
        let width = file.tensor(name).unwrap().shape()[1];
        column(name)[i * width..(i + 1) * width].iter().map(|&code| code as u16).collect()
    };
    let (ids, kinds) = (column("item.id"), column("item.kind"));
    let (bids, reserves) = (column("item.bid_micros"), column("item.reserve_micros"));
    let embeddings = reals(&file, "item.embedding");
    let offsets = column("item.creative_offsets");
    let creative_ids = column("creative.id");
    let active = integers(&file, "item.active");
    let advertiser_of = integers(&file, "item.advertiser");
    let advertisers = read_advertisers(&file);
    let mut items = Vec::new();
    for i in 0..ids.len() {
        let creatives = (offsets[i] as usize..offsets[i + 1] as usize)
            .map(|c| Creative { id: creative_ids[c], codes: rows("creative.codes", c) })
            .collect();
        let advertiser = advertiser_of
            .as_ref()
            .and_then(|of| advertisers.iter().find(|a| a.id == of[i]))
            .filter(|_| kinds[i] == 1);
        items.push(Item {
            id: ids[i],
            is_ad: kinds[i] == 1,
            codes: rows("item.codes", i),
            // Reading: a paced bid is rounded down to a micro; an organic item has no bid, whatever its column says.
            bid: match (kinds[i], advertiser) {
                (1, Some(advertiser)) => (bids[i] as f64 * advertiser.pacing).floor() as u64,
                (1, None) => bids[i],
                _ => 0,
            },
            reserve: reserves[i],
            embedding: embeddings.row(i).to_vec(),
            creatives,
            active: active.as_ref().is_none_or(|active| active[i] != 0),
            // Reading: `budget_micros` is what is left, so a budget of 0 is spent.
            budget_spent: advertiser.is_some_and(|advertiser| advertiser.budget == 0),
        });
    }
    items
}
