//! The reference against cases worked out by hand, so that it cannot itself be silently wrong.

use serde_json::{Value, json};

use crate::reference::auction::{Place, Valued, bill, gsp_prices, vcg_price};
use crate::reference::files::Tensor;
use crate::reference::generate::{Row, flat_model, world};
use crate::reference::network::{attend, dot, rms_norm, rotate, sigmoid};
use crate::reference::request::Policy;
use crate::reference::search::{ad_allowed, highest_bid, ln_weight, ln_z, splitmix64};
use crate::reference::{Model, Outcome, Refusal, allocate};

fn near(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-12 * a.abs().max(b.abs()).max(1.0), "{a} is not {b}");
}

// ---- parts ----

#[test]
fn splitmix64_gives_the_published_sequence_of_seed_0() {
    assert_eq!(splitmix64(0), 0xE220_A839_7B1D_CDAF);
    assert_eq!(splitmix64(0x9E37_79B9_7F4A_7C15), 0x6E78_9E6A_A1B9_65F4);
    assert_eq!(splitmix64(0x9E37_79B9_7F4A_7C15u64.wrapping_mul(2)), 0x06C4_5D18_8009_454F);
}

#[test]
fn weights_of_bids() {
    // 3^2 + 4, 0^alpha = 0 for every alpha, 5^0 = 1.
    near(ln_weight(3.0, 2.0, 4.0).unwrap(), 13f64.ln());
    near(ln_weight(0.0, 2.0, 4.0).unwrap(), 4f64.ln());
    near(ln_weight(0.0, 0.0, 4.0).unwrap(), 4f64.ln());
    near(ln_weight(5.0, 0.0, 4.0).unwrap(), 5f64.ln());
    near(ln_weight(0.5, 3.0, 0.0).unwrap(), 0.125f64.ln());
    assert_eq!(ln_weight(0.0, 0.0, 0.0), None);
    // The largest bid in the smallest unit at the largest alpha, and beta far below it.
    near(ln_weight((1u64 << 43) as f64, 16.0, 1e-300).unwrap(), 16.0 * 43.0 * 2f64.ln());
    near(ln_weight(1e-13, 16.0, 1e12).unwrap(), 1e12f64.ln());
}

#[test]
fn probabilities_of_codes() {
    // Logits ln 1, ln 2, ln 3 with weights 4, 3 and a masked code: 4 / 10, 6 / 10.
    let logits = [1f64.ln(), 2f64.ln(), 3f64.ln()];
    let z = ln_z(&logits, &[Some(4f64.ln()), Some(3f64.ln()), None]);
    near(z[0].unwrap(), 0.4f64.ln());
    near(z[1].unwrap(), 0.6f64.ln());
    assert_eq!(z[2], None);
    near(ln_z(&[700.0, 710.0], &[Some(300.0), None])[0].unwrap(), 0.0);
}

#[test]
fn policies() {
    let policy = |max_ads, min_gap, first_ad_slot| Policy { max_ads, min_gap, first_ad_slot };
    let (ad, organic) = (true, false);
    assert!(ad_allowed(&policy(9, 0, 0), &[], 0));
    assert!(ad_allowed(&policy(9, 0, 0), &[ad], 1));
    assert!(!ad_allowed(&policy(0, 0, 0), &[], 0));
    assert!(!ad_allowed(&policy(1, 0, 0), &[ad, organic, organic], 3));
    assert!(!ad_allowed(&policy(9, 1, 0), &[ad], 1));
    assert!(ad_allowed(&policy(9, 1, 0), &[ad, organic], 2));
    assert!(!ad_allowed(&policy(9, 2, 0), &[organic, ad, organic], 3));
    assert!(ad_allowed(&policy(9, 2, 0), &[ad, organic, organic], 3));
    assert!(!ad_allowed(&policy(9, 0, 2), &[organic], 1));
    assert!(ad_allowed(&policy(9, 0, 2), &[organic, organic], 2));
}

#[test]
fn billing() {
    assert_eq!(bill(1_234_567.9, 1, 0, 2_000_000), 1_234_567);
    assert_eq!(bill(1_234_567.9, 1000, 0, 2_000_000), 1_234_000);
    assert_eq!(bill(1_234_567.9, 1000, 1_234_500, 2_000_000), 1_234_500);
    assert_eq!(bill(2_500_000.0, 1, 0, 2_000_001), 2_000_001);
    // The largest bid keeps its last micro and gains none; a price a rounding error short of 3 is 3.
    assert_eq!(bill((1u64 << 43) as f64, 1, 0, 1 << 43), 1 << 43);
    assert_eq!(bill(((1u64 << 43) - 1) as f64, 1, 0, 1 << 43), (1 << 43) - 1);
    assert_eq!(bill(0.1 * 3.0 * 10.0 - 4e-16, 1, 0, 9), 3);
    // Where bid or reserve is no multiple of the unit, the clamp wins.
    assert_eq!(bill(9.0, 10, 5, 9), 5);
    assert_eq!(bill(0.0, 7, 0, 0), 0);
}

