//! Seeded random model directories and catalogs: small, and full of the corners of the mechanism.

use std::collections::BTreeMap;
use std::path::Path;

use half::{bf16, f16};
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus as Rng;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Map, Value, json};

/// What the generator knows of a model directory it wrote.
pub struct World {
    /// Storage type of the weights.
    pub dtype: Dtype,
    pub config: Value,
    pub items: Vec<Row>,
}

/// A catalog row without its embedding.
#[derive(Debug, Clone)]
pub struct Row {
    pub id: u64,
    pub is_ad: bool,
    pub codes: Vec<u16>,
    pub bid: u64,
    pub reserve: u64,
    pub advertiser: u64,
    pub active: bool,
    /// Id and codes of each creative.
    pub creatives: Vec<(u64, Vec<u16>)>,
}

/// A tensor on its way into a file.
struct Bytes {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

type Tensors = BTreeMap<String, Bytes>;

pub fn pick<T: Clone>(rng: &mut Rng, from: &[T]) -> T {
    from.choose(rng).unwrap().clone()
}

/// A standard normal number (Box and Muller).
fn normal(rng: &mut Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

pub fn size(config: &Value, key: &str) -> usize {
    config[key].as_u64().unwrap_or_else(|| panic!("{key}")) as usize
}

/// Writes a random model directory; weights in `dtype`, or in one drawn at random.
pub fn world(seed: u64, dtype: Option<Dtype>, dir: &Path) -> World {
    let mut rng = Rng::seed_from_u64(seed);
    let config = random_config(&mut rng);
    let drawn = pick(&mut rng, &[Dtype::F32, Dtype::F32, Dtype::BF16, Dtype::F16]);
    let dtype = dtype.unwrap_or(drawn);
    let items = random_items(&mut rng, &config);
    write_config(&config, dir);
    let mut tensors = Tensors::new();
    for (name, shape, draw) in layout(&config) {
        let numbers: Vec<f64> = (0..shape.iter().product()).map(|_| draw.number(&mut rng)).collect();
        tensors.insert(name, reals(dtype, &shape, &numbers));
    }
    if rng.random_bool(0.2) {
        write_shards(tensors, dir);
    } else {
        write_file(&tensors, &dir.join("model.safetensors"));
    }
    write_file(&random_catalog(&mut rng, &config, &items), &dir.join("catalog.safetensors"));
    World { dtype, config, items }
}

/// Writes a model directory whose weights are all zero but for the tensors named, each filled with one number:
/// small enough to work out by hand. Embeddings are zero, and the catalog has no optional columns.
pub fn flat_model(config: &Value, filled: &[(&str, f64)], items: &[Row], dir: &Path) {
    write_config(config, dir);
    let mut tensors = Tensors::new();
    for (name, shape, _) in layout(config) {
        let number = filled.iter().find(|(filled, _)| *filled == name).map_or(0.0, |(_, number)| *number);
        let numbers = vec![number; shape.iter().product()];
        tensors.insert(name, reals(Dtype::F32, &shape, &numbers));
    }
    write_file(&tensors, &dir.join("model.safetensors"));
    let embeddings = vec![0.0; items.len() * size(config, "item_embedding_size")];
    write_file(&plain_catalog(config, items, Dtype::F32, &embeddings), &dir.join("catalog.safetensors"));
}

fn write_config(config: &Value, dir: &Path) {
    std::fs::write(dir.join("config.json"), serde_json::to_vec_pretty(config).unwrap()).unwrap();
    std::fs::write(dir.join("tokenizer.json"), serde_json::to_vec(&tokenizer(config)).unwrap()).unwrap();
}

// ---- configuration and vocabulary ----

fn random_features(rng: &mut Rng, names: &[&str]) -> Value {
    let mut features = Map::new();
    for name in names {
        if rng.random_bool(0.5) {
            features.insert(name.to_string(), json!(rng.random_range(1..=5)));
        }
    }
    Value::Object(features)
}

fn random_config(rng: &mut Rng) -> Value {
    let (hidden, heads) = pick(rng, &[(32, 1), (32, 1), (64, 1), (64, 2), (128, 2), (128, 4), (128, 1)]);
    let reward_heads = rng.random_range(1..=2);
    let mut config = json!({
        "history_len": rng.random_range(1..=6),
        "list_len": pick(rng, &[1, 2, 3, 4, 4, 5, 5]),
        "poi_code_layers": rng.random_range(1..=3),
        "creative_code_layers": rng.random_range(1..=3),
        "codebook_size": rng.random_range(2..=12),
        "beam_width": pick(rng, &[1, 2, 3, 4, 5, 6, 7, 8, 8, 8]),
        "encoder_layers": rng.random_range(1..=2),
        "decoder_layers": rng.random_range(1..=2),
        "hidden_size": hidden,
        "num_heads": heads,
        "ffn_size": rng.random_range(16..=96),
        "item_embedding_size": rng.random_range(1..=9),
        "reward_hidden_size": reward_heads * rng.random_range(8 / reward_heads..=24 / reward_heads),
        "reward_layers": rng.random_range(1..=2),
        "reward_heads": reward_heads,
    });
    let optional = [
        ("format_version", json!(1)),
        ("context_features", random_features(rng, &["hour", "city"])),
        ("behavior_features", random_features(rng, &["action", "is_ad"])),
        ("bid_unit_micros", json!(pick(rng, &[1_000_000, 1_000_000, 1_000_000, 1, 1000, 999_983, 7]))),
        ("billable_unit_micros", json!(pick(rng, &[1, 1, 10_000, 7, 1000]))),
        ("rms_eps", json!(pick(rng, &[1e-6, 1e-3]))),
        ("rope_theta", json!(pick(rng, &[10_000.0, 50.0]))),
        ("alpha", json!(pick(rng, &[0.0, 0.5, 1.0, 1.2, 3.7]))),
        ("beta", json!(pick(rng, &[0.0, 0.01, 2.0, 50.0]))),
    ];
    for (key, value) in optional {
        if rng.random_bool(0.7) {
            config[key] = value;
        }
    }
    if rng.random_bool(0.3) {
        config["quantizer_size"] = json!(rng.random_range(2..=5));
        config["quantizer_hidden"] = pick(rng, &[json!([3]), json!([4, 3]), json!([])]);
        config["creative_embedding_size"] = json!(rng.random_range(1..=9));
    }
    config
}

fn tokenizer(config: &Value) -> Value {
    let specials = ["[PAD]", "[SEP]", "[BOI]", "[BOC]", "[CTX]", "[UNK]", "[R6]", "[R7]"];
    let mut tokens: Vec<String> = specials.iter().map(|token| token.to_string()).collect();
    for (letter, layers) in [("p", "poi_code_layers"), ("c", "creative_code_layers")] {
        for layer in 0..size(config, layers) {
            tokens.extend((0..size(config, "codebook_size")).map(|k| format!("<{letter}{layer}_{k}>")));
        }
    }
    let vocab: Map<String, Value> =
        tokens.into_iter().enumerate().map(|(id, token)| (token, json!(id))).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
    })
}

