//! Random requests for a generated model directory: every option, and one in twelve with a fault.

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus as Rng;
use serde_json::{Map, Value, json};

use super::generate::{Row, World, pick, random_codes, size};

impl World {
    /// `count` random requests; about one in twelve is to be refused.
    pub fn requests(&self, seed: u64, count: usize) -> Vec<Value> {
        let mut rng = Rng::seed_from_u64(seed);
        (0..count).map(|i| self.request(&mut rng, i)).collect()
    }

    fn request(&self, rng: &mut Rng, index: usize) -> Value {
        let mut request = json!({"id": format!("r{index}"), "history": self.history(rng)});
        request["candidates"] = if rng.random_bool(0.4) { json!("all") } else { self.some(rng, true, 0.7) };
        let list_len = size(&self.config, "list_len");
        let optional = [
            ("context", 0.8, random_values(rng, &self.config, "context_features")),
            ("organic", 0.75, self.some(rng, false, 0.8)),
            ("policy", 0.5, random_policy(rng)),
            ("alpha", 0.3, json!(pick(rng, &[0.0, 0.3, 1.0, 2.5, 16.0]))),
            ("beta", 0.4, json!(pick(rng, &[0.0, 0.0, 0.5, 3.0, 1e12]))),
            ("objective", 0.5, random_objective(rng)),
            ("payment", 0.75, json!(pick(rng, &["network", "gsp", "vcg", "first_price"]))),
            ("bid_aggregate", 0.5, json!(pick(rng, &["max", "mean", "mean"]))),
            ("bid_scope", 0.5, json!(pick(rng, &["prefix", "code", "code"]))),
            ("list_len", 0.3, json!(rng.random_range(1..=list_len))),
            ("beam_width", 0.4, json!(rng.random_range(1..=12))),
            ("tie_seed", 0.5, json!(rng.random::<u64>())),
            ("squash", 0.4, json!(pick(rng, &[0.0, 0.5, 1.0, 2.0]))),
            ("counterfactual", 0.5, json!(pick(rng, &["beams", "redecode"]))),
            ("marginal", 0.6, json!(rng.random_bool(0.8))),
            ("audit", 0.1, json!("none")),
        ];
        for (key, probability, value) in optional {
            if rng.random_bool(probability) {
                request[key] = value;
            }
        }
        match rng.random_range(0..12) {
            0 => self.spoil(rng, &mut request),
            1 | 2 => self.starve(rng, &mut request),
            3 | 4 => self.mute(rng, &mut request),
            _ => {}
        }
        request
    }

    /// [`World::requests`], of which a part is audited.
    pub fn audited(&self, seed: u64, count: usize) -> Vec<Value> {
        let mut rng = Rng::seed_from_u64(!seed);
        let mut requests = self.requests(seed, count);
        for request in &mut requests {
            if rng.random_bool(0.4) {
                request["audit"] = json!(pick(&mut rng, &["fixed", "reselect", "redecode"]));
            }
        }
        requests
    }

    /// A random part of the items of one kind, in random order.
    fn some(&self, rng: &mut Rng, ads: bool, share: f64) -> Value {
        json!(self.ids(rng, ads, share))
    }

    fn ids(&self, rng: &mut Rng, ads: bool, share: f64) -> Vec<u64> {
        let of_kind = self.items.iter().filter(|item| item.is_ad == ads);
        let mut ids: Vec<u64> = of_kind.map(|item| item.id).collect();
        ids.retain(|_| rng.random_bool(share));
        ids.shuffle(rng);
        ids
    }

    fn history(&self, rng: &mut Rng) -> Value {
        let longest = size(&self.config, "history_len") + 3;
        let len = if rng.random_bool(0.15) { 0 } else { rng.random_range(1..=longest) };
        let [poi, creative, width] =
            ["poi_code_layers", "creative_code_layers", "codebook_size"].map(|key| size(&self.config, key));
        let known: Vec<&Row> = self.items.iter().filter(|item| !item.creatives.is_empty()).collect();
        let mut entries = Vec::new();
        for _ in 0..len {
            let mut entry = match known.choose(rng) {
                Some(item) if rng.random_bool(0.6) => {
                    json!({"item": item.id, "creative": pick(rng, &item.creatives).0})
                }
                _ => json!({
                    "codes": random_codes(rng, poi, width, width),
                    "creative_codes": random_codes(rng, creative, width, width),
                }),
            };
            if rng.random_bool(0.8) {
                entry["features"] = random_values(rng, &self.config, "behavior_features");
            }
            entries.push(entry);
        }
        json!(entries)
    }