fn place(is_ad: bool, bid: u64, q: f64) -> Place {
    Place { is_ad, bid, reserve: 0, q }
}

#[test]
fn gsp_prices_by_hand() {
    // The next ad stands two slots on; the last ad has none after it.
    let places = [place(true, 3_000_000, 0.2), place(false, 0, 0.9), place(true, 1_000_000, 0.1)];
    assert_eq!(gsp_prices(&places, 1.0), [Some(500_000.0), None, None]);
    assert_eq!(gsp_prices(&places, 2.0), [Some(250_000.0), None, None]);
    assert_eq!(gsp_prices(&places, 0.0), [Some(1_000_000.0), None, None]);
    assert_eq!(gsp_prices(&[place(true, 5, 0.0), place(true, 5, 0.5)], 1.0), [None, None]);
}

#[test]
fn vcg_prices_by_hand() {
    // Lists: {1: 6, 2: 2} with reward 9, {2: 5} with reward 6, {3: 4} with reward 4; m_rev 1.
    let list = |reward, worth: &[(u64, f64)]| Valued { reward, worth: worth.to_vec() };
    let lists = [list(9.0, &[(1, 6.0), (2, 2.0)]), list(6.0, &[(2, 5.0)]), list(4.0, &[(3, 4.0)])];
    // Item 1: the others have 3 in the winner and 6 in list 1: (6 - 3) / 0.5.
    assert_eq!(vcg_price(&lists, 0, 1, 0.5, 1.0), Some(6.0));
    // Item 2: the others have 7 in the winner, 1 and 4 elsewhere: 0.
    assert_eq!(vcg_price(&lists, 0, 2, 0.5, 1.0), Some(0.0));
    // m_rev 0.5: 9 - 3 = 6 in the winner, 6 in list 1.
    assert_eq!(vcg_price(&lists, 0, 1, 0.5, 0.5), Some(0.0));
    assert_eq!(vcg_price(&lists, 0, 1, 0.0, 1.0), None);
}

#[test]
fn rotary_positions() {
    // Head size 4, position 1: pairs (0, 2) at angle 1 and (1, 3) at base^(-1/2) = 0.1.
    let mut x = [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0];
    rotate(&mut x, 2, 1, 100.0);
    let expected =
        [1f64.cos(), 0.1f64.cos(), 1f64.sin(), 0.1f64.sin(), 0.0, -(0.1f64.sin()), 0.0, 0.1f64.cos()];
    x.iter().zip(expected).for_each(|(x, e)| near(*x, e));
    // Scores depend on the distance alone.
    let at = |x: [f64; 4], position| {
        let mut x = x;
        rotate(&mut x, 1, position, 50.0);
        x
    };
    let (q, k) = ([0.3, -1.0, 2.0, 0.7], [1.1, 0.4, -0.6, 0.9]);
    near(dot(&at(q, 7), &at(k, 3)), dot(&at(q, 4), &at(k, 0)));
}

#[test]
fn attention_and_norm() {
    // Scores ln 1 and ln 3 (head size 1, so the scale is 1): weights 1/4 and 3/4. The second head sees equal keys.
    let (keys, values) = (vec![vec![0.0, 2.0], vec![3f64.ln(), 2.0]], vec![vec![4.0, 1.0], vec![8.0, 2.0]]);
    let out = attend(&[1.0, 5.0], &keys, &values, 2);
    near(out[0], 7.0);
    near(out[1], 1.5);
    // Head size 4: the scale is 1/2, so a product of 2 ln 3 scores ln 3.
    let out = attend(&[1.0; 4], &[vec![0.0; 4], vec![3f64.ln() / 2.0; 4]], &[vec![0.0; 4], vec![4.0; 4]], 1);
    near(out[3], 3.0);
    let weight = Tensor { shape: vec![2], data: vec![1.0, 2.0] };
    let out = rms_norm(&weight, 0.5, &[3.0, 4.0]);
    near(out[0], 3.0 / 13f64.sqrt());
    near(out[1], 8.0 / 13f64.sqrt());
    near(sigmoid(4f64.ln()), 0.8);
}

