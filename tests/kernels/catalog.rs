//! The catalog in device memory, and whole allocations while it changes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bidslate::catalog::{Catalog, Columns, ItemKind, NewCreative, NewItem, Snapshot, Update};
use bidslate::cuda::catalog::{Catalogs, DeviceCatalog};
use bidslate::cuda::launch::{Kernel, Stream};
use bidslate::engine::{Engine, EngineBuilder, Limits};
use bidslate::model::config::ModelConfig;
use bidslate::model::weights::WeightType;
use bidslate::money::Micros;
use bidslate::request::{Candidates, Request};
use bidslate::synthetic;
use rand::{Rng, RngExt};

use crate::streams::streams;
use crate::watched::{Copied, Watched};
use crate::world::{self, World};

fn config() -> ModelConfig {
    ModelConfig { list_len: 3, codebook_size: 12, ..world::config() }
}

/// A new ad, whose creatives are in no order and partly alike.
fn insertion(rng: &mut impl Rng, config: &ModelConfig, id: u64, creatives: usize) -> Update {
    let mut codes = |layers: usize| -> Vec<u16> {
        (0..layers).map(|_| rng.random_range(0..config.codebook_size as u16)).collect()
    };
    let creative = |id: u64, codes| NewCreative { id, codes };
    Update::Insert(NewItem {
        id,
        kind: ItemKind::Ad,
        codes: codes(config.poi_code_layers),
        creatives: (0..creatives as u64).map(|id| creative(id, codes(config.creative_code_layers))).collect(),
        bid: Micros(rng.random_range(1_000_000..9_000_000)),
        reserve: Micros::ZERO,
        active: true,
        advertiser: None,
        embedding: (0..config.item_embedding_size).map(|_| rng.random_range(-1.0..1.0)).collect(),
    })
}

/// The arrays of a catalog, and what they are by definition.
fn check(catalog: &DeviceCatalog, snapshot: &Snapshot, config: &ModelConfig) {
    let (items, width) = (snapshot.len() as u32, config.item_embedding_size);
    let codes: Vec<u16> = (0..items).flat_map(|item| snapshot.codes(item)).copied().collect();
    assert_eq!(catalog.item_codes.to_vec().unwrap(), codes);
    let mut embeddings = vec![0.0; items as usize * width];
    (0..items).zip(embeddings.chunks_mut(width)).for_each(|(item, out)| snapshot.embedding(item, out));
    assert_eq!(catalog.embeddings.to_vec().unwrap(), embeddings);
    let offsets = catalog.creative_offsets.to_vec().unwrap();
    assert_eq!(offsets[items as usize] as usize, snapshot.creatives_len());
    let creative_codes = catalog.creative_codes.to_vec().unwrap();
    for item in 0..items {
        let mut creatives: Vec<u32> = snapshot.creatives(item).collect();
        creatives.sort_by_key(|&creative| (snapshot.creative_codes(creative), creative));
        let places = offsets[item as usize]..offsets[item as usize + 1];
        assert_eq!(places.len(), creatives.len());
        for (place, creative) in places.zip(creatives) {
            assert_eq!((catalog.row(place), catalog.place(item, creative)), (creative, place));
            let codes = &creative_codes[place as usize * config.creative_code_layers..];
            assert!(codes.starts_with(snapshot.creative_codes(creative)), "place {place}");
        }
    }
    let words = codes.len() * 2 + embeddings.len() * 4 + offsets.len() * 4 + creative_codes.len() * 2;
    assert_eq!(catalog.bytes(), words);
}

#[test]
fn creatives_lie_in_the_order_of_their_codes() {
    let mut rng = world::rng("creatives_lie_in_the_order_of_their_codes");
    let config = config();
    for stream in streams() {
        for items in [1, 40] {
            let catalog = Catalog::from_columns(synthetic::catalog(&config, items, 3), &config).unwrap();
            catalog
                .apply(&[0, 1, 3000].map(|n| insertion(&mut rng, &config, 1 << 40 | n, n as usize)))
                .unwrap();
            let snapshot = catalog.snapshot();
            check(&DeviceCatalog::upload(&stream, &config, &snapshot).unwrap(), &snapshot, &config);
        }
        let nothing = Catalog::from_columns(synthetic::catalog(&config, 0, 3), &config).unwrap().snapshot();
        check(&DeviceCatalog::upload(&stream, &config, &nothing).unwrap(), &nothing, &config);
    }
}

