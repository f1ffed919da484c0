//! The comparison sees what it should, and the generator reaches what it should.

use std::collections::BTreeMap;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use crate::checks::{flat, plain, row, run, three};
use crate::reference::allocate::Slot;
use crate::reference::audit::{AuditedAd, Point};
use crate::reference::compare::{F32, Verdict, compare, compare_trace};
use crate::reference::generate::world;
use crate::reference::request::Payment;
use crate::reference::{Model, Outcome, allocate};

/// The response that an engine in perfect agreement gives.
fn response(outcome: &Outcome) -> Value {
    let slots: Vec<Value> = outcome
        .slots
        .iter()
        .map(|slot| {
            json!({"item": slot.item, "kind": slot.kind, "creative": slot.creative, "bid_micros": slot.bid_micros,
                "payment_micros": slot.payment_micros, "rate": slot.rate, "pctr_poi": slot.pctr_poi,
                "pctr_creative": slot.pctr_creative, "pcvr": slot.pcvr, "z": slot.z, "marginal": slot.marginal})
        })
        .collect();
    let rejected: Vec<Value> =
        outcome.rejected.iter().map(|(id, why)| json!({"item": id, "reason": why})).collect();
    json!({"id": "x", "slots": slots, "reward": outcome.reward, "log_prob": outcome.log_prob, "beam": outcome.beam,
        "lists": outcome.lists.items.len(), "rejected": rejected, "audit": {"ads": audited(outcome)}})
}

/// The `ads` of its audit.
fn audited(outcome: &Outcome) -> Vec<Value> {
    let ad = |ad: &AuditedAd| {
        let utility =
            |point: &Point| point.shown.as_ref().map_or(0.0, |shown| shown.utility(ad.value_micros));
        let best = ad.points.iter().map(utility).fold(0.0, f64::max);
        let sweep: Vec<Value> = ad
            .points
            .iter()
            .map(|point| {
                let (slot, paid, clicks, z) = point.shown.as_ref().map_or((None, 0, 0.0, None), |shown| {
                    (Some(shown.slot), shown.payment_micros, shown.clicks, Some(shown.z))
                });
                json!({"bid_micros": point.bid_micros, "slot": slot, "payment_micros": paid, "clicks": clicks,
                    "cost_micros": paid as f64 * clicks, "utility_micros": utility(point), "z": z})
            })
            .collect();
        json!({"slot": ad.slot, "item": ad.item, "value_micros": ad.value_micros, "utility_micros": ad.utility,
            "regret_micros": (best - ad.utility).max(0.0), "sweep": sweep})
    };
    outcome.audit.iter().map(ad).collect()
}

#[test]
fn a_comparison_sees_every_field_of_an_audit() {
    let mut items = plain();
    items[0].reserve = 700_000;
    let expected = run(&flat(1, &items), json!({"audit": "reselect", "payment": "gsp"}));
    let good = response(expected.as_ref().unwrap());
    assert_eq!(compare(&good, &expected, F32), Verdict::Same);
    // The first ad is below its reserve at the first gamma.
    for (pointer, value) in [
        ("/audit", Value::Null),
        ("/audit/ads/0/slot", json!(1)),
        ("/audit/ads/0/item", json!(2)),
        ("/audit/ads/0/value_micros", json!(3_000_001)),
        ("/audit/ads/0/utility_micros", json!(400_000)),
        ("/audit/ads/0/regret_micros", json!(9_000)),
        ("/audit/ads/0/sweep", json!([])),
        ("/audit/ads/0/sweep/0/slot", json!(0)),
        ("/audit/ads/0/sweep/0/utility_micros", json!(1)),
        ("/audit/ads/0/sweep/1/slot", Value::Null),
        ("/audit/ads/0/sweep/1/bid_micros", json!(1_200_001)),
        ("/audit/ads/0/sweep/3/payment_micros", json!(1_100_000)),
        ("/audit/ads/0/sweep/3/clicks", json!(0.26)),
        ("/audit/ads/0/sweep/3/cost_micros", json!(0)),
        ("/audit/ads/0/sweep/3/utility_micros", json!(0)),
        ("/audit/ads/0/sweep/3/z", json!(0.1)),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        let verdict = compare(&bad, &expected, F32);
        assert!(matches!(verdict, Verdict::Different(_)), "{pointer} went unseen: {verdict:?}");
    }
}

