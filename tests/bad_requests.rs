//! Every bad request is refused alone, naming the field, the value and what was expected.

mod world;

use bidslate::error::RequestErrorKind;
use bidslate::request::Request;
use serde_json::{Value, json};
use world::World;

fn good(world: &World) -> Value {
    let mut request = bidslate::synthetic::requests(&world.catalog, &world.config, 1, 5).remove(0);
    request["id"] = json!("bad");
    request
}

/// Sets the value at a JSON pointer, making the last key where it is not there.
fn with(mut request: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match request.pointer_mut(parent).unwrap() {
        Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
        object => object[key] = value,
    }
    request
}

#[test]
fn each_fault_is_named_and_its_neighbours_are_answered() {
    let world = World::new(world::config(), 300, 31);
    let engine = world.engine(2);
    let good = good(&world);
    let ad = good["candidates"][0].clone();
    let organic = good["organic"][0].clone();
    let other_creative = world.catalog.creative_ids.last().unwrap();
    use RequestErrorKind::{Duplicate, Invalid, Limit, Parse, Unknown};
    let cases = [
        ("/colour", json!(1), Parse, "colour", "unknown"),
        ("/policy/colour", json!(1), Parse, "policy.colour", "unknown"),
        ("/policy", json!([1, 2, 3]), Parse, "policy", "object"),
        ("/objective", json!([1.0, 0.0, 0.0, 0.0]), Parse, "objective", "object"),
        ("/history/0", json!([5, 6]), Parse, "history[0]", "object"),
        ("/history/0/colour", json!(1), Parse, "history[0].colour", "unknown"),
        ("/alpha", json!("high"), Parse, "alpha", "high"),
        ("/alpha", json!(-1.0), Invalid, "alpha", "-1"),
        ("/alpha", json!(16.5), Invalid, "alpha", "16.5"),
        ("/beta", json!(2e12), Invalid, "beta", "2000000000000"),
        ("/beta", json!(-0.5), Invalid, "beta", "-0.5"),
        ("/squash", json!(-2.0), Invalid, "squash", "-2"),
        ("/objective", json!({"cvr": -3.0}), Invalid, "objective.cvr", "-3"),
        ("/list_len", json!(0), Invalid, "list_len", "0"),
        ("/list_len", json!(6), Invalid, "list_len", "6"),
        ("/list_len", json!(-1), Parse, "list_len", "-1"),
        ("/beam_width", json!(0), Invalid, "beam_width", "0"),
        ("/beam_width", json!(10_000), Limit, "beam_width", "10000"),
        ("/candidates", json!("some"), Parse, "candidates", "some"),
        ("/candidates/1", ad.clone(), Duplicate, "candidates[1]", "twice"),
        ("/candidates/0", json!(77), Unknown, "candidates[0]", "77"),
        ("/candidates/0", organic.clone(), Invalid, "candidates[0]", "organic"),
        ("/candidates/0", json!(-4), Parse, "candidates", "-4"),
        ("/organic/1", organic.clone(), Duplicate, "organic[1]", "twice"),
        ("/organic/0", ad.clone(), Invalid, "organic[0]", "an ad"),
        ("/history/2/item", json!(78), Unknown, "history[2].item", "78"),
        ("/history/2/creative", json!(other_creative + 2), Unknown, "history[2].creative", "no creative"),
        ("/history/2/codes", json!([0, 0, 0]), Invalid, "history[2]", "either"),
        (
            "/history/2",
            json!({"codes": [0, 0], "creative_codes": [0, 0, 0]}),
            Invalid,
            "history[2].codes",
            "2 codes",
        ),
        (
            "/history/2",
            json!({"codes": [0, 9, 0], "creative_codes": [0, 0, 0]}),
            Invalid,
            "history[2].codes",
            "code 9",
        ),
        ("/history/2", json!({"codes": [0, 0, 0], "creative": 5}), Invalid, "history[2].creative", "within"),
        ("/history/2", json!({"codes": [0, 0, 0]}), Invalid, "history[2]", "creative_codes"),
        ("/history/1/features", json!({"action": 4}), Invalid, "history[1].features.action", "4"),
        ("/history/1/features", json!({"mood": 1}), Unknown, "history[1].features.mood", "action"),
        ("/context", json!({"hour": -1}), Parse, "context", "-1"),
        ("/context", json!({"hour": 24}), Invalid, "context.hour", "24"),
        ("/payment", json!("barter"), Parse, "payment", "barter"),
        ("/audit", json!("all"), Parse, "audit", "all"),
        ("/payment", json!(5), Parse, "payment", "integer `5`, expected one of `network`, `gsp`"),
        ("/payment", json!({"gsp": null}), Parse, "payment", "map, expected one of `network`"),
        ("/bid_scope", json!(true), Parse, "bid_scope", "`true`, expected `prefix` or `code`"),
        ("/tie_seed", json!(1.5), Parse, "tie_seed", "1.5"),
        ("/id", json!(-3), Parse, "id", "integer `-3`, expected a text or a whole number"),
        ("/id", json!(null), Parse, "id", "null, expected a text"),
    ];
    for (pointer, value, kind, field, says) in cases {
        let bad = with(good.clone(), pointer, value.clone());
        let error = match Request::from_json(bad.to_string().as_bytes()) {
            Err(error) => error,
            Ok(bad) => {
                let neighbour = world::parse(&good);
                let mut answers = engine.allocate(&[neighbour.clone(), bad, neighbour]);
                assert!(answers[0].is_ok() && answers[2].is_ok(), "{pointer}: a neighbour failed");
                answers.remove(1).expect_err(&format!("{pointer} = {value} was accepted"))
            }
        };
        assert_eq!(error.kind, kind, "{pointer} = {value}: {error}");
        assert!(error.field.starts_with(field), "{pointer} = {value}: field {:?}", error.field);
        assert!(error.message.contains(says), "{pointer} = {value}: {error}");
    }
}