// ---- a whole allocation ----

pub fn row(id: u64, is_ad: bool, codes: &[u16], bid: u64) -> Row {
    let creatives = vec![(100 + id, vec![1]), (200 + id, vec![0]), (300 + id, vec![0])];
    Row { id, is_ad, codes: codes.to_vec(), bid, reserve: 0, advertiser: 0, active: true, creatives }
}

/// Logits all 0, pctr_poi 1/4, pctr_creative 1/2, pcvr 1/2, payment rate 4/5; alpha = beta = 1.
pub fn flat(poi_code_layers: usize, items: &[Row]) -> Model {
    let config = json!({
        "history_len": 2, "list_len": 3, "poi_code_layers": poi_code_layers, "creative_code_layers": 1,
        "codebook_size": 3, "beam_width": 4, "encoder_layers": 1, "decoder_layers": 1, "hidden_size": 32,
        "num_heads": 1, "ffn_size": 4, "item_embedding_size": 1, "reward_hidden_size": 8, "reward_layers": 1,
        "reward_heads": 1, "alpha": 1.0, "beta": 1.0,
    });
    let filled = [("reward.towers.pctr_poi.3.bias", -(3f64.ln())), ("payment.mlp.3.bias", 4f64.ln())];
    let dir = tempfile::tempdir().unwrap();
    flat_model(&config, &filled, items, dir.path());
    Model::read(dir.path())
}

/// Ads 1 and 2 with codes 0 and 1 at 3.00 and 1.00, the organic item 3 with code 2.
pub fn three() -> Vec<Row> {
    vec![row(1, true, &[0], 3_000_000), row(2, true, &[1], 1_000_000), row(3, false, &[2], 0)]
}

/// The same with one creative each, so that no choice among equal logits is an edge.
pub fn plain() -> Vec<Row> {
    let mut items = three();
    items.iter_mut().for_each(|item| item.creatives.truncate(1));
    items
}

pub fn run(model: &Model, changes: Value) -> Result<Outcome, Refusal> {
    let mut request = json!({"id": "x", "history": [], "candidates": "all", "organic": [3], "list_len": 2});
    for (key, value) in changes.as_object().unwrap() {
        request[key] = value.clone();
    }
    allocate(model, &request)
}

/// Flat weights are stored in f32, so their figures are good to f32.
fn about(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-6 * b.abs().max(1.0), "{a} is not about {b}");
}

#[test]
fn two_slots_by_hand() {
    let outcome = run(&flat(1, &three()), json!({})).unwrap();
    // Weights 4, 2, 1 in slot 0. [1, 2]: 4/7 * 2/3; [2, 1]: 2/7 * 4/5; [1, 3]: 4/7 * 1/3; [3, 1]: 1/7 * 4/6.
    assert_eq!(outcome.lists.items, [[1, 2], [2, 1], [1, 3], [3, 1]]);
    for (ln_p, p) in outcome.lists.log_prob.iter().zip([8.0 / 21.0, 8.0 / 35.0, 4.0 / 21.0, 2.0 / 21.0]) {
        near(*ln_p, f64::ln(p));
    }
    outcome.lists.reward.iter().zip([1.0, 1.0, 0.75, 0.75]).for_each(|(r, e)| about(*r, e));
    // Lists 0 and 1 tie at reward 1: the higher score wins.
    assert_eq!((outcome.beam, outcome.slots.len()), (0, 2));
    near(outcome.slots[0].z, 4.0 / 7.0);
    near(outcome.slots[1].z, 2.0 / 3.0);
    // Greedy among the item's own codes 0 and 1 with equal logits: code 0; the first creative that has it.
    assert_eq!([outcome.slots[0].creative, outcome.slots[1].creative], [201, 202]);
    // The next best continuation is [2, 3]: 2/7 * 1/5.
    about(outcome.margins.search, ((2.0f64 / 21.0).ln() - (2.0f64 / 35.0).ln()) / -(2.0f64 / 35.0).ln());
}

