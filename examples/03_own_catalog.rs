//! A catalog from your own store, in memory, without a file.
//!
//!     cargo run --release --example 03_own_catalog

use bidslate::catalog::{Catalog, Columns, ItemKind, NewCreative, NewItem, Update};
use bidslate::engine::Engine;
use bidslate::model::config::{ModelConfig, ModelSize};
use bidslate::model::init::init_model;
use bidslate::model::weights::WeightType;
use bidslate::money::Micros;
use bidslate::request::{Candidates, Request};

/// Runs the example; `tests/examples.rs` does too.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let config = ModelConfig {
        codebook_size: 16,
        poi_code_layers: 2,
        creative_code_layers: 2,
        item_embedding_size: 4,
        list_len: 3,
        ..ModelConfig::of_size(ModelSize::Tiny)
    };
    init_model(dir.path(), &config, WeightType::F32, 1)?;

    // Three ads and an organic item, two codes each. The first two ads share both of theirs: bids decide.
    let columns = Columns {
        ids: vec![101, 102, 103, 900],
        kinds: vec![ItemKind::Ad, ItemKind::Ad, ItemKind::Ad, ItemKind::Organic],
        codes: vec![3, 7, 3, 7, 5, 0, 3, 1],
        bid_micros: vec![1_200_000, 1_500_000, 800_000, 0],
        reserve_micros: vec![100_000, 100_000, 900_000, 0],
        embeddings: vec![0.1; 4 * 4],
        // Item i owns creatives offsets[i]..offsets[i + 1].
        creative_offsets: vec![0, 2, 3, 4, 5],
        creative_ids: vec![1, 2, 1, 1, 1],
        creative_codes: vec![0, 0, 0, 1, 4, 4, 9, 2, 7, 7],
        // Optional columns (activity, advertisers, budgets, pacing) are left out.
        ..Columns::default()
    };
    let catalog = Catalog::from_columns(columns, &config)?;
    let engine = Engine::builder().model(dir.path()).catalog(catalog).threads(1).build()?;

    let request = Request {
        organic: vec![900],
        ..Request::new("in-memory", Vec::new(), Candidates::Items(vec![101, 102, 103]))
    };
    let response = engine.allocate(std::slice::from_ref(&request))[0].clone()?;
    for slot in &response.slots {
        println!("{:?} {} with creative {}", slot.kind, slot.item, slot.creative);
    }
    // 103 bids less than its reserve. It is rejected with the reason, and the request is answered.
    for rejected in &response.rejected {
        println!("{} is rejected: {}", rejected.item, rejected.reason);
    }
    assert_eq!(response.rejected.len(), 1);
    let place = |id| response.slots.iter().position(|slot| slot.item == id);
    assert!(place(102) < place(101), "of two ads with the same codes the higher bid comes first");

    // Items can be added while the engine serves.
    let version = engine.catalog().apply(&[Update::Insert(NewItem {
        id: 104,
        kind: ItemKind::Ad,
        codes: vec![5, 1],
        bid: Micros(2_000_000),
        reserve: Micros::ZERO,
        active: true,
        advertiser: None,
        embedding: vec![0.2; 4],
        creatives: vec![NewCreative { id: 1, codes: vec![1, 1] }],
    })])?;
    let with_new = Request { candidates: Candidates::All, ..request };
    let response = engine.allocate(&[with_new])[0].clone()?;
    println!("version {version}: {:?}", response.slots.iter().map(|slot| slot.item).collect::<Vec<_>>());
    assert_eq!(response.catalog_version, 2);
    Ok(())
}