#[test]
fn a_comparison_sees_every_field() {
    let mut items = plain();
    items.push(row(4, true, &[0], 0));
    items[3].reserve = 1;
    let expected = run(&flat(1, &items), json!({"marginal": true}));
    let outcome = expected.as_ref().unwrap();
    let good = response(outcome);
    assert_eq!(compare(&good, &expected, F32), Verdict::Same);
    for (pointer, value) in [
        ("/slots/0/item", json!(2)),
        ("/slots/0/kind", json!("organic")),
        ("/slots/1/creative", json!(202)),
        ("/slots/0/bid_micros", json!(3_000_001)),
        ("/slots/0/payment_micros", json!(2_410_000)),
        ("/slots/0/payment_micros", json!(3_000_001)),
        ("/slots/0/payment_micros", json!(2.4e6)),
        ("/slots/0/rate", json!(0.81)),
        ("/slots/0/pctr_poi", json!(0.251)),
        ("/slots/0/pctr_creative", json!(0.501)),
        ("/slots/0/pcvr", Value::Null),
        ("/slots/0/z", json!(0.58)),
        ("/slots/0/marginal", json!(0.1)),
        ("/slots/1/marginal", json!(0.2)),
        ("/reward", json!(1.01)),
        ("/log_prob", json!(-0.9)),
        ("/beam", json!(1)),
        ("/lists", json!(3)),
        ("/rejected", json!([])),
        ("/rejected/0/item", json!(5)),
        ("/slots", json!([])),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        let verdict = compare(&bad, &expected, F32);
        // The two best lists tie here by reward, which is no edge: their scores are far apart.
        assert!(matches!(verdict, Verdict::Different(_)), "{pointer} went unseen: {verdict:?}");
    }
    let refused = run(&flat(1, &items), json!({"alpha": -1}));
    assert!(matches!(compare(&good, &refused, F32), Verdict::Different(_)));
    let error = |field: &str| json!({"id": "x", "error": {"kind": "invalid", "field": field, "message": ""}});
    assert_eq!(compare(&error("alpha"), &refused, F32), Verdict::Same);
    assert!(matches!(compare(&error("beta"), &refused, F32), Verdict::Different(_)));
    assert!(matches!(compare(&error("alpha"), &expected, F32), Verdict::Different(_)));
}

#[test]
fn a_choice_on_an_edge_is_excused() {
    let mut expected = run(&flat(1, &plain()), json!({}));
    let mut other = response(expected.as_ref().unwrap());
    other["slots"][0]["item"] = json!(2);
    assert!(matches!(compare(&other, &expected, F32), Verdict::Different(_)));
    expected.as_mut().unwrap().margins.creative = 1e-5;
    assert_eq!(compare(&other, &expected, F32), Verdict::Excused);
}