// ---- weights ----

/// How a tensor's numbers are drawn: normal with this deviation, or uniform in [0.5, 1.6] (norms).
#[derive(Debug, Clone, Copy)]
pub enum Draw {
    Normal(f64),
    Norm,
}

impl Draw {
    fn number(self, rng: &mut Rng) -> f64 {
        match self {
            Draw::Normal(deviation) => deviation * normal(rng),
            Draw::Norm => rng.random_range(0.5..1.6),
        }
    }
}

/// The tensors of a model: name, shape and how to draw it.
#[derive(Default)]
struct Layout(Vec<(String, Vec<usize>, Draw)>);

impl Layout {
    fn put(&mut self, name: impl Into<String>, shape: &[usize], draw: Draw) {
        self.0.push((name.into(), shape.to_vec(), draw));
    }

    /// A weight of shape [out, in] that maps unit variance to variance `gain`^2.
    fn linear(&mut self, name: &str, out: usize, inputs: usize, gain: f64) {
        self.put(format!("{name}.weight"), &[out, inputs], Draw::Normal(gain / (inputs as f64).sqrt()));
    }

    fn attention(&mut self, norm: &str, attn: &str, width: usize) {
        self.put(format!("{norm}.weight"), &[width], Draw::Norm);
        for (part, gain) in [("q", 1.3), ("k", 1.3), ("v", 1.0), ("o", 1.0)] {
            self.linear(&format!("{attn}.{part}_proj"), width, width, gain);
        }
    }

