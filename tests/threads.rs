//! Every request is answered, whatever the number of threads and of requests that may run at a time.

use bidslate::engine::{Engine, Limits};
use bidslate::model::config::{ModelConfig, ModelSize};
use bidslate::model::init::init_model;
use bidslate::model::weights::WeightType;
use bidslate::request::{Candidates, Request};
use bidslate::synthetic;

#[test]
fn every_request_is_answered_in_order_and_alike() {
    let dir = tempfile::tempdir().unwrap();
    let config = ModelConfig { codebook_size: 16, ..ModelConfig::of_size(ModelSize::Tiny) };
    init_model(dir.path(), &config, WeightType::F32, 1).unwrap();
    let world = synthetic::catalog(&config, 40, 1);
    world.write(&dir.path().join("catalog.safetensors"), &config).unwrap();
    let requests: Vec<Request> = (0..5)
        .map(|id| Request {
            list_len: Some(2),
            beam_width: Some(4),
            tie_seed: id,
            ..Request::new(format!("request {id}").as_str(), Vec::new(), Candidates::All)
        })
        .collect();
    let answers = |threads, batch| {
        let limits = Limits { batch, history: 0, beams: 4, candidates: 0, slots: 2 };
        let engine = Engine::builder().model(dir.path()).threads(threads).limits(limits).build().unwrap();
        engine.allocate(&requests)
    };
    let expected = answers(1, 1);
    for (request, answer) in requests.iter().zip(&expected) {
        assert_eq!(answer.as_ref().unwrap().id, request.id);
    }
    assert_eq!(expected.len(), requests.len());
    for (threads, batch) in [(1, 2), (1, 5), (2, 1), (2, 3), (3, 2), (2, 8)] {
        assert_eq!(answers(threads, batch), expected, "{threads} threads, {batch} at a time");
    }
}
