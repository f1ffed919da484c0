//! A small random model, a made-up catalog and requests over it, for tests through the public API.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::path::Path;

use bidslate::catalog::Columns;
use bidslate::engine::{Engine, EngineBuilder, Limits};
use bidslate::model::config::{ModelConfig, ModelSize};
use bidslate::model::init::init_model;
use bidslate::model::weights::WeightType;
use bidslate::request::Request;
use bidslate::synthetic;
use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde_json::{Value, json};

/// A model directory with a catalog, and the requests made for it.
pub struct World {
    pub dir: tempfile::TempDir,
    pub config: ModelConfig,
    pub catalog: Columns,
}

/// Sizes small enough that a request takes a millisecond, large enough that beams compete.
pub fn config() -> ModelConfig {
    ModelConfig {
        history_len: 7,
        list_len: 5,
        codebook_size: 9,
        beam_width: 8,
        encoder_layers: 1,
        decoder_layers: 2,
        item_embedding_size: 5,
        quantizer_size: None,
        quantizer_hidden: Vec::new(),
        ..ModelConfig::of_size(ModelSize::Tiny)
    }
}

impl World {
    /// A world of `items` items.
    pub fn new(config: ModelConfig, items: usize, seed: u64) -> Self {
        Self::with_weights(config, items, seed, WeightType::F32)
    }

    /// A world of `items` items, with weights of this type.
    pub fn with_weights(config: ModelConfig, items: usize, seed: u64, weights: WeightType) -> Self {
        let dir = tempfile::tempdir().unwrap();
        init_model(dir.path(), &config, weights, seed).unwrap();
        let catalog = synthetic::catalog(&config, items, seed);
        catalog.write(&dir.path().join("catalog.safetensors"), &config).unwrap();
        Self { dir, config, catalog }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn builder(&self, threads: usize) -> EngineBuilder {
        let limits = Limits {
            batch: threads,
            history: self.config.history_len,
            beams: 32,
            candidates: 1000,
            slots: self.config.list_len,
        };
        Engine::builder().model(self.path()).threads(threads).limits(limits)
    }

    pub fn engine(&self, threads: usize) -> Engine {
        self.builder(threads).build().unwrap()
    }

    /// Requests with every option drawn at random, as JSON.
    pub fn json_requests(&self, count: usize, rng: &mut Xoshiro256PlusPlus) -> Vec<Value> {
        let mut requests = synthetic::requests(&self.catalog, &self.config, count, rng.random());
        for request in &mut requests {
            vary(request, &self.config, rng);
        }
        requests
    }

    pub fn requests(&self, count: usize, rng: &mut Xoshiro256PlusPlus) -> Vec<Request> {
        self.json_requests(count, rng).iter().map(parse).collect()
    }
}

pub fn parse(json: &Value) -> Request {
    Request::from_json(json.to_string().as_bytes()).unwrap()
}

/// Draws the optional fields of a request.
fn vary(request: &mut Value, config: &ModelConfig, rng: &mut Xoshiro256PlusPlus) {
    let pick = |rng: &mut Xoshiro256PlusPlus, of: &[&str]| json!(of[rng.random_range(0..of.len())]);
    let history = request["history"].as_array_mut().unwrap();
    history.truncate(rng.random_range(0..=history.len()));
    if rng.random_bool(0.2) {
        request["candidates"] = json!("all");
    }
    if rng.random_bool(0.5) {
        request["alpha"] = json!(rng.random_range(0.0..3.0));
        request["beta"] = json!([0.0, 0.5, 2.0, 100.0][rng.random_range(0..4)]);
    }
    request["payment"] = pick(rng, &["network", "gsp", "vcg", "first_price"]);
    request["bid_aggregate"] = pick(rng, &["max", "mean"]);
    request["bid_scope"] = pick(rng, &["prefix", "code"]);
    request["counterfactual"] = pick(rng, &["beams", "redecode"]);
    request["marginal"] = json!(rng.random_bool(0.5));
    request["list_len"] = json!(rng.random_range(1..=config.list_len));
    request["beam_width"] = json!(rng.random_range(1..=20));
    request["tie_seed"] = json!(rng.random::<u64>());
    request["squash"] = json!(rng.random_range(0.0..2.0));
    request["objective"] =
        json!({"revenue": rng.random_range(0.1..2.0), "ctr_poi": rng.random_range(0.0..2.0)});
}

/// A generator whose seed the test prints, so that a failure can be run again.
pub fn rng(test: &str) -> Xoshiro256PlusPlus {
    use rand::SeedableRng;
    let seed = std::env::var("BIDSLATE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(entropy);
    println!("{test}: BIDSLATE_SEED={seed}");
    Xoshiro256PlusPlus::seed_from_u64(seed)
}

fn entropy() -> u64 {
    use std::hash::BuildHasher;
    std::hash::RandomState::new().hash_one(0)
}