    fn feed_forward(&mut self, block: &str, width: usize, inner: usize) {
        self.put(format!("{block}.ffn_norm.weight"), &[width], Draw::Norm);
        self.linear(&format!("{block}.ffn.gate_proj"), inner, width, 1.2);
        self.linear(&format!("{block}.ffn.up_proj"), inner, width, 1.2);
        self.linear(&format!("{block}.ffn.down_proj"), width, inner, 1.2);
    }

    fn encoder_block(&mut self, block: &str, width: usize, inner: usize) {
        self.attention(&format!("{block}.attn_norm"), &format!("{block}.attn"), width);
        self.feed_forward(block, width, inner);
    }

    fn decoder_block(&mut self, block: &str, width: usize, inner: usize) {
        self.attention(&format!("{block}.self_attn_norm"), &format!("{block}.self_attn"), width);
        self.attention(&format!("{block}.cross_attn_norm"), &format!("{block}.cross_attn"), width);
        self.feed_forward(block, width, inner);
    }

    /// An MLP with biases; `gain` is that of the last layer.
    fn mlp(&mut self, name: &str, widths: &[usize], gain: f64) {
        for (i, pair) in widths.windows(2).enumerate() {
            let last = i + 2 == widths.len();
            self.linear(&format!("{name}.{i}"), pair[1], pair[0], if last { gain } else { 1.4 });
            self.put(format!("{name}.{i}.bias"), &[pair[1]], Draw::Normal(0.3));
        }
    }
}

/// Every tensor that a configuration implies.
pub fn layout(config: &Value) -> Vec<(String, Vec<usize>, Draw)> {
    let [d, inner, width] = ["hidden_size", "ffn_size", "codebook_size"].map(|key| size(config, key));
    let (poi, creative) = (size(config, "poi_code_layers"), size(config, "creative_code_layers"));
    let (d_r, slots) = (size(config, "reward_hidden_size"), size(config, "list_len"));
    let d_item = size(config, "item_embedding_size");
    let mut w = Layout::default();
    w.put("embed.weight", &[8 + (poi + creative) * width, d], Draw::Normal(0.8));
    for tables in ["context_features", "behavior_features"] {
        for (name, n) in config.get(tables).and_then(Value::as_object).into_iter().flatten() {
            w.put(format!("{tables}.{name}.weight"), &[n.as_u64().unwrap() as usize, d], Draw::Normal(0.8));
        }
    }
    for l in 0..size(config, "encoder_layers") {
        w.encoder_block(&format!("encoder.{l}"), d, inner);
    }
    for l in 0..size(config, "decoder_layers") {
        w.decoder_block(&format!("decoder.{l}"), d, inner);
    }
    for norm in
        ["encoder.norm", "decoder.norm", "creative.hidden_norm", "creative.embed_norm", "creative.norm"]
    {
        w.put(format!("{norm}.weight"), &[d], Draw::Norm);
    }
    w.linear("poi_head", poi * width, d, 2.0);
    w.linear("creative.proj", d, 2 * d, 1.0);
    w.decoder_block("creative.block", d, inner);
    w.linear("creative_head", creative * width, d, 2.0);
    w.linear("reward.input", d_r, 3 * d + d_item, 1.0);
    w.put("reward.input.bias", &[d_r], Draw::Normal(0.3));
    w.put("reward.position.weight", &[slots, d_r], Draw::Normal(0.5));
    for l in 0..size(config, "reward_layers") {
        w.encoder_block(&format!("reward.{l}"), d_r, 3 * d_r);
    }
    w.put("reward.norm.weight", &[d_r], Draw::Norm);
    for tower in ["pctr_poi", "pctr_creative", "pcvr"] {
        w.mlp(&format!("reward.towers.{tower}"), &[2 * d_r, 128, 32, 10, 1], 1.0);
    }
    w.mlp("payment.mlp", &[d_r + slots, 128, 32, 10, 1], 1.0);
    if let Some(d_q) = config.get("quantizer_size").map(|_| size(config, "quantizer_size")) {
        let hidden: Vec<usize> = config["quantizer_hidden"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_u64().unwrap() as usize)
            .collect();
        for (kind, layers, d_in) in
            [("poi", poi, d_item), ("creative", creative, size(config, "creative_embedding_size"))]
        {
            w.mlp(
                &format!("quantizer.{kind}.encoder"),
                &[vec![d_in], hidden.clone(), vec![d_q]].concat(),
                1.0,
            );
            w.put(format!("quantizer.{kind}.codebook"), &[layers, width, d_q], Draw::Normal(0.5));
        }
    }
    w.0
}