/// A trace in perfect agreement, with rows up to `slots` and lists up to `beams`.
fn trace(outcome: &Outcome, slots: usize, beams: usize) -> Vec<u8> {
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut reals = |name: &str, rows: &[Vec<f64>], height: usize| {
        let width = rows.first().map_or(1, Vec::len);
        let mut numbers = rows.concat();
        numbers.resize(height * width, 0.0);
        let bytes = numbers.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect();
        tensors.push((format!("x/{name}"), Dtype::F32, vec![height, width], bytes));
    };
    let column = |numbers: &[f64]| -> Vec<Vec<f64>> { numbers.iter().map(|&x| vec![x]).collect() };
    reals("encoder", &outcome.encoder, outcome.encoder.len());
    reals("winner/poi_logits", &outcome.poi_logits, slots);
    reals("winner/creative_logits", &outcome.creative_logits, slots);
    reals("winner/reward_features", &outcome.reward_features, slots);
    reals("winner/rate", &column(&outcome.rates), slots);
    reals("lists/log_prob", &column(&outcome.lists.log_prob), beams);
    reals("lists/reward", &column(&outcome.lists.reward), beams);
    for (name, lists) in [("items", &outcome.lists.items), ("creatives", &outcome.lists.creatives)] {
        let id = |l: usize, i: usize| lists.get(l).and_then(|list| list.get(i)).map_or(-1, |&id| id as i64);
        let bytes = (0..beams).flat_map(|l| (0..slots).flat_map(move |i| id(l, i).to_le_bytes())).collect();
        tensors.push((format!("x/lists/{name}"), Dtype::I64, vec![beams, slots], bytes));
    }
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

#[test]
fn a_trace_comparison_sees_every_tensor() {
    let mut outcome = run(&flat(1, &three()), json!({"candidates": [1]})).unwrap();
    let findings = |bytes: &[u8], outcome: &Outcome| {
        compare_trace(&SafeTensors::deserialize(bytes).unwrap(), "x", outcome, 3, F32)
    };
    assert_eq!(findings(&trace(&outcome, 3, 4), &outcome), Vec::<String>::new());
    // The trace of an outcome that differs in every tensor, against the first.
    let first = outcome.clone();
    outcome.encoder[0][0] += 0.1;
    outcome.poi_logits[0][0] += 0.1;
    outcome.creative_logits[0][0] += 0.1;
    outcome.reward_features[1][0] += 0.1;
    outcome.rates[0] += 0.1;
    outcome.lists.log_prob[0] += 0.1;
    outcome.lists.reward[1] += 0.1;
    outcome.lists.items[0][0] += 1;
    outcome.lists.creatives[1][0] += 1;
    assert_eq!(findings(&trace(&outcome, 3, 4), &first).len(), 9);
    assert_eq!(findings(&trace(&first, 2, 4), &first).len(), 4, "rows of empty slots are part of a trace");
}

/// Whether a price was set by its rule, not by the reserve or the bid.
fn strictly_between(outcome: &Outcome, rule: Payment) -> bool {
    let between =
        |slot: &Slot| slot.reserve_micros < slot.payment_micros && slot.payment_micros < slot.bid_micros;
    outcome.payment == rule && outcome.slots.iter().any(between)
}

#[test]
fn the_generator_reaches_the_corners() {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut count = |what: &'static str, holds: bool| *seen.entry(what).or_default() += holds as usize;
    for seed in 0..60 {
        let dir = tempfile::tempdir().unwrap();
        let world = world(seed, None, dir.path());
        let model = Model::read(dir.path());
        for request in world.requests(seed, 6) {
            let expected = allocate(&model, &request);
            count("refused", expected.is_err());
            let Ok(outcome) = expected else { continue };
            let lists = &outcome.lists;
            let slots =
                request.get("list_len").map_or(model.config.list_len, |k| k.as_u64().unwrap() as usize);
            let ads = outcome.slots.iter().filter(|slot| slot.kind == "ad").count();
            count("rejected an item", !outcome.rejected.is_empty());
            count("empty list", outcome.slots.is_empty());
            count("short list", !outcome.slots.is_empty() && outcome.slots.len() < slots);
            count("full list of three and more", outcome.slots.len() == slots && slots > 2);
            count("ads and organic items", ads > 0 && ads < outcome.slots.len());
            count(
                "lists of different lengths",
                lists.items.iter().any(|list| list.len() != lists.items[0].len()),
            );
            let dropped =
                |l: usize| lists.z[l].iter().map(|z| z.ln()).sum::<f64>() - lists.log_prob[l] > 1e-9;
            count("a dropped item", (0..lists.items.len()).any(dropped));
            count("winner is not the first beam", outcome.beam > 0);
            count("beams were dropped", outcome.margins.search.is_finite());
            count("creatives were chosen", outcome.margins.creative.is_finite());
            let ties = lists.reward.iter().filter(|&&reward| reward == outcome.reward).count();
            count("another list ties with the winner", ties > 1);
            count("network price", strictly_between(&outcome, Payment::Network));
            count("GSP price", strictly_between(&outcome, Payment::Gsp));
            count("VCG price", strictly_between(&outcome, Payment::Vcg));
            let marginals = || outcome.slots.iter().filter(|_| request["marginal"] == true);
            count("no marginal", marginals().any(|slot| slot.marginal.is_none()));
            count("marginal", marginals().any(|slot| slot.marginal.is_some()));
            count("on an edge", outcome.margins.search.min(outcome.margins.creative) < F32.margin);
        }
    }
    println!("{seen:#?}");
    for (what, times) in seen {
        match what {
            "on an edge" => assert!(times <= 6, "too many requests hang on a hair: {times}"),
            _ => assert!(times >= 2, "{what}: {times} times"),
        }
    }
}
