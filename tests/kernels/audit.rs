//! The regret audit on the GPU path: its sweeps are what the same device answers for other bids.

use std::sync::Arc;

use bidslate::auction::regret::GammaGrid;
use bidslate::catalog::Update;
use bidslate::cuda::launch::Stream;
use bidslate::engine::{AuditOptions, Engine, Limits};
use bidslate::model::config::ModelConfig;
use bidslate::model::weights::WeightType;
use bidslate::money::Micros;
use bidslate::request::{Audit, PaymentRule, Request};
use bidslate::response::Response;
use rand::RngExt;

use crate::streams::streams;
use crate::world::{self, World};

const BATCH: usize = 3;

fn world(rng: &mut rand_xoshiro::Xoshiro256PlusPlus) -> World {
    let config = ModelConfig { list_len: 3, poi_code_layers: 2, codebook_size: 11, ..world::config() };
    World::with_weights(config, 60, rng.random(), WeightType::BF16)
}

fn engine(world: &World, stream: &Arc<dyn Stream>) -> Engine {
    let limits = Limits {
        batch: BATCH,
        history: world.config.history_len,
        beams: 20,
        candidates: 100,
        slots: world.config.list_len,
    };
    let audit =
        AuditOptions { gammas: GammaGrid::new(vec![0.4, 1.0, 6.0]).unwrap(), ..AuditOptions::default() };
    let builder = Engine::builder().model(world.path()).streams(vec![stream.clone()]);
    builder.limits(limits).audit(audit).build().unwrap()
}

fn answer(engine: &Engine, request: &Request) -> Response {
    engine.allocate(std::slice::from_ref(request)).remove(0).unwrap()
}

/// Gamma 1 is the response; every other gamma of `redecode` is the response under the other bid.
#[test]
fn sweeps_are_the_devices_own_answers() {
    let mut rng = world::rng("sweeps_are_the_devices_own_answers");
    let mut points = 0;
    for _ in 0..2 {
        let world = world(&mut rng);
        let engine = engine(&world, &streams()[0]);
        for (index, request) in world.requests(4, &mut rng).into_iter().enumerate() {
            for audit in [Audit::Fixed, Audit::Reselect, Audit::Redecode] {
                let payment = [PaymentRule::Network, PaymentRule::Vcg][index % 2];
                let request = Request { audit, payment, ..request.clone() };
                let response = answer(&engine, &request);
                for ad in response.audit.unwrap().ads {
                    let (slot, truth) = (&response.slots[ad.slot], &ad.sweep[1]);
                    assert_eq!((truth.slot, truth.payment_micros), (Some(ad.slot), slot.payment_micros));
                    assert_eq!(truth.clicks, slot.pctr_poi);
                    assert!(truth.z.is_none_or(|z| z == slot.z), "{truth:?} {slot:?}");
                    let point = &ad.sweep[2 * rng.random_range(0..2)];
                    if audit == Audit::Redecode {
                        let update =
                            |bid: Micros| engine.catalog().apply(&[Update::Bid { item: ad.item, bid }]);
                        update(point.bid_micros).unwrap();
                        let other = answer(&engine, &Request { audit: Audit::None, ..request.clone() });
                        update(ad.value_micros).unwrap();
                        let there = other.slots.iter().position(|slot| slot.item == ad.item);
                        assert_eq!(point.slot, there);
                        let found =
                            there.map(|slot| (other.slots[slot].payment_micros, other.slots[slot].pctr_poi));
                        assert_eq!((point.payment_micros, point.clicks), found.unwrap_or_default());
                        points += 1;
                    }
                }
            }
        }
    }
    assert!(points > 3, "only {points} points were compared");
}

#[test]
fn an_audit_does_not_depend_on_its_batch() {
    let mut rng = world::rng("an_audit_does_not_depend_on_its_batch");
    let world = world(&mut rng);
    let engine = engine(&world, &streams()[0]);
    let mut requests = world.requests(2 * BATCH, &mut rng);
    let tiers = [Audit::Redecode, Audit::Fixed, Audit::None, Audit::Reselect];
    requests.iter_mut().zip(tiers.iter().cycle()).for_each(|(request, &audit)| request.audit = audit);
    for (request, together) in requests.iter().zip(engine.allocate(&requests)) {
        assert_eq!(engine.allocate(std::slice::from_ref(request)).remove(0), together);
    }
}