/// Splits the tensors over two files and writes their index.
fn write_shards(tensors: Tensors, dir: &Path) {
    let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let mut shards = [BTreeMap::new(), BTreeMap::new()];
    let mut map = Map::new();
    for (i, (name, tensor)) in tensors.into_iter().enumerate() {
        map.insert(name.clone(), json!(names[i % 2]));
        shards[i % 2].insert(name, tensor);
    }
    for (shard, name) in shards.iter().zip(names) {
        write_file(shard, &dir.join(name));
    }
    let total: usize = shards.iter().flat_map(BTreeMap::values).map(|tensor| tensor.data.len()).sum();
    let index = json!({"metadata": {"total_size": total}, "weight_map": map});
    std::fs::write(dir.join("model.safetensors.index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
}

fn reals(dtype: Dtype, shape: &[usize], numbers: &[f64]) -> Bytes {
    let data = match dtype {
        Dtype::F32 => numbers.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect(),
        Dtype::BF16 => numbers.iter().flat_map(|&x| bf16::from_f64(x).to_le_bytes()).collect(),
        Dtype::F16 => numbers.iter().flat_map(|&x| f16::from_f64(x).to_le_bytes()).collect(),
        other => panic!("{other:?}"),
    };
    Bytes { dtype, shape: shape.to_vec(), data }
}

fn write_file(tensors: &Tensors, path: &Path) {
    let views = tensors
        .iter()
        .map(|(name, t)| (name.as_str(), TensorView::new(t.dtype, t.shape.clone(), &t.data).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
}

// ---- catalog ----

/// Codes drawn from the first few of each layer, so that items share prefixes and whole codes.
pub fn random_codes(rng: &mut Rng, layers: usize, width: usize, few: usize) -> Vec<u16> {
    (0..layers).map(|_| rng.random_range(0..few.min(width)) as u16).collect()
}

fn random_bid(rng: &mut Rng, common: u64) -> u64 {
    match rng.random_range(0..10) {
        0 => 0,
        1..=3 => common,
        4 if rng.random_bool(0.05) => 1 << 43,
        _ => 10f64.powf(rng.random_range(4.0..7.0)) as u64,
    }
}

fn random_reserve(rng: &mut Rng, bid: u64) -> u64 {
    match rng.random_range(0..8) {
        0 if rng.random_bool(0.5) => (bid + rng.random_range(1..=100_000)).min(1 << 43),
        1 => bid,
        2 | 3 => rng.random_range(0..=bid),
        _ => 0,
    }
}

fn random_items(rng: &mut Rng, config: &Value) -> Vec<Row> {
    let [poi, creative, width] =
        ["poi_code_layers", "creative_code_layers", "codebook_size"].map(|key| size(config, key));
    let count = rng.random_range(6..=32);
    let few = pick(rng, &[1, 2, 2, 3, 3, 4, 5]);
    let common = rng.random_range(1..=3_000_000);
    let mut ids: Vec<u64> = (0..count).map(|i| i + count * rng.random_range(0..1u64 << 40)).collect();
    ids.shuffle(rng);
    let mut next_creative = rng.random_range(1..=1000);
    let mut items = Vec::new();
    for id in ids {
        let is_ad = rng.random_bool(0.65);
        let bid = if is_ad { random_bid(rng, common) } else { 0 };
        let mut creatives: Vec<(u64, Vec<u16>)> = Vec::new();
        for _ in 0..if rng.random_bool(0.07) { 0 } else { rng.random_range(1..=4) } {
            next_creative += rng.random_range(1..=9);
            let codes = match creatives.last() {
                Some((_, codes)) if rng.random_bool(0.2) => codes.clone(),
                _ => random_codes(rng, creative, width, 3),
            };
            creatives.push((next_creative, codes));
        }
        items.push(Row {
            id,
            is_ad,
            codes: random_codes(rng, poi, width, few),
            bid,
            reserve: if is_ad { random_reserve(rng, bid) } else { 0 },
            advertiser: rng.random_range(1..=4),
            active: rng.random_bool(0.9),
            creatives,
        });
    }
    items
}

/// The catalog's required columns.
fn plain_catalog(config: &Value, items: &[Row], dtype: Dtype, embeddings: &[f64]) -> Tensors {
    let (n, m) = (items.len(), items.iter().map(|item| item.creatives.len()).sum());
    let creatives: Vec<&(u64, Vec<u16>)> = items.iter().flat_map(|item| &item.creatives).collect();
    let mut offsets = vec![0];
    for item in items {
        offsets.push(offsets.last().unwrap() + item.creatives.len() as u64);
    }
    let codes = |layers: &str, width, rows: Vec<&Vec<u16>>| -> Bytes {
        let data = rows.into_iter().flatten().flat_map(|code| code.to_le_bytes()).collect();
        Bytes { dtype: Dtype::U16, shape: vec![width, size(config, layers)], data }
    };
    let poi_codes = items.iter().map(|item| &item.codes).collect();
    let creative_codes = creatives.iter().map(|creative| &creative.1).collect();
    Tensors::from([
        ("item.id".into(), u64s(items.iter().map(|item| item.id))),
        ("item.kind".into(), u8s(items.iter().map(|item| item.is_ad))),
        ("item.codes".into(), codes("poi_code_layers", n, poi_codes)),
        ("item.bid_micros".into(), u64s(items.iter().map(|item| item.bid))),
        ("item.reserve_micros".into(), u64s(items.iter().map(|item| item.reserve))),
        ("item.embedding".into(), reals(dtype, &[n, size(config, "item_embedding_size")], embeddings)),
        ("item.creative_offsets".into(), u64s(offsets.into_iter())),
        ("creative.id".into(), u64s(creatives.iter().map(|creative| creative.0))),
        ("creative.codes".into(), codes("creative_code_layers", m, creative_codes)),
    ])
}

fn u64s(numbers: impl Iterator<Item = u64>) -> Bytes {
    let data: Vec<u8> = numbers.flat_map(|n| n.to_le_bytes()).collect();
    Bytes { dtype: Dtype::U64, shape: vec![data.len() / 8], data }
}

fn u8s(flags: impl Iterator<Item = bool>) -> Bytes {
    let data: Vec<u8> = flags.map(|flag| flag as u8).collect();
    Bytes { dtype: Dtype::U8, shape: vec![data.len()], data }
}

/// A catalog with random embeddings and, sometimes, inactive items and advertisers.
fn random_catalog(rng: &mut Rng, config: &Value, items: &[Row]) -> Tensors {
    let count = items.len() * size(config, "item_embedding_size");
    let numbers: Vec<f64> = (0..count).map(|_| normal(rng)).collect();
    let dtype = pick(rng, &[Dtype::F32, Dtype::BF16, Dtype::F16]);
    let mut columns = plain_catalog(config, items, dtype, &numbers);
    if rng.random_bool(0.5) {
        columns.insert("item.active".into(), u8s(items.iter().map(|item| item.active)));
    }
    if rng.random_bool(0.5) {
        columns.insert("item.advertiser".into(), u64s(items.iter().map(|item| item.advertiser)));
        columns.insert("advertiser.id".into(), u64s([4, 2, 1, 3].into_iter()));
        let budgets: Vec<u64> = (0..4).map(|_| pick(rng, &[0, 1, 5_000_000, 1 << 40])).collect();
        columns.insert("advertiser.budget_micros".into(), u64s(budgets.into_iter()));
        let pacing: Vec<f64> = (0..4).map(|_| pick(rng, &[0.0, 0.25, 0.37, 1.0, 1.0])).collect();
        columns.insert("advertiser.pacing".into(), reals(Dtype::F32, &[4], &pacing));
    }
    columns
}
