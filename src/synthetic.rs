//! Made-up catalogs and requests, for tests and benchmarks.
//!
//! Nothing here is data. The rules: one item in four is an ad; its bid is log-normal with median 1.5 currency
//! units and sigma 0.8, its reserve price 0.1; an item has 1 to 6 creatives; codes are drawn from a hierarchy in
//! which few prefixes hold most items, as they do where codes come from real items.

use rand::{Rng, RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde_json::{Value, json};

use crate::catalog::{Columns, ItemKind};
use crate::model::config::ModelConfig;
use crate::money::Micros;

const MEDIAN_BID_MICROS: f64 = 1_500_000.0;
const SIGMA: f64 = 0.8;
const RESERVE: Micros = Micros(100_000);
const AD_EVERY: usize = 4;
const MAX_CREATIVES: usize = 6;
const CANDIDATES: std::ops::RangeInclusive<usize> = 50..=2000;
/// Organic items of a request beyond one for every slot of the list.
const SPARE_ORGANIC: usize = 2;

/// A made-up catalog of `items` items for a model of `config`; the same arguments give the same catalog.
pub fn catalog(config: &ModelConfig, items: usize, seed: u64) -> Columns {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let ranks = Zipf::new(config.codebook_size);
    let mut columns = Columns { creative_offsets: vec![0], ..Columns::default() };
    for row in 0..items {
        let ad = row % AD_EVERY == 0;
        // Ids that are neither rows nor creatives', so that mixing them up does not go unseen.
        columns.ids.push(1_000_001 + 3 * row as u64);
        columns.kinds.push(if ad { ItemKind::Ad } else { ItemKind::Organic });
        ranks.draw_codes(config.poi_code_layers, &mut rng, &mut columns.codes);
        columns.bid_micros.push(if ad { bid(&mut rng) } else { 0 });
        columns.reserve_micros.push(if ad { RESERVE.0 } else { 0 });
        columns.embeddings.extend((0..config.item_embedding_size).map(|_| normal(&mut rng) as f32));
        for _ in 0..rng.random_range(1..=MAX_CREATIVES) {
            columns.creative_ids.push(900_000_000 + 2 * columns.creative_ids.len() as u64);
            ranks.draw_codes(config.creative_code_layers, &mut rng, &mut columns.creative_codes);
        }
        columns.creative_offsets.push(columns.creative_ids.len() as u64);
    }
    columns
}

/// `count` requests over `columns`, in the JSON of `bidslate allocate`: histories of B behaviours, 50 to 2,000 ads
/// as candidates (or as many as there are), the organic items of a list and a few more, a policy.
///
/// Every item of `columns` must have a creative, as those of [`catalog`] do.
pub fn requests(columns: &Columns, config: &ModelConfig, count: usize, seed: u64) -> Vec<Value> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    // Apart from the stream that drew the catalog of the same seed.
    rng.jump();
    let (ads, organic): (Vec<usize>, Vec<usize>) =
        (0..columns.ids.len()).partition(|&row| columns.kinds[row] == ItemKind::Ad);
    let mut source = Source { columns, config, rng };
    (0..count).map(|index| source.request(index, &ads, &organic)).collect()
}

/// What requests are drawn from.
struct Source<'a> {
    columns: &'a Columns,
    config: &'a ModelConfig,
    rng: Xoshiro256PlusPlus,
}

impl Source<'_> {
    fn request(&mut self, index: usize, ads: &[usize], organic: &[usize]) -> Value {
        let config = self.config;
        let behaviors = if self.columns.ids.is_empty() { 0 } else { config.history_len };
        let history: Vec<Value> = (0..behaviors).map(|_| self.behavior()).collect();
        let candidates = self.rng.random_range(CANDIDATES);
        json!({
            "id": format!("request-{index}"),
            "context": features(&config.context_features, &mut self.rng),
            "history": history,
            "candidates": self.sample(ads, candidates),
            "organic": self.sample(organic, config.list_len + SPARE_ORGANIC),
            "policy": {
                "max_ads": config.list_len.div_ceil(2),
                "min_gap": self.rng.random_range(0..=1),
                "first_ad_slot": self.rng.random_range(0..=config.list_len.min(2) - 1),
            },
            "tie_seed": index,
        })
    }

    fn behavior(&mut self) -> Value {
        let Columns { ids, creative_offsets, creative_ids, .. } = self.columns;
        let row = self.rng.random_range(0..ids.len());
        let creative = self.rng.random_range(creative_offsets[row]..creative_offsets[row + 1]);
        json!({
            "item": ids[row],
            "creative": creative_ids[creative as usize],
            "features": features(&self.config.behavior_features, &mut self.rng),
        })
    }

    /// The ids of `count` of `rows`, each at most once, in random order.
    fn sample(&mut self, rows: &[usize], count: usize) -> Vec<u64> {
        let count = count.min(rows.len());
        let chosen = rand::seq::index::sample(&mut self.rng, rows.len(), count);
        chosen.iter().map(|i| self.columns.ids[rows[i]]).collect()
    }
}