#[test]
fn prices_by_hand() {
    let model = flat(1, &three());
    let payments = |changes: Value| -> Vec<u64> {
        run(&model, changes).unwrap().slots.iter().map(|slot| slot.payment_micros).collect()
    };
    let network = payments(json!({}));
    assert!(network[0].abs_diff(2_400_000) <= 1 && network[1].abs_diff(800_000) <= 1, "{network:?}");
    assert_eq!(payments(json!({"payment": "first_price"})), [3_000_000, 1_000_000]);
    assert_eq!(payments(json!({"payment": "gsp"})), [1_000_000, 0]);
    // One slot: without ad 1, ad 2 would have brought 0.25 at the same q.
    let one = run(&model, json!({"payment": "vcg", "list_len": 1, "marginal": true})).unwrap();
    assert_eq!(one.slots[0].payment_micros, 1_000_000);
    about(one.slots[0].marginal.unwrap(), 0.5);
    about(one.slots[0].rate, 1.0 / 3.0);
    assert_eq!(
        run(&model, json!({"payment": "vcg", "objective": {"revenue": 0}})).unwrap_err().field,
        "objective"
    );
}

#[test]
fn marginals_by_hand() {
    let model = flat(1, &three());
    let beams = run(&model, json!({"marginal": true})).unwrap();
    assert_eq!(beams.slots[0].marginal, None, "ad 1 is in all four lists");
    about(beams.slots[1].marginal.unwrap(), 0.25);
    let redecode = run(&model, json!({"marginal": true, "counterfactual": "redecode"})).unwrap();
    about(redecode.slots[0].marginal.unwrap(), 0.75);
    about(redecode.slots[1].marginal.unwrap(), 0.25);
}

#[test]
fn audits_by_hand() {
    let model = flat(1, &three());
    // Ad 1 of [1, 2] by gamma 0.2 and by 2: where it is shown, what it pays, z.
    let points = |changes: Value| -> [(usize, u64, f64); 2] {
        let audit = run(&model, changes).unwrap().audit;
        assert_eq!((audit[0].item, audit[1].item, audit[0].value_micros), (1, 2, 3_000_000));
        [0, 9].map(|gamma| {
            let shown = audit[0].points[gamma].shown.clone().unwrap();
            (shown.slot, shown.payment_micros, shown.z)
        })
    };
    // Weights 1.6 and 7 in the place of 4, against 2 and 1.
    let [low, high] = points(json!({"audit": "fixed"}));
    assert_eq!((low.0, high.0), (0, 0));
    // The network's rate is 0.8 whatever z is.
    assert!(low.1.abs_diff(480_000) <= 1 && high.1.abs_diff(4_800_000) <= 1, "{low:?} {high:?}");
    near(low.2, 1.6 / 4.6);
    near(high.2, 0.7);
    // [1, 2] and [2, 1] tie by reward at any bid, and the scores that they came with decide.
    let [low, high] = points(json!({"audit": "reselect", "payment": "gsp"}));
    assert_eq!(((low.0, low.1), (high.0, high.1)), ((0, 600_000), (0, 1_000_000)));
    // By new scores [2, 1] comes first: 2 / 4.6 * 1.6 / 2.6 against 1.6 / 4.6 * 2 / 3. The last ad pays its reserve.
    let [low, high] = points(json!({"audit": "redecode", "payment": "gsp"}));
    assert_eq!(((low.0, low.1), (high.0, high.1)), ((1, 0), (0, 1_000_000)));
    near(low.2, 1.6 / 2.6);
    let mut items = three();
    items[0].reserve = 1_000_000;
    let audit = run(&flat(1, &items), json!({"audit": "fixed"})).unwrap().audit;
    assert!(
        audit[0].points[0].shown.is_none() && audit[0].points[1].shown.is_some(),
        "600,000 is below 1,000,000"
    );
    assert!(run(&model, json!({})).unwrap().audit.is_empty());
}

#[test]
fn objectives_by_hand() {
    let objective = json!({"revenue": 2, "ctr_poi": 3, "ctr_creative": 5, "cvr": 7});
    let outcome = run(&flat(1, &three()), json!({"objective": objective, "list_len": 1})).unwrap();
    about(outcome.reward, 2.0 * 3.0 * 0.25 + 3.0 * 0.25 + 5.0 * 0.5 + 7.0 * 0.5);
}

#[test]
fn aggregates_and_scopes_by_hand() {
    let mut items = three();
    items.push(row(4, true, &[0], 2_000_000));
    let model = flat(1, &items);
    let z = |changes: Value| -> Vec<(u64, f64)> {
        run(&model, changes).unwrap().slots.iter().map(|slot| (slot.item, slot.z)).collect()
    };
    // Code 0 has the bids 3 and 2: mean 2.5, weight 3.5, against 2 and 1.
    let mean = z(json!({"bid_aggregate": "mean", "list_len": 1}));
    assert_eq!(mean[0].0, 1);
    near(mean[0].1, 3.5 / 6.5);
    // Slot 1 after ad 1: code 0 is ad 4 alone. By prefix it weighs 3, by code still 4 (ad 1 counts).
    let prefix = z(json!({"organic": [], "beam_width": 1}));
    assert_eq!([prefix[0].0, prefix[1].0], [1, 4]);
    near(prefix[1].1, 3.0 / 5.0);
    let code = z(json!({"organic": [], "beam_width": 1, "bid_scope": "code"}));
    near(code[1].1, 4.0 / 6.0);
}

