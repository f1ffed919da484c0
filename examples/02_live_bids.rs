//! Bids change while requests run: each request sees one version of the catalog, from start to end, and names it.
//!
//!     cargo run --release --example 02_live_bids

use std::sync::atomic::{AtomicBool, Ordering};

use bidslate::catalog::Update;
use bidslate::engine::{Engine, Limits};
use bidslate::model::config::{ModelConfig, ModelSize};
use bidslate::model::init::init_model;
use bidslate::model::weights::WeightType;
use bidslate::money::Micros;
use bidslate::request::{Candidates, Request};
use bidslate::synthetic;

/// Runs the example; `tests/examples.rs` does too.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let config = ModelConfig { codebook_size: 64, ..ModelConfig::of_size(ModelSize::Tiny) };
    init_model(dir.path(), &config, WeightType::F32, 1)?;
    let world = synthetic::catalog(&config, 400, 1);
    world.write(&dir.path().join("catalog.safetensors"), &config)?;

    // Two requests at a time, sized for what the requests below need: memory is fixed from here on.
    let limits = Limits { batch: 2, history: 0, beams: 16, candidates: 1000, slots: 4 };
    let engine = Engine::builder().model(dir.path()).threads(2).limits(limits).build()?;
    let request = Request {
        list_len: Some(4),
        beam_width: Some(16),
        ..Request::new("now", Vec::new(), Candidates::All)
    };

    // `Engine` takes `&self` everywhere: threads share it by reference (or by `Arc`) without a lock of their own.
    let done = AtomicBool::new(false);
    let (applied, seen) = std::thread::scope(|scope| {
        let askers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut versions = Vec::new();
                    while versions.is_empty() || !done.load(Ordering::Relaxed) {
                        for response in engine.allocate(std::slice::from_ref(&request)) {
                            versions.push(response?.catalog_version);
                        }
                    }
                    Ok::<_, bidslate::error::RequestError>(versions)
                })
            })
            .collect();
        // A batch of updates is applied whole or not at all. No request waits for it, and none that runs sees it.
        let ads: Vec<u64> = world.ids.iter().copied().step_by(4).collect();
        let applied = (0..200).map(|round| {
            let bid = Micros(500_000 + 10_000 * round);
            engine.catalog().apply(&ads.iter().map(|&item| Update::Bid { item, bid }).collect::<Vec<_>>())
        });
        let applied = applied.collect::<Result<Vec<u64>, _>>();
        done.store(true, Ordering::Relaxed);
        let seen = askers.into_iter().map(|asker| asker.join().expect("a thread that does not panic"));
        (applied, seen.collect::<Result<Vec<_>, _>>())
    });
    let (applied, seen) = (applied?, seen?);

    println!("applied versions {} to {}", applied[0], applied[applied.len() - 1]);
    for (thread, versions) in seen.iter().enumerate() {
        println!("thread {thread} was answered from versions {versions:?}");
        assert!(versions.is_sorted(), "a later request never sees an earlier version");
    }

    // A request that starts now sees the last bids.
    let last = &engine.allocate(&[request])[0].clone()?;
    assert_eq!(last.catalog_version, 201);
    assert!(last.slots.iter().all(|slot| slot.bid_micros == Micros(500_000 + 10_000 * 199)));

    // A refused batch changes nothing, and says which update was at fault.
    let refused = engine.catalog().apply(&[
        Update::Bid { item: world.ids[0], bid: Micros(1) },
        Update::Bid { item: 5, bid: Micros(1) },
    ]);
    println!("{}", refused.expect_err("item 5 is not in the catalog"));
    assert_eq!(engine.catalog().snapshot().version(), 201);
    Ok(())
}