fn features(sizes: &std::collections::BTreeMap<String, usize>, rng: &mut impl Rng) -> Value {
    sizes.iter().map(|(name, &size)| (name.clone(), json!(rng.random_range(0..size)))).collect()
}

fn bid(rng: &mut impl Rng) -> u64 {
    let micros = MEDIAN_BID_MICROS * libm::exp(SIGMA * normal(rng));
    (micros.round() as u64).min(Micros::MAX.0)
}

/// A standard normal number (Box and Muller), the same on every machine.
fn normal(rng: &mut impl Rng) -> f64 {
    // 1 - u is never 0.
    let radius = libm::sqrt(-2.0 * libm::log(1.0 - rng.random::<f64>()));
    radius * libm::cos(std::f64::consts::TAU * rng.random::<f64>())
}

/// Ranks 0, 1, ... drawn with weights 1, 1/2, 1/3, ...
struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    fn new(ranks: usize) -> Self {
        let mut sum = 0.0;
        let mut add = |rank| {
            sum += 1.0 / rank as f64;
            sum
        };
        Self { cumulative: (1..=ranks).map(&mut add).collect() }
    }

    fn draw(&self, rng: &mut impl Rng) -> usize {
        let total = self.cumulative.last().copied().unwrap_or(0.0);
        let at = rng.random::<f64>() * total;
        self.cumulative.partition_point(|&sum| sum <= at).min(self.cumulative.len().saturating_sub(1))
    }

    /// Appends one full code. Below every prefix the frequent codes are others.
    fn draw_codes(&self, layers: usize, rng: &mut impl Rng, codes: &mut Vec<u16>) {
        let mut prefix = 0_u64;
        for _ in 0..layers {
            let code = (self.draw(rng) as u64 + prefix) % self.cumulative.len() as u64;
            codes.push(code as u16);
            prefix = (prefix + code + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::config::ModelSize;

    #[test]
    fn a_catalog_follows_its_rules() {
        let config = ModelConfig::of_size(ModelSize::Tiny);
        let columns = super::catalog(&config, 8000, 3);
        assert_eq!(columns, super::catalog(&config, 8000, 3));
        assert_ne!(columns, super::catalog(&config, 8000, 4));
        assert!(columns.codes.iter().chain(&columns.creative_codes).all(|&code| code < 1024));
        let mut bids: Vec<u64> = columns.bid_micros.iter().copied().filter(|&bid| bid > 0).collect();
        bids.sort_unstable();
        assert_eq!(bids.len(), 2000);
        // The median of 2,000 draws is within 3 standard errors, 1.2533 * 0.8 / sqrt(2000) each.
        let error = (bids[1000] as f64 / MEDIAN_BID_MICROS).ln();
        assert!(error.abs() < 3.0 * 1.2533 * 0.8 / 2000_f64.sqrt(), "{error}");
        // The middle two thirds of a log-normal span exp(2 * 0.9674 * sigma).
        let spread = (bids[1667] as f64 / bids[333] as f64).ln();
        assert!((spread - 2.0 * 0.9674 * SIGMA).abs() < 0.15, "{spread}");
        let counts = columns.creative_offsets.windows(2).map(|pair| pair[1] - pair[0]);
        assert_eq!(counts.collect::<BTreeSet<_>>(), (1..=6).collect());
        let first: BTreeSet<u16> = columns.codes.chunks(3).map(|codes| codes[0]).collect();
        let full: BTreeSet<&[u16]> = columns.codes.chunks(3).collect();
        assert!(
            first.len() > 500 && full.len() > 7000 && full.len() < 8000,
            "{} {}",
            first.len(),
            full.len()
        );
    }

    #[test]
    fn requests_name_what_the_catalog_holds() {
        let config = ModelConfig::of_size(ModelSize::Tiny);
        let columns = super::catalog(&config, 1000, 3);
        let requests = super::requests(&columns, &config, 5, 3);
        assert_eq!(requests.len(), 5);
        for request in &requests {
            assert_eq!(request["history"].as_array().unwrap().len(), 256);
            for (field, kind) in [("candidates", ItemKind::Ad), ("organic", ItemKind::Organic)] {
                let ids: Vec<u64> =
                    request[field].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
                assert!(ids.len() >= 12, "{field}: {}", ids.len());
                assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{field} repeats");
                for id in ids {
                    assert_eq!(columns.kinds[columns.ids.binary_search(&id).unwrap()], kind);
                }
            }
        }
        assert_eq!(super::requests(&super::catalog(&config, 0, 0), &config, 1, 0)[0]["history"], json!([]));
    }
}
