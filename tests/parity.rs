//! The engine against the float64 reference.
#[path = "reference/checks.rs"]
mod checks;
mod reference;

#[test]
fn smoke() {
    for seed in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let world = reference::generate::world(seed, None, dir.path());
        let model = reference::Model::read(dir.path());
        for request in world.requests(seed, 5) {
            let start = std::time::Instant::now();
            match reference::allocate(&model, &request) {
                Ok(o) => println!(
                    "{seed} {:?} slots {} lists {} reward {} margins {:?} pctr {:?} rates {:?}",
                    start.elapsed(),
                    o.slots.len(),
                    o.lists.items.len(),
                    o.reward,
                    o.margins,
                    o.slots.iter().map(|s| s.pctr_poi).collect::<Vec<_>>(),
                    o.rates
                ),
                Err(e) => println!("{seed} {e:?}"),
            }
        }
    }
}
