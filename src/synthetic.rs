//! Made-up catalogs and requests, for tests and benchmarks.
//!
//! Nothing here is data. The rules: one item in four is an ad; its bid is log-normal with median 1.5 currency
//! units and sigma 0.8, its reserve price 0.1; an item has 1 to 6 creatives; codes are drawn from a hierarchy in
//! which few prefixes hold most items, as they do where codes come from real items.

use std::borrow::Cow;
use std::path::Path;

use rand::{Rng, RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use safetensors::tensor::{Dtype, SafeTensorError, View, serialize_to_file};
use serde_json::{Value, json};

use crate::error::CatalogError;
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

/// A made-up catalog, column by column (N items, M creatives).
#[derive(Debug, Clone, PartialEq)]
pub struct SyntheticCatalog {
    /// `item.id` \[N\].
    pub ids: Vec<u64>,
    /// `item.kind` \[N\]: 0 organic, 1 ad.
    pub kinds: Vec<u8>,
    /// `item.codes` \[N, C_p\].
    pub codes: Vec<u16>,
    /// `item.bid_micros` \[N\]; 0 for organic items.
    pub bid_micros: Vec<u64>,
    /// `item.reserve_micros` \[N\]; 0 for organic items.
    pub reserve_micros: Vec<u64>,
    /// `item.embedding` \[N, d_item\].
    pub embeddings: Vec<f32>,
    /// `item.creative_offsets` \[N + 1\].
    pub creative_offsets: Vec<u64>,
    /// `creative.id` \[M\].
    pub creative_ids: Vec<u64>,
    /// `creative.codes` \[M, C_c\].
    pub creative_codes: Vec<u16>,
}

impl SyntheticCatalog {
    /// A catalog of `items` items for a model of `config`; the same arguments give the same catalog.
    pub fn new(config: &ModelConfig, items: usize, seed: u64) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let ranks = Zipf::new(config.codebook_size);
        let mut catalog = Self::empty();
        for row in 0..items {
            let ad = row % AD_EVERY == 0;
            // Ids that are neither rows nor creatives', so that mixing them up does not go unseen.
            catalog.ids.push(1_000_001 + 3 * row as u64);
            catalog.kinds.push(u8::from(ad));
            ranks.draw_codes(config.poi_code_layers, &mut rng, &mut catalog.codes);
            catalog.bid_micros.push(if ad { bid(&mut rng) } else { 0 });
            catalog.reserve_micros.push(if ad { RESERVE.0 } else { 0 });
            catalog.embeddings.extend((0..config.item_embedding_size).map(|_| normal(&mut rng) as f32));
            for _ in 0..rng.random_range(1..=MAX_CREATIVES) {
                catalog.creative_ids.push(900_000_000 + 2 * catalog.creative_ids.len() as u64);
                ranks.draw_codes(config.creative_code_layers, &mut rng, &mut catalog.creative_codes);
            }
            catalog.creative_offsets.push(catalog.creative_ids.len() as u64);
        }
        catalog
    }

    fn empty() -> Self {
        Self {
            ids: Vec::new(),
            kinds: Vec::new(),
            codes: Vec::new(),
            bid_micros: Vec::new(),
            reserve_micros: Vec::new(),
            embeddings: Vec::new(),
            creative_offsets: vec![0],
            creative_ids: Vec::new(),
            creative_codes: Vec::new(),
        }
    }

    /// Writes the columns into one safetensors file.
    ///
    /// # Errors
    /// [`CatalogError::Io`] where the file cannot be written.
    pub fn write(&self, path: &Path, config: &ModelConfig) -> Result<(), CatalogError> {
        let (n, m) = (self.ids.len(), self.creative_ids.len());
        let columns = [
            ("item.id", Column::new(&self.ids, Dtype::U64, vec![n])),
            ("item.kind", Column::new(&self.kinds, Dtype::U8, vec![n])),
            ("item.codes", Column::new(&self.codes, Dtype::U16, vec![n, config.poi_code_layers])),
            ("item.bid_micros", Column::new(&self.bid_micros, Dtype::U64, vec![n])),
            ("item.reserve_micros", Column::new(&self.reserve_micros, Dtype::U64, vec![n])),
            (
                "item.embedding",
                Column::new(&self.embeddings, Dtype::F32, vec![n, config.item_embedding_size]),
            ),
            ("item.creative_offsets", Column::new(&self.creative_offsets, Dtype::U64, vec![n + 1])),
            ("creative.id", Column::new(&self.creative_ids, Dtype::U64, vec![m])),
            (
                "creative.codes",
                Column::new(&self.creative_codes, Dtype::U16, vec![m, config.creative_code_layers]),
            ),
        ];
        serialize_to_file(columns, None, path).map_err(|error| match error {
            SafeTensorError::IoError(source) => CatalogError::Io { path: path.into(), source },
            other => CatalogError::Format { path: path.into(), message: other.to_string() },
        })
    }

    /// `count` requests over this catalog, in the JSON of `bidslate allocate`: histories of B behaviours, 50 to
    /// 2,000 ads as candidates (or as many as there are), the organic items of a list and a few more, a policy.
    pub fn requests(&self, config: &ModelConfig, count: usize, seed: u64) -> Vec<Value> {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        // Apart from the stream that drew the catalog of the same seed.
        rng.jump();
        let (ads, organic): (Vec<usize>, Vec<usize>) =
            (0..self.ids.len()).partition(|&row| self.kinds[row] == 1);
        (0..count).map(|index| self.request(config, index, &ads, &organic, &mut rng)).collect()
    }

    fn request(
        &self,
        config: &ModelConfig,
        index: usize,
        ads: &[usize],
        organic: &[usize],
        rng: &mut Xoshiro256PlusPlus,
    ) -> Value {
        let behaviors = if self.ids.is_empty() { 0 } else { config.history_len };
        let history: Vec<Value> = (0..behaviors).map(|_| self.behavior(config, rng)).collect();
        let candidates = rng.random_range(CANDIDATES);
        json!({
            "id": format!("request-{index}"),
            "context": features(&config.context_features, rng),
            "history": history,
            "candidates": self.sample(ads, candidates, rng),
            "organic": self.sample(organic, config.list_len + SPARE_ORGANIC, rng),
            "policy": {
                "max_ads": config.list_len.div_ceil(2),
                "min_gap": rng.random_range(0..=1),
                "first_ad_slot": rng.random_range(0..=config.list_len.min(2) - 1),
            },
            "tie_seed": index,
        })
    }

    fn behavior(&self, config: &ModelConfig, rng: &mut Xoshiro256PlusPlus) -> Value {
        let row = rng.random_range(0..self.ids.len());
        let creative = rng.random_range(self.creative_offsets[row]..self.creative_offsets[row + 1]);
        json!({
            "item": self.ids[row],
            "creative": self.creative_ids[creative as usize],
            "features": features(&config.behavior_features, rng),
        })
    }

    /// The ids of `count` of `rows`, each at most once, in random order.
    fn sample(&self, rows: &[usize], count: usize, rng: &mut Xoshiro256PlusPlus) -> Vec<u64> {
        let count = count.min(rows.len());
        rand::seq::index::sample(rng, rows.len(), count).iter().map(|i| self.ids[rows[i]]).collect()
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

/// A column to be written, little-endian.
struct Column {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Column {
    fn new<T: LittleEndian>(values: &[T], dtype: Dtype, shape: Vec<usize>) -> Self {
        let mut bytes = Vec::with_capacity(size_of_val(values));
        values.iter().for_each(|&value| value.append_to(&mut bytes));
        Self { dtype, shape, bytes }
    }
}

trait LittleEndian: Copy {
    fn append_to(self, bytes: &mut Vec<u8>);
}

macro_rules! little_endian {
    ($($t:ty),*) => {$(
        impl LittleEndian for $t {
            fn append_to(self, bytes: &mut Vec<u8>) {
                bytes.extend(self.to_le_bytes());
            }
        }
    )*};
}
little_endian!(u8, u16, u64, f32);

impl View for Column {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
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
        let catalog = SyntheticCatalog::new(&config, 8000, 3);
        assert_eq!(catalog, SyntheticCatalog::new(&config, 8000, 3));
        assert_ne!(catalog, SyntheticCatalog::new(&config, 8000, 4));
        assert!(catalog.codes.iter().chain(&catalog.creative_codes).all(|&code| code < 1024));
        let mut bids: Vec<u64> = catalog.bid_micros.iter().copied().filter(|&bid| bid > 0).collect();
        bids.sort_unstable();
        assert_eq!(bids.len(), 2000);
        // The median of 2,000 draws is within 3 standard errors, 1.2533 * 0.8 / sqrt(2000) each.
        let error = (bids[1000] as f64 / MEDIAN_BID_MICROS).ln();
        assert!(error.abs() < 3.0 * 1.2533 * 0.8 / 2000_f64.sqrt(), "{error}");
        // The middle two thirds of a log-normal span exp(2 * 0.9674 * sigma).
        let spread = (bids[1667] as f64 / bids[333] as f64).ln();
        assert!((spread - 2.0 * 0.9674 * SIGMA).abs() < 0.15, "{spread}");
        let counts = catalog.creative_offsets.windows(2).map(|pair| pair[1] - pair[0]);
        assert_eq!(counts.collect::<BTreeSet<_>>(), (1..=6).collect());
        let first: BTreeSet<u16> = catalog.codes.chunks(3).map(|codes| codes[0]).collect();
        let full: BTreeSet<&[u16]> = catalog.codes.chunks(3).collect();
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
        let catalog = SyntheticCatalog::new(&config, 1000, 3);
        let requests = catalog.requests(&config, 5, 3);
        assert_eq!(requests.len(), 5);
        for request in &requests {
            assert_eq!(request["history"].as_array().unwrap().len(), 256);
            for (field, kind) in [("candidates", 1), ("organic", 0)] {
                let ids: Vec<u64> =
                    request[field].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
                assert!(ids.len() >= 12, "{field}: {}", ids.len());
                assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{field} repeats");
                for id in ids {
                    assert_eq!(catalog.kinds[catalog.ids.binary_search(&id).unwrap()], kind);
                }
            }
        }
        assert_eq!(SyntheticCatalog::new(&config, 0, 0).requests(&config, 1, 0)[0]["history"], json!([]));
    }
}
