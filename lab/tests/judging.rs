//! Bounds and judgement: what lists bring, and which are refused.

mod support;

use bidslate_lab::data::{Ask, Catalog};
use bidslate_lab::draw;
use bidslate_lab::judge::{self, outcome};
use bidslate_lab::lists::{Bound, oracle_list, random_list, respond, write};
use bidslate_lab::world::{Shown, Viewer, World};
use serde_json::{Value, json};
use support::{Import, world};

fn revenue(world: &World, ask: &Ask, list: &[Shown]) -> f64 {
    let viewer = Viewer::new(world, ask);
    outcome(world, ask, &respond(world, ask, &viewer, list)).unwrap().revenue
}

#[test]
fn the_oracle_brings_at_least_what_random_lists_do() {
    let import = Import::new();
    let data = import.data();
    let asks = import.asks(&data);
    let world = world(&data, &asks, 1);
    for ask in asks.iter().step_by(7) {
        let oracle = oracle_list(&data.catalog, ask, &Viewer::new(&world, ask)).unwrap();
        let best = revenue(&world, ask, &oracle);
        for number in 0..200 {
            let mut draws = draw::stream(2, "test", &format!("{} {number}", ask.id));
            let random = revenue(&world, ask, &random_list(&data.catalog, ask, &mut draws));
            assert!((0.0..=best).contains(&random), "{}: {random} {best}", ask.id);
        }
    }
}

/// Every list of a request, by brute force: each slot takes the next organic item or any ad left, with any creative of
/// ads; creatives of organic items move no revenue.
fn all_lists(catalog: &Catalog, ask: &Ask, list: &mut Vec<Shown>, seen: &mut impl FnMut(&[Shown])) {
    if list.len() == ask.list_len {
        return seen(list);
    }
    let is_ad = |shown: &Shown| catalog.items[shown.item].ad.is_some();
    let organic = list.iter().filter(|shown| !is_ad(shown)).count();
    let item = ask.organic[organic];
    list.push(Shown { item, creative: catalog.items[item].creatives.start });
    all_lists(catalog, ask, list, seen);
    list.pop();
    let ads = list.iter().filter(|shown| is_ad(shown)).count();
    let close = list.iter().rev().take(ask.policy.min_gap).any(is_ad);
    if ads == ask.policy.max_ads.unwrap() || close || list.len() < ask.policy.first_ad_slot {
        return;
    }
    for &item in &ask.ads {
        let taken = list.iter().any(|shown| shown.item == item);
        if taken || !catalog.items[item].ad.unwrap().takes_part() {
            continue;
        }
        for creative in catalog.items[item].creatives.clone() {
            list.push(Shown { item, creative });
            all_lists(catalog, ask, list, seen);
            list.pop();
        }
    }
}

#[test]
fn the_oracle_is_the_best_of_all_lists() {
    let import = Import::new();
    let data = import.data();
    let asks = import.asks(&data);
    let world = world(&data, &asks, 1);
    for (number, mut ask) in asks.into_iter().step_by(40).enumerate() {
        ask.list_len = 5;
        ask.ads.truncate(5);
        ask.policy.max_ads = Some(2);
        ask.policy.first_ad_slot = number % 2;
        let (mut best, mut count) = (0.0_f64, 0);
        all_lists(&data.catalog, &ask, &mut Vec::new(), &mut |list| {
            best = best.max(revenue(&world, &ask, list));
            count += 1;
        });
        let oracle = oracle_list(&data.catalog, &ask, &Viewer::new(&world, &ask)).unwrap();
        let found = revenue(&world, &ask, &oracle);
        assert!(count > 50, "{count}");
        assert!((found / best - 1.0).abs() < 1e-12, "{}: {found} {best}", ask.id);
    }
}

#[test]
fn outcomes_are_sums_over_slots() {
    let import = Import::new();
    let data = import.data();
    let asks = import.asks(&data);
    let world = world(&data, &asks, 1);
    let ask = &asks[3];
    let viewer = Viewer::new(&world, ask);
    let list = oracle_list(&data.catalog, ask, &viewer).unwrap();
    let mut response = respond(&world, ask, &viewer, &list);
    response.slots.iter_mut().for_each(|slot| {
        slot.payment_micros /= 2;
        slot.pctr_poi = 0.25;
    });
    let judged = outcome(&world, ask, &response).unwrap();
    let clicks = viewer.clicks(&list);
    let paid: f64 = response.slots.iter().map(|slot| slot.payment_micros as f64 / 1e6).sum();
    let expected: f64 = response
        .slots
        .iter()
        .zip(&clicks)
        .map(|(slot, c)| slot.payment_micros as f64 / 1e6 * c.on_poi())
        .sum();
    assert!((judged.revenue - expected).abs() < 1e-12);
    let value: f64 =
        response.slots.iter().zip(&clicks).map(|(slot, c)| slot.bid_micros as f64 / 1e6 * c.on_poi()).sum();
    assert!((judged.value - value).abs() < 1e-12 && value > judged.revenue);
    assert!((judged.predicted.revenue - 0.25 * paid).abs() < 1e-12);
    assert!((judged.clicks_poi - clicks.iter().map(|c| c.on_poi()).sum::<f64>()).abs() < 1e-12);
    assert_eq!((judged.impressions, judged.predicted.clicks_poi), (8, 2.0));
    assert_eq!(judged.user, 1);
}

