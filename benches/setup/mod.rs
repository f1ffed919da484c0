//! An engine with random weights over a made-up catalog, and requests that keep all of its beams busy.

use bidslate::cpu::Precision;
use bidslate::engine::{Engine, Limits};
use bidslate::model::config::{ModelConfig, ModelSize};
use bidslate::model::init::init_model;
use bidslate::model::weights::WeightType;
use bidslate::request::{Candidates, Request};
use bidslate::synthetic;

/// Items of the catalog, one in four of them an ad.
const ITEMS: usize = 20_000;

/// What to build.
pub struct Setup {
    pub size: ModelSize,
    pub threads: usize,
    pub precision: Precision,
    /// Requests in flight, and requests made.
    pub batch: usize,
}

/// The size of that name.
pub fn size(name: &str) -> ModelSize {
    match name {
        "tiny" => ModelSize::Tiny,
        "small" => ModelSize::Small,
        "base" => ModelSize::Base,
        "large" => ModelSize::Large,
        _ => panic!("size {name:?} is none of tiny, small, base, large"),
    }
}

impl Setup {
    /// The engine, and `batch` requests of full histories over every ad, without a policy: all slots are contested.
    pub fn build(&self) -> (Engine, Vec<Request>) {
        let config = ModelConfig::of_size(self.size);
        let dir = tempfile::tempdir().expect("a temporary directory");
        init_model(dir.path(), &config, WeightType::F32, 1).expect("a model");
        let catalog = synthetic::catalog(&config, ITEMS, 1);
        catalog.write(&dir.path().join("catalog.safetensors"), &config).expect("a catalog");
        let limits = Limits {
            batch: self.batch.min(self.threads),
            history: config.history_len,
            beams: config.beam_width,
            candidates: 2000,
            slots: config.list_len,
        };
        let engine = Engine::builder()
            .model(dir.path())
            .threads(self.threads)
            .precision(self.precision)
            .limits(limits)
            .build()
            .expect("an engine");
        let request = |json: serde_json::Value| {
            let request = Request::from_json(json.to_string().as_bytes()).expect("a request");
            Request { candidates: Candidates::All, policy: Default::default(), ..request }
        };
        let requests =
            synthetic::requests(&catalog, &config, self.batch, 1).into_iter().map(request).collect();
        (engine, requests)
    }
}
