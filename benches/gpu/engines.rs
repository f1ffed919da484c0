//! Engines with random weights, and what they are asked.

use std::sync::Arc;

use bidslate::cuda::launch::Stream;
use bidslate::engine::{Engine, Kernels, Limits};
use bidslate::model::config::ModelConfig;
use bidslate::model::init::init_model;
use bidslate::model::weights::WeightType;
use bidslate::request::{Candidates, Request};
use bidslate::synthetic;

use crate::device::Device;

/// An engine with `kernels` that works on up to `at_once` requests on each of `streams`, and `count` requests of full histories that
/// leave all slots contested.
pub fn build(
    device: &Device,
    config: &ModelConfig,
    streams: Vec<Arc<dyn Stream>>,
    kernels: Kernels,
    at_once: usize,
    count: usize,
) -> (Engine, Vec<Request>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    init_model(dir.path(), config, WeightType::BF16, 1).expect("a model");
    let catalog = synthetic::catalog(config, device.pick(20_000, 300), 1);
    catalog.write(&dir.path().join("catalog.safetensors"), config).expect("a catalog");
    let limits = Limits {
        batch: at_once,
        history: config.history_len,
        beams: config.beam_width,
        candidates: 2000,
        slots: config.list_len,
    };
    let builder = Engine::builder().model(dir.path()).streams(streams).gpu_kernels(kernels);
    let engine = builder.limits(limits).build().expect("an engine");
    let request = |json: serde_json::Value| {
        let request = Request::from_json(json.to_string().as_bytes()).expect("a request");
        Request { candidates: Candidates::All, policy: Default::default(), ..request }
    };
    let requests = synthetic::requests(&catalog, config, count, 1).into_iter().map(request).collect();
    (engine, requests)
}
