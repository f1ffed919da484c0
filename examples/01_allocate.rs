//! A model, a catalog, one request: load, ask, read the answer.
//!
//!     cargo run --release --example 01_allocate
//!
//! The model is tiny and has random weights, so the list means nothing; loading and asking are those of a real one.

use bidslate::engine::Engine;
use bidslate::model::config::{ModelConfig, ModelSize};
use bidslate::model::init::init_model;
use bidslate::model::weights::WeightType;
use bidslate::request::{AdPolicy, Behavior, Candidates, Request};
use bidslate::synthetic;

/// Runs the example; `tests/examples.rs` does too.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A model directory. You would have a trained one.
    let dir = tempfile::tempdir()?;
    let config = ModelConfig { codebook_size: 64, ..ModelConfig::of_size(ModelSize::Tiny) };
    init_model(dir.path(), &config, WeightType::F32, 1)?;
    let world = synthetic::catalog(&config, 400, 1);
    world.write(&dir.path().join("catalog.safetensors"), &config)?;

    // Everything is read, checked and allocated here; nothing is loaded later. The engine is Send + Sync.
    let engine = Engine::builder().model(dir.path()).threads(2).build()?;
    println!("holding {:.1} MB", engine.memory().total() as f64 / 1e6);

    // Who looks: the first item of the catalog was seen with its first creative, on a Saturday at ten.
    let seen = Behavior {
        item: Some(world.ids[0]),
        creative: Some(world.creative_ids[0]),
        features: [("action".into(), 1)].into(),
        ..Behavior::default()
    };
    // What may be shown: all ads, and five organic items in this order, at most three ads and no two in a row.
    let organic: Vec<u64> = (0..400).filter(|row| row % 4 != 0).take(5).map(|row| world.ids[row]).collect();
    let request = Request {
        context: [("hour".into(), 10), ("weekday".into(), 5)].into(),
        organic,
        policy: AdPolicy { max_ads: Some(3), min_gap: 1, first_ad_slot: 0 },
        list_len: Some(6),
        ..Request::new("saturday", vec![seen], Candidates::All)
    };

    // One answer per request. An answer is an error where its request was refused; the others are not touched.
    for response in engine.allocate(&[request]) {
        let response = response?;
        println!("{}: {} slots, reward {:.4}", response.id, response.slots.len(), response.reward);
        for slot in &response.slots {
            println!(
                "  {:?} {} shows creative {}, bids {}, pays {} per click",
                slot.kind, slot.item, slot.creative, slot.bid_micros, slot.payment_micros
            );
            assert!(slot.payment_micros <= slot.bid_micros);
        }
        assert!(!response.slots.is_empty());
    }
    Ok(())
}