#[test]
fn one_catalog_for_each_state_and_no_longer_than_it_is_used() {
    let mut rng = world::rng("one_catalog_for_each_state_and_no_longer_than_it_is_used");
    let config = config();
    let stream = streams().remove(0);
    let columns = synthetic::catalog(&config, 20, 3);
    let catalog = Catalog::from_columns(columns.clone(), &config).unwrap();
    let catalogs = Catalogs::default();
    let hold = || catalogs.hold(&stream, &config, &catalog.snapshot()).unwrap();
    let (old, first) = (catalog.snapshot(), hold());
    catalog.apply(&[Update::Bid { item: columns.ids[0], bid: Micros(5) }]).unwrap();
    assert!(Arc::ptr_eq(&first, &hold()), "a bid is not among the items");
    catalog.apply(&[insertion(&mut rng, &config, 1 << 40, 2)]).unwrap();
    let second = hold();
    check(&second, &catalog.snapshot(), &config);
    check(&first, &old, &config);
    assert_ne!(first.number(), second.number());
    // As long as somebody uses the old one.
    assert!(Arc::ptr_eq(&first, &catalogs.hold(&stream, &config, &old).unwrap()));
    let (first, second) = [first, second].map(|held| Arc::downgrade(&held)).into();
    hold();
    assert_eq!((first.strong_count(), second.strong_count()), (0, 1));
    // A batch that is late does not drive out what later ones need.
    check(&catalogs.hold(&stream, &config, &old).unwrap(), &old, &config);
    assert_eq!(second.strong_count(), 1);
}

fn builder(world: &World, streams: Vec<Arc<dyn Stream>>, catalog: Catalog) -> EngineBuilder {
    let limits = Limits { batch: 5, history: 7, beams: 20, candidates: 100, slots: world.config.list_len };
    Engine::builder().model(world.path()).catalog(catalog).streams(streams).limits(limits)
}

fn engine(world: &World, streams: Vec<Arc<dyn Stream>>, catalog: Catalog) -> Engine {
    builder(world, streams, catalog).build().unwrap()
}

/// The catalog of `columns` after `updates`, one call of `apply` for each.
fn updated(columns: &Columns, config: &ModelConfig, updates: &[Vec<Update>]) -> Catalog {
    let catalog = Catalog::from_columns(columns.clone(), config).unwrap();
    updates.iter().for_each(|updates| assert!(catalog.apply(updates).is_ok()));
    catalog
}

/// Items, creatives and bids come; an engine that saw the catalog grow answers as one that was built with it.
#[test]
fn insertions_between_batches_are_seen() {
    let mut rng = world::rng("insertions_between_batches_are_seen");
    let world = World::with_weights(config(), 25, rng.random(), WeightType::BF16);
    let grown = engine(&world, vec![streams().remove(0)], updated(&world.catalog, &world.config, &[]));
    let mut all = Vec::new();
    for round in 0..3 {
        let inserted = 1 << 40 | round;
        let creative = NewCreative { id: 1 << 41, codes: vec![0; world.config.creative_code_layers] };
        let updates = vec![
            insertion(&mut rng, &world.config, inserted, [1, 3000, 7][round as usize]),
            Update::InsertCreative { item: world.catalog.ids[round as usize], creative },
            Update::Bid { item: world.catalog.ids[5], bid: Micros(rng.random_range(1..9_000_000)) },
        ];
        grown.catalog().apply(&updates).unwrap();
        all.push(updates);
        let mut requests = world.requests(4, &mut rng);
        requests[0].candidates = Candidates::All;
        requests[1].candidates = Candidates::Items(vec![inserted]);
        let built = engine(&world, vec![streams().remove(0)], updated(&world.catalog, &world.config, &all));
        assert_eq!(grown.allocate(&requests), built.allocate(&requests));
        let plain = Request::new("new", Vec::new(), Candidates::Items(vec![inserted]));
        let shown = grown.allocate(&[plain]).remove(0).unwrap();
        assert!(shown.slots.iter().any(|slot| slot.item == inserted), "{shown:?}");
    }
}