#[test]
fn a_dropped_item_leaves_its_ln_z_in_the_score() {
    let items =
        [row(1, true, &[0, 0], 3_000_000), row(2, true, &[0, 1], 0), row(3, true, &[1, 0], 1_000_000)];
    let changes = json!({"organic": [], "beam_width": 1, "bid_scope": "code", "beta": 0});
    let outcome = run(&flat(2, &items), changes).unwrap();
    // Slot 0: code 0 weighs 3 of 4, then ad 1 is alone. Slot 1: code 0 again 3 of 4 (by code ad 1 counts), but
    // code 1 of layer 1 weighs nothing: the item is dropped.
    assert_eq!(outcome.lists.items, [[1]]);
    near(outcome.log_prob, 0.5625f64.ln());
    near(outcome.slots[0].z, 0.75);
}

#[test]
fn short_and_empty_lists() {
    let model = flat(1, &three());
    let short = run(&model, json!({"candidates": [1], "organic": []})).unwrap();
    assert_eq!((short.slots.len(), short.lists.items.len(), short.log_prob), (1, 1, 0.0));
    let empty = run(&model, json!({"organic": [], "policy": {"max_ads": 0}})).unwrap();
    assert_eq!((empty.slots.len(), empty.reward, empty.beam), (0, 0.0, 0));
    let organic = run(&model, json!({"policy": {"first_ad_slot": 1}})).unwrap();
    assert_eq!(organic.slots.iter().map(|slot| slot.item).collect::<Vec<_>>(), [3, 1]);
    assert_eq!(
        (organic.slots[0].kind, organic.slots[0].payment_micros, organic.slots[0].rate),
        ("organic", 0, 0.0)
    );
}

#[test]
fn ties_go_to_the_higher_hash() {
    let model = flat(1, &[row(7, true, &[0], 5), row(8, true, &[0], 5), row(9, true, &[0], 4)]);
    for tie_seed in 0..20 {
        let expected = if splitmix64(tie_seed ^ 7) > splitmix64(tie_seed ^ 8) { 7 } else { 8 };
        assert_eq!(model.items[highest_bid(&model.items, &[0, 1, 2], tie_seed)].id, expected);
    }
}

#[test]
fn rejected_items() {
    let mut items = three();
    items[0].reserve = 3_000_001;
    items[2].creatives.clear();
    let outcome = run(&flat(1, &items), json!({})).unwrap();
    let rejected: Vec<u64> = outcome.rejected.iter().map(|(id, _)| *id).collect();
    assert_eq!(rejected, [1, 3]);
    assert_eq!(outcome.lists.items, [[2]]);
}

#[test]
fn refused_requests() {
    let model = flat(1, &three());
    for (changes, field) in [
        (json!({"candidates": [1, 1]}), "candidates"),
        (json!({"candidates": [3]}), "candidates"),
        (json!({"candidates": [9]}), "candidates"),
        (json!({"organic": [1]}), "organic"),
        (json!({"alpha": 16.1}), "alpha"),
        (json!({"list_len": 4}), "list_len"),
        (json!({"wages": 1}), "wages"),
        (json!({"history": [{"codes": [3], "creative_codes": [0]}]}), "history"),
    ] {
        assert_eq!(run(&model, changes).unwrap_err().field, field);
    }
}

#[test]
fn generated_tokenizers_are_the_vocabulary() {
    for seed in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        world(seed, None, dir.path());
        let config = Model::read(dir.path()).config;
        let tokenizer = tokenizers::Tokenizer::from_file(dir.path().join("tokenizer.json")).unwrap();
        let layers = config.poi_code_layers + config.creative_code_layers;
        assert_eq!(tokenizer.get_vocab_size(false), 8 + layers * config.codebook_size);
        assert_eq!(tokenizer.token_to_id("[CTX]"), Some(4));
        let last = format!("<c{}_1>", config.creative_code_layers - 1);
        assert_eq!(tokenizer.token_to_id(&last), Some((8 + (layers - 1) * config.codebook_size + 1) as u32));
    }
}