/// A field that is not there is named like one that is wrong, and columns count within the one line that was given.
#[test]
fn what_is_missing_repeated_or_cut_off_is_named() {
    let cases = [
        (r#"{"history": [], "candidates": "all"}"#, "id", "missing field `id` (column 36)"),
        (r#"{"id": 1, "candidates": "all"}"#, "history", "missing field `history`"),
        (r#"{"id": 1, "history": [], "history": []}"#, "history", "duplicate field `history`"),
        (r#"{"id": 1, "history": [{"item": 1, "item": 2}]}"#, "history[0].item", "duplicate field `item`"),
        (r#"{"id": 1, "history": ["#, "history", "EOF while parsing a list (column 22)"),
        ("no request", "request", "expected ident (column 2)"),
    ];
    for (text, field, message) in cases {
        let error = Request::from_json(text.as_bytes()).unwrap_err();
        assert_eq!(error.field, field, "{text}: {error}");
        assert!(error.message.contains(message), "{text}: {error}");
        assert!(!error.message.contains("at line"), "{text}: {error}");
    }
}

#[test]
fn numbers_that_json_cannot_say_are_refused_too() {
    let world = World::new(world::config(), 300, 32);
    let engine = world.engine(1);
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let set: [fn(&mut Request, f64); 5] = [
            |r, x| r.alpha = Some(x),
            |r, x| r.beta = Some(x),
            |r, x| r.squash = x,
            |r, x| r.objective.revenue = x,
            |r, x| r.objective.cvr = x,
        ];
        for set in set {
            let mut request = world::parse(&good(&world));
            set(&mut request, bad);
            let error = engine.allocate(&[request]).remove(0).unwrap_err();
            assert_eq!(error.kind, RequestErrorKind::Invalid, "{error}");
        }
    }
}

#[test]
fn a_feature_named_twice_is_refused() {
    let text = r#"{"id": 1, "history": [], "candidates": "all", "context": {"hour": 1, "hour": 2}}"#;
    let error = Request::from_json(text.as_bytes()).unwrap_err();
    assert_eq!((error.kind, error.field.as_str()), (RequestErrorKind::Parse, "context"));
    assert!(error.message.contains("hour"), "{error}");
}

#[test]
fn vcg_without_revenue_is_refused() {
    let world = World::new(world::config(), 300, 33);
    let mut request = good(&world);
    request["payment"] = json!("vcg");
    request["objective"] = json!({"revenue": 0.0, "ctr_poi": 1.0});
    let error = world.engine(1).allocate(&[world::parse(&request)]).remove(0).unwrap_err();
    assert_eq!((error.kind, error.field.as_str()), (RequestErrorKind::Invalid, "objective.revenue"));
}

/// Little to work with is no fault.
#[test]
fn empty_histories_candidates_and_policies_that_allow_nothing_are_answered() {
    let world = World::new(world::config(), 300, 34);
    let engine = world.engine(1);
    let cases = [
        (json!({"history": []}), None),
        (json!({"candidates": []}), None),
        (json!({"candidates": [], "organic": []}), Some(0)),
        (json!({"policy": {"max_ads": 0}, "organic": []}), Some(0)),
        (json!({"policy": {"first_ad_slot": 1_000_000}}), None),
        (json!({"policy": {"min_gap": u64::MAX}, "organic": []}), Some(1)),
    ];
    for (changes, slots) in cases {
        let mut request = good(&world);
        for (key, value) in changes.as_object().unwrap() {
            request[key] = value.clone();
        }
        let response = engine.allocate(&[world::parse(&request)]).remove(0).unwrap();
        let expected = slots.unwrap_or(world.config.list_len);
        assert_eq!(response.slots.len(), expected, "{changes}");
        if expected == 0 {
            assert_eq!((response.reward, response.lists), (0.0, 1));
        }
    }
}

/// Bytes cut, doubled and replaced anywhere in a good request: refused with a reason or answered, never a panic.
#[test]
fn mangled_requests_never_panic() {
    use rand::RngExt;
    let mut rng = world::rng("mangled_requests_never_panic");
    let world = World::new(world::config(), 100, 35);
    let engine = world.engine(1);
    let good = good(&world).to_string().into_bytes();
    let (mut parsed, mut refused) = (0, 0);
    for _ in 0..3000 {
        let mut bytes = good.clone();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..bytes.len());
            match rng.random_range(0..4) {
                0 => bytes[at] = rng.random(),
                1 => bytes[at] = b"0123456789-.eE{}[]\",:n"[rng.random_range(0..22)],
                2 => bytes.truncate(at.max(1)),
                _ => {
                    let end = (at + rng.random_range(1..20)).min(bytes.len());
                    bytes.extend_from_within(at..end);
                }
            }
        }
        match Request::from_json(&bytes) {
            Ok(request) => {
                parsed += 1;
                let _ = engine.allocate(&[request]);
            }
            Err(error) => {
                refused += 1;
                assert!(error.kind == RequestErrorKind::Parse && !error.field.is_empty(), "{error}");
            }
        }
    }
    assert!(parsed > 0 && refused > 0, "{parsed} parsed, {refused} refused");
}