#[test]
fn audits_are_summed_in_currency_units() {
    let import = Import::new();
    let (responses, out) = judged(&import, |lines| {
        lines[0]["audit"] = json!({ "tier": "redecode", "ads": [
            { "slot": 1, "utility_micros": 2e6, "regret_micros": 5e5 },
            { "slot": 3, "utility_micros": 0.0, "regret_micros": 1e6 },
        ] });
    });
    responses.unwrap();
    let audit = &out[0]["audit"];
    let expected = json!({
        "tier": "redecode", "ads": 2, "utility": 2.0, "regret": 1.5, "ratio_sum": 0.25, "without_utility": 1,
    });
    assert_eq!(*audit, expected);
    assert_eq!(out[1]["audit"], Value::Null);
}

/// Judges the oracle's lists after a change of their lines.
fn judged(import: &Import, change: impl Fn(&mut Vec<Value>)) -> (anyhow::Result<()>, Vec<Value>) {
    let data = import.data();
    let asks = import.asks(&data);
    let world = world(&data, &asks, 1);
    let [responses, out] = ["responses.jsonl", "outcomes.jsonl"].map(|name| import.path(name));
    write(&world, &asks[..20], Bound::Oracle, 1, &responses).unwrap();
    let mut lines = support::lines(&responses);
    change(&mut lines);
    import.write("responses.jsonl", &lines);
    let result = judge::judge(&world, &asks[..20], &responses, &out);
    let outcomes = if result.is_ok() { support::lines(&out) } else { Vec::new() };
    (result, outcomes)
}

#[test]
fn lists_that_the_request_does_not_admit_are_refused() {
    let import = Import::new();
    let first_ad = |slots: &Value| slots.as_array().unwrap().iter().position(|s| s["kind"] == "ad").unwrap();
    type Change = Box<dyn Fn(&mut Vec<Value>)>;
    let slot = |change: fn(&mut Value)| -> Change {
        Box::new(move |lines| {
            let ad = first_ad(&lines[2]["slots"]);
            change(&mut lines[2]["slots"][ad]);
        })
    };
    let cases: Vec<(&str, Change)> = vec![
        (":3: `id`: is somebody, expected one of the requests", Box::new(|l| l[2]["id"] = json!("somebody"))),
        (":3: `id`: is user-1-2 again", Box::new(|l| l[2]["id"] = json!("user-1-2"))),
        ("no line has `id` user-1-20", Box::new(|l| l.truncate(19))),
        (":3: is the refusal", Box::new(|l| l[2] = json!({ "id": null, "error": { "kind": "parse" } }))),
        (":3: `slots[0].pctr_poi`: ", Box::new(|l| l[2]["slots"][0]["pctr_poi"] = json!("x"))),
        ("`slots[0]`: `pctr_poi`: is 1.5", Box::new(|l| l[2]["slots"][0]["pctr_poi"] = json!(1.5))),
        ("`item`: is 999", slot(|s| s["item"] = json!(999))),
        ("`creative`: is 1, expected one of", slot(|s| s["creative"] = json!(1))),
        ("`kind`: is Organic", slot(|s| s["kind"] = json!("organic"))),
        ("`bid_micros`: is 7, expected the catalog's", slot(|s| s["bid_micros"] = json!(7))),
        ("expected at most the bid", slot(|s| s["payment_micros"] = json!(1e12 as u64))),
        (
            "expected the request's next organic item",
            Box::new(|l| {
                let slots = l[2]["slots"].as_array_mut().unwrap();
                let organic: Vec<usize> =
                    (0..slots.len()).filter(|&i| slots[i]["kind"] == "organic").collect();
                slots.swap(organic[0], organic[1]);
            }),
        ),
        (
            "expected none before slot 1",
            Box::new(move |l| {
                let ad = first_ad(&l[2]["slots"]);
                l[2]["slots"].as_array_mut().unwrap().swap(0, ad);
            }),
        ),
        (
            "expected at most 8",
            Box::new(|l| {
                let slots = l[2]["slots"].as_array_mut().unwrap();
                let organic = slots.iter().filter(|slot| slot["kind"] == "organic").count();
                let missing = support::request_organic(1, 3)[organic..].to_vec();
                let like = slots[0].clone();
                slots.extend(missing.iter().map(|&item| {
                    let mut slot = like.clone();
                    (slot["item"], slot["creative"]) = (json!(item), json!(10 * item));
                    slot
                }));
            }),
        ),
    ];
    for (expected, change) in cases {
        let error = judged(&import, change).0.expect_err(expected);
        let error = format!("{error:#}");
        assert!(
            error.contains(expected) && error.contains("responses.jsonl"),
            "{error}\nexpected {expected}"
        );
    }
    assert!(judged(&import, |_| ()).0.is_ok());
}

#[test]
fn ads_must_be_candidates_apart_and_above_their_reserve() {
    let import = Import::new();
    let data = import.data();
    let mut asks = import.asks(&data);
    let world = world(&data, &asks, 1);
    let ask = &mut asks[0];
    let viewer = Viewer::new(&world, ask);
    let response = respond(&world, ask, &viewer, &oracle_list(&data.catalog, ask, &viewer).unwrap());
    let refused = |ask: &Ask| outcome(&world, ask, &response).unwrap_err().to_string();
    let whole = ask.clone();
    ask.ads.clear();
    assert!(refused(ask).contains("expected a candidate of the request"));
    *ask = whole.clone();
    ask.policy.max_ads = Some(0);
    assert!(refused(ask).contains("expected at most 0"));
    *ask = whole.clone();
    ask.policy.min_gap = 7;
    assert!(refused(ask).contains("expected 7 items between two"));
    let poor = whole.ads.iter().find(|&&ad| !data.catalog.items[ad].ad.unwrap().takes_part());
    if let Some(&poor) = poor {
        assert!(response.slots.iter().all(|slot| slot.item != data.catalog.items[poor].id));
    }
}