    /// Few organic items between ads that must keep their distance: lists of different lengths.
    fn starve(&self, rng: &mut Rng, request: &mut Value) {
        let few = (size(&self.config, "list_len") / 2).clamp(1, 2);
        request["organic"] = json!(self.ids(rng, false, 1.0).iter().take(few).collect::<Vec<_>>());
        request["policy"] = json!({"min_gap": 1});
        request["alpha"] = json!(0.2);
        request["beta"] = json!(3);
        request["beam_width"] = json!(10);
        request.as_object_mut().unwrap().remove("list_len");
    }

    /// Codes that other items' bids open while nothing behind them weighs anything: dropped items.
    fn mute(&self, rng: &mut Rng, request: &mut Value) {
        request["candidates"] = self.some(rng, true, 0.4);
        request["organic"] = self.some(rng, false, 1.0);
        request["bid_scope"] = json!("code");
        request["beta"] = json!(0);
        request["beam_width"] = json!(10);
        request.as_object_mut().unwrap().remove("policy");
    }

    /// Puts one fault into a request.
    fn spoil(&self, rng: &mut Rng, request: &mut Value) {
        let (ads, organic): (Vec<&Row>, Vec<&Row>) = self.items.iter().partition(|item| item.is_ad);
        let unknown = self.items.iter().map(|item| item.id).max().unwrap() + 1;
        let faults = [
            ("alpha", json!(-0.5)),
            ("alpha", json!(16.5)),
            ("beta", json!(-1)),
            ("beta", json!(1.1e12)),
            ("candidates", json!([unknown])),
            ("candidates", json!("some")),
            ("organic", json!([unknown])),
            ("list_len", json!(0)),
            ("list_len", json!(size(&self.config, "list_len") + 1)),
            ("beam_width", json!(0)),
            ("objective", json!({"cvr": -1.0})),
            ("payment", json!("second_price")),
            ("squash", json!(-0.1)),
            ("tie_seed", json!(-1)),
            ("context", json!({"no such feature": 0})),
            ("history", json!([{"item": unknown, "creative": 0}])),
            ("policy", json!({"max_ads": -1})),
            ("unknown_key", json!(1)),
        ];
        let (field, value) = pick(rng, &faults);
        let value = match (field, ads.first(), organic.first()) {
            ("candidates", Some(ad), _) if rng.random_bool(0.4) => json!([ad.id, ad.id]),
            ("candidates", _, Some(other)) if rng.random_bool(0.5) => json!([other.id]),
            ("organic", Some(ad), _) if rng.random_bool(0.4) => json!([ad.id]),
            ("organic", _, Some(other)) if rng.random_bool(0.5) => json!([other.id, other.id]),
            ("objective", _, _) if rng.random_bool(0.5) => {
                request["payment"] = json!("vcg");
                json!({"revenue": 0.0})
            }
            _ => value,
        };
        request[field] = value;
    }
}

fn random_values(rng: &mut Rng, config: &Value, tables: &str) -> Value {
    let mut values = Map::new();
    for (name, n) in config.get(tables).and_then(Value::as_object).into_iter().flatten() {
        if rng.random_bool(0.8) {
            values.insert(name.clone(), json!(rng.random_range(0..n.as_u64().unwrap())));
        }
    }
    Value::Object(values)
}

fn random_policy(rng: &mut Rng) -> Value {
    let mut policy = Map::new();
    for (key, high) in [("max_ads", 3), ("min_gap", 2), ("first_ad_slot", 2)] {
        if rng.random_bool(0.6) {
            policy.insert(key.into(), json!(rng.random_range(0..=high)));
        }
    }
    Value::Object(policy)
}

fn random_objective(rng: &mut Rng) -> Value {
    let mut objective = Map::new();
    for (key, multipliers) in [
        ("revenue", [0.2, 1.0, 3.0]),
        ("ctr_poi", [0.0, 0.7, 5.0]),
        ("ctr_creative", [0.0, 0.4, 2.0]),
        ("cvr", [0.0, 1.3, 9.0]),
    ] {
        if rng.random_bool(0.6) {
            objective.insert(key.into(), json!(pick(rng, &multipliers)));
        }
    }
    Value::Object(objective)
}