/// Items are inserted, and a request of another caller is answered, after a batch began and before its search.
#[test]
fn a_batch_that_runs_sees_the_catalog_that_it_began_with() {
    let mut rng = world::rng("a_batch_that_runs_sees_the_catalog_that_it_began_with");
    let world = World::with_weights(config(), 25, rng.random(), WeightType::BF16);
    let mut requests = world.requests(9, &mut rng);
    requests.iter_mut().step_by(2).for_each(|request| request.candidates = Candidates::All);
    let inserted = 1 << 40;
    let mut named = Request::new("new", Vec::new(), Candidates::Items(vec![inserted]));
    named.list_len = Some(1);
    let updates = vec![
        insertion(&mut rng, &world.config, inserted, 40),
        Update::Bid { item: world.catalog.ids[0], bid: Micros(8_000_000) },
    ];

    let engine_in_hook: Arc<OnceLock<Weak<Engine>>> = Arc::default();
    let answered = Arc::new(AtomicBool::new(false));
    let hook = {
        let (at_hand, answered) = (engine_in_hook.clone(), answered.clone());
        let (updates, named) = (updates.clone(), named.clone());
        move |kernel: &Kernel| {
            if kernel.name != "open_search" || answered.swap(true, Ordering::Relaxed) {
                return;
            }
            let engine = at_hand.get().and_then(Weak::upgrade).unwrap();
            engine.catalog().apply(&updates).unwrap();
            // Another workspace is free: this batch has one of the two.
            let other = std::thread::spawn({
                let named = named.clone();
                move || engine.allocate(&[named])
            });
            assert!(other.join().unwrap()[0].as_ref().unwrap().slots.iter().any(|s| s.item == inserted));
        }
    };
    let watched = || -> Arc<dyn Stream> { Watched::new(streams().remove(0), Box::new(hook.clone())) };
    let both = vec![watched(), watched()];
    let two = Arc::new(engine(&world, both, updated(&world.catalog, &world.config, &[])));
    engine_in_hook.set(Arc::downgrade(&two)).unwrap();
    let before = engine(&world, vec![streams().remove(0)], updated(&world.catalog, &world.config, &[]));
    let after = engine(&world, vec![streams().remove(0)], updated(&world.catalog, &world.config, &[updates]));
    assert_eq!(two.allocate(&requests[..4]), before.allocate(&requests[..4]));
    assert!(answered.load(Ordering::Relaxed), "nothing came between");
    assert_eq!(two.allocate(&requests), after.allocate(&requests));
}

/// Once the requests are uploaded the host asks for nothing until it reads what was found, all at once.
#[test]
fn the_host_has_no_part_in_a_batch() {
    let mut rng = world::rng("the_host_has_no_part_in_a_batch");
    let world = World::with_weights(config(), 25, rng.random(), WeightType::BF16);
    let stream = Watched::new(streams().remove(0), Box::new(|_| ()));
    let engine = engine(&world, vec![stream.clone()], updated(&world.catalog, &world.config, &[]));
    let of_kind = |kind, count| -> Vec<u64> {
        let items = world.catalog.ids.iter().zip(&world.catalog.kinds);
        items.filter(|(_, k)| **k == kind).map(|(id, _)| *id).take(count).collect()
    };
    let request = |id: &str, organic, ads| Request {
        organic: of_kind(ItemKind::Organic, organic),
        ..Request::new(id, Vec::new(), Candidates::Items(of_kind(ItemKind::Ad, ads)))
    };
    // One that may show nothing, one that is refused, a short list, no ads.
    let mut requests =
        [request("a", 2, 9), request("b", 0, 0), request("c", 1, 3), request("d", 0, 5), request("e", 2, 0)];
    requests[2].organic.push(u64::MAX);
    requests[3].list_len = Some(2);
    for _ in 0..2 {
        stream.copies();
        let answers = engine.allocate(&requests);
        let copies = stream.copies();
        let downloads = copies.iter().filter(|&&copied| copied == Copied::Down).count();
        assert!((downloads, copies.last()) == (1, Some(&Copied::Down)), "{copies:?}");
        assert!(answers[2].is_err() && answers[1].as_ref().unwrap().slots.is_empty());
        assert!([0, 3, 4].iter().all(|&i| !answers[i].as_ref().unwrap().slots.is_empty()), "{answers:?}");
    }
}

/// Model, catalog and workspaces have to fit when the engine is built; what does not is refused with the figures.
#[test]
fn memory_that_does_not_suffice_is_refused_when_the_engine_is_built() {
    let mut rng = world::rng("memory_that_does_not_suffice_is_refused_when_the_engine_is_built");
    let world = World::with_weights(config(), 25, rng.random(), WeightType::BF16);
    let build = |most: usize| {
        let stream = Watched::with_memory(streams().remove(0), most);
        let catalog = updated(&world.catalog, &world.config, &[]);
        let built = builder(&world, vec![stream.clone()], catalog).build();
        (built, stream)
    };
    let (engine, stream) = build(usize::MAX);
    let (memory, needed) = (engine.as_ref().unwrap().memory(), stream.in_use());
    // What is announced is what is held, but for padding and small tables.
    let announced = memory.weights + memory.device_catalog + memory.workspaces;
    assert!(announced <= needed && needed - announced < needed / 10, "{announced} of {needed}");
    drop(engine);
    assert_eq!(stream.in_use(), 0, "an engine gives its memory back");
    assert!(build(needed).0.is_ok());
    for most in [0, memory.weights - 1, memory.weights + memory.device_catalog - 1, needed - 1] {
        let (built, stream) = build(most);
        let error = built.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("bytes of device memory are needed"), "{error}");
        assert!(error.contains(&format!("of {most} are free")), "{error}");
        assert_eq!(stream.in_use(), 0, "what was loaded before is given back");
    }
}
