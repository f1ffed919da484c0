//! Looking inside one allocation: intermediate tensors, what every payment rule would charge, and the time of each
//! stage.
//!
//!     cargo run --release --example 04_trace

use bidslate::engine::{Engine, Report};
use bidslate::model::config::{ModelConfig, ModelSize};
use bidslate::model::init::init_model;
use bidslate::model::weights::WeightType;
use bidslate::request::Request;
use bidslate::synthetic;

/// Runs the example; `tests/examples.rs` does too.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let config = ModelConfig {
        codebook_size: 64,
        history_len: 8,
        list_len: 4,
        beam_width: 8,
        ..ModelConfig::of_size(ModelSize::Tiny)
    };
    init_model(dir.path(), &config, WeightType::F32, 1)?;
    let world = synthetic::catalog(&config, 400, 1);
    world.write(&dir.path().join("catalog.safetensors"), &config)?;
    let engine = Engine::builder().model(dir.path()).build()?;

    // Requests may also come as JSON, one object each.
    let json = synthetic::requests(&world, &config, 1, 1).remove(0).to_string();
    let request = Request::from_json(json.as_bytes())?;

    let report = Report { trace: true, quotes: true, timings: true, ..Report::default() };
    let response = engine.allocate_with(&[request], report).remove(0)?;
    let (Some(trace), Some(quotes), Some(timings)) = (&response.trace, &response.quotes, &response.timings)
    else {
        return Err("the report holds what was asked for".into());
    };

    // Tensors are row-major and padded to the lists and slots of the model.
    let (lists, k) = (trace.log_prob.len(), config.list_len);
    println!("encoder states: [{}, {}]", trace.encoder.len() / config.hidden_size, config.hidden_size);
    for list in 0..lists {
        let mark = if list == response.beam { "wins" } else { "" };
        println!(
            "list {list}: items {:?}, ln z {:.3}, reward {:.4} {mark}",
            &trace.items[list * k..(list + 1) * k],
            trace.log_prob[list],
            trace.reward[list]
        );
    }
    assert_eq!(trace.encoder.len() / config.hidden_size, config.history_tokens(8));
    assert_eq!(trace.reward[response.beam], response.reward);
    assert!(trace.reward.iter().all(|&reward| reward <= response.reward));

    // Had another rule been asked for, the list would be the same and only the payments would differ.
    for (slot, quote) in response.slots.iter().zip(quotes) {
        let vcg = quote.vcg_micros.map_or("-".into(), |micros| micros.to_string());
        println!(
            "item {}: bid {}, network {}, gsp {}, vcg {vcg}",
            slot.item, slot.bid_micros, quote.network_micros, quote.gsp_micros
        );
        assert_eq!(quote.network_micros, slot.payment_micros);
    }
    println!("{timings:?}");
    Ok(())
}
