//! Random batches of searches over random catalogs, and their run on the CPU and on a device side by side.

use std::hash::BuildHasher;
use std::sync::Arc;

use bidslate::catalog::{Catalog, Columns, ItemKind, Snapshot};
use bidslate::cpu::{Exec, Isa};
use bidslate::cuda::beam_attention_hopper::Cluster;
use bidslate::cuda::launch::{Buffer, Ptr, Stream};
use bidslate::cuda::norm_linear::NormedRows;
use bidslate::cuda::search::{Head, Search, SearchLimits, SearchRequest};
use bidslate::decode::candidates::Ads;
use bidslate::decode::search::{self as cpu, CandidateList, SearchRules};
use bidslate::model::config::{BOI, ModelConfig, ModelSize};
use bidslate::request::{AdPolicy, BidAggregate, BidScope};
use bidslate::synthetic;
use half::bf16;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

pub type Rng = Xoshiro256PlusPlus;

/// A generator whose seed the test prints, so that a failure can be run again.
pub fn rng(test: &str) -> Rng {
    let given = std::env::var("BIDSLATE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| std::hash::RandomState::new().hash_one(0));
    println!("{test}: BIDSLATE_SEED={seed}");
    Rng::seed_from_u64(seed)
}

pub fn pick<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.random_range(0..of.len())]
}

/// What to draw.
#[derive(Debug, Clone)]
pub struct Sizes {
    pub layers: usize,
    pub codes: usize,
    pub items: usize,
    pub slots: usize,
    pub requests: usize,
    pub width: usize,
    pub candidates: usize,
}

impl Sizes {
    /// A few codes and items, so that every rule matters in every search.
    pub fn small(rng: &mut Rng) -> Self {
        Self {
            layers: rng.random_range(1..=3),
            codes: rng.random_range(2..=6),
            items: rng.random_range(0..=24),
            slots: rng.random_range(1..=4),
            requests: rng.random_range(1..=3),
            width: 9,
            candidates: 24,
        }
    }

    pub fn config(&self) -> ModelConfig {
        ModelConfig {
            poi_code_layers: self.layers,
            creative_code_layers: 1,
            codebook_size: self.codes,
            item_embedding_size: 1,
            ..ModelConfig::of_size(ModelSize::Tiny)
        }
    }

    pub fn limits(&self) -> SearchLimits {
        let Self { slots, requests, width, candidates, .. } = *self;
        SearchLimits { requests, beams: width, slots, candidates }
    }
}

/// How the logits of a request come about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Logits {
    /// All different.
    Random,
    /// All the same: everything ties that can.
    Equal,
    /// Whole numbers: many ties.
    Coarse,
    /// So large that only the largest of a row matters.
    Huge,
}

/// One request, without its catalog.
#[derive(Debug, Clone)]
pub struct Ask {
    pub rules: SearchRules,
    /// Rows of ads; none: all of the catalog.
    pub named: Option<Vec<u32>>,
    pub organic: Vec<u32>,
    /// A row that no list may show.
    pub excluded: Option<u32>,
    pub logits: Logits,
    pub seed: u64,
    /// A position, and the first row and code from which on its logits are not finite.
    pub fault: Option<(usize, usize, usize, f32)>,
}

impl Ask {
    fn logit(&self, position: usize, row: usize, code: usize) -> f32 {
        if let Some((at, bad_row, bad_code, value)) = self.fault
            && position == at
            && row >= bad_row
            && code >= bad_code
        {
            return if (row + code).is_multiple_of(2) { value } else { f32::NAN };
        }
        let hash = [position, row, code].iter().fold(self.seed, |h, &x| cpu_hash(h ^ x as u64));
        let unit = (hash >> 40) as f32 / (1u64 << 24) as f32;
        match self.logits {
            Logits::Random => unit * 8.0 - 4.0,
            Logits::Equal => 0.25,
            Logits::Coarse => (unit * 3.0).floor(),
            Logits::Huge => (unit - 0.5) * f32::MAX,
        }
    }
}

fn cpu_hash(x: u64) -> u64 {
    bidslate::decode::bidding::splitmix64(x)
}

/// A catalog of `sizes.items` items that is not as tidy as a real one.
pub fn columns(rng: &mut Rng, sizes: &Sizes) -> Columns {
    let mut columns = synthetic::catalog(&sizes.config(), sizes.items, rng.random());
    let equal = rng.random_bool(0.3);
    let huge = rng.random_bool(0.2);
    for row in 0..columns.ids.len() {
        columns.kinds[row] = if rng.random_bool(0.7) { ItemKind::Ad } else { ItemKind::Organic };
        columns.bid_micros[row] = match (equal, huge) {
            (true, _) => 2_000_000,
            (_, true) => pick(rng, &[0, 1, (1 << 32) - 1, 1 << 42, (1 << 43) - 1, 1 << 43]),
            _ => pick(rng, &[0, 1, 700_001, 1_500_000, 1_500_000, 40_000_000]),
        };
        columns.reserve_micros[row] = pick(rng, &[0, 0, 0, 1, 700_001]);
    }
    if rng.random_bool(0.5) {
        columns.codes.iter_mut().for_each(|code| *code = rng.random_range(0..=(sizes.codes - 1) as u16));
    }
    columns.active = Some(columns.ids.iter().map(|_| rng.random_bool(0.9)).collect());
    columns
}

/// A request over these columns.
pub fn ask(rng: &mut Rng, sizes: &Sizes, columns: &Columns, snapshot: &Snapshot) -> Ask {
    let of_kind = |kind| -> Vec<u32> {
        (0..columns.ids.len() as u32).filter(|&row| columns.kinds[row as usize] == kind).collect()
    };
    let (ads, mut organic) = (of_kind(ItemKind::Ad), of_kind(ItemKind::Organic));
    let share = pick(rng, &[0.0, 0.3, 0.9, 1.0]);
    organic.retain(|&row| snapshot.rejection(row).is_none() && rng.random_bool(share));
    for i in (1..organic.len()).rev() {
        organic.swap(i, rng.random_range(0..=i));
    }
    organic.truncate(sizes.candidates);
    let share = pick(rng, &[0.0, 0.5, 0.9, 1.0]);
    let mut some: Vec<u32> = ads.iter().copied().filter(|_| rng.random_bool(share)).collect();
    some.truncate(sizes.candidates);
    Ask {
        rules: rules(rng, sizes),
        named: rng.random_bool(0.7).then_some(some),
        organic,
        excluded: (rng.random_bool(0.3) && !ads.is_empty()).then(|| pick(rng, &ads)),
        logits: pick(rng, &[Logits::Random, Logits::Random, Logits::Equal, Logits::Coarse, Logits::Huge]),
        seed: rng.random(),
        fault: None,
    }
}

fn rules(rng: &mut Rng, sizes: &Sizes) -> SearchRules {
    SearchRules {
        list_len: rng.random_range(1..=sizes.slots),
        beam_width: rng.random_range(1..=sizes.width),
        policy: AdPolicy {
            max_ads: pick(rng, &[None, None, None, Some(0), Some(1), Some(2), Some(usize::MAX)]),
            min_gap: pick(rng, &[0, 0, 1, 2, usize::MAX]),
            first_ad_slot: pick(rng, &[0, 0, 0, 1, 2]),
        },
        alpha: pick(rng, &[0.0, 0.5, 1.0, 1.2, 3.0, 16.0]),
        beta: pick(rng, &[0.0, 5e-324, 0.1, 2.0, 50.0, 1e12]),
        aggregate: pick(rng, &[BidAggregate::Max, BidAggregate::Mean]),
        scope: pick(rng, &[BidScope::Prefix, BidScope::Prefix, BidScope::Code]),
        tie_seed: rng.random(),
        bid_unit: pick(rng, &[1, 10_000, 1_000_000, 1 << 43]),
        code_layers: sizes.layers,
        codebook_size: sizes.codes,
    }
}

/// What becomes of a request: its lists, or what its error says.
pub type Outcome = Result<Vec<CandidateList>, String>;

pub fn snapshot(columns: &Columns, sizes: &Sizes) -> Arc<Snapshot> {
    Catalog::from_columns(columns.clone(), &sizes.config()).unwrap().snapshot()
}

pub fn ads<'s>(ask: &Ask, snapshot: &'s Snapshot) -> Ads<'s> {
    ask.named.as_ref().map_or_else(|| Ads::all(snapshot), |rows| Ads::listed(snapshot, rows))
}

/// The search on the CPU, one step at a time.
struct Oracle<'a> {
    ask: &'a Ask,
    search: Option<cpu::Search<'a>>,
    fault: Option<String>,
}

impl<'a> Oracle<'a> {
    fn new(ask: &'a Ask, request: &SearchRequest<'a>) -> Self {
        let SearchRequest { rules, snapshot, ads, organic, excluded } = *request;
        Self { ask, search: Some(cpu::Search::new(rules, snapshot, ads, organic, excluded)), fault: None }
    }

    /// The rows at this position: last code, and the rows that ran their prefix, the row itself included.
    fn rows(&self, position: usize) -> Vec<(Option<u16>, Vec<u32>)> {
        let Some(search) = self.search.as_ref().filter(|search| search.step() == position) else {
            return Vec::new();
        };
        let rows = search.rows().enumerate();
        rows.map(|(row, r)| (r.last_code, [r.path, &[row as u32]].concat())).collect()
    }

    fn advance(&mut self, position: usize) {
        let Some(search) = self.search.as_mut().filter(|s| !s.is_over() && s.step() == position) else {
            return;
        };
        let codes = self.ask.rules.codebook_size;
        let rows = search.rows().count();
        let logits: Vec<f32> =
            (0..rows * codes).map(|i| self.ask.logit(position, i / codes, i % codes)).collect();
        if let Err(error) = search.advance(Exec { isa: Isa::detect(), team: None }, &logits) {
            self.fault = Some(format!("{error}"));
            self.search = None;
        }
    }

    fn outcome(self) -> Outcome {
        match (self.search, self.fault) {
            (Some(search), _) => Ok(search.into_lists()),
            (None, fault) => Err(fault.unwrap_or_default()),
        }
    }
}

/// A device's memory for searches, used for one batch after the other.
pub struct Device {
    stream: Arc<dyn Stream>,
    search: Search,
    logits: Logit,
    sizes: Sizes,
}

/// How a device gets its logits.
enum Logit {
    /// As they are.
    Given(Buffer<f32>),
    /// From a head that makes them in the launch of the step, by these clusters.
    Made(Cluster, OneHots),
}

/// A head whose product is whatever is asked for: row r of x holds its logits in three bf16 each, whose sum they are, and
/// row c of the weights picks those of code c.
struct OneHots {
    d: usize,
    x: Buffer<f32>,
    w: Buffer<bf16>,
    hidden: Buffer<f32>,
}

impl OneHots {
    fn new(stream: &Arc<dyn Stream>, rows: usize, codes: usize) -> Self {
        let d = (3 * codes).next_multiple_of(8);
        let picks = |i: usize| f32::from(u8::from(i % d / 3 == i / d));
        let w: Vec<bf16> = (0..codes * d).map(|i| bf16::from_f32(picks(i))).collect();
        Self {
            d,
            x: Buffer::new(stream, rows * d).unwrap(),
            w: Buffer::from_slice(stream, &w).unwrap(),
            hidden: Buffer::new(stream, rows * d).unwrap(),
        }
    }

    /// The head that makes these logits, [m, W].
    fn of(&mut self, logits: &[f32], codes: usize) -> Head {
        let mut x = Vec::new();
        for logits in logits.chunks(codes) {
            x.extend(logits.iter().flat_map(|&logit| parts(logit)));
            x.resize(x.len().next_multiple_of(self.d), 0.0);
        }
        self.x.upload(0, &x).unwrap();
        let (m, d) = (logits.len() / codes, self.d);
        let rows = NormedRows { x: self.x.ptr(), weight: Ptr::NULL, m, d, eps: 0.0 };
        Head { rows, w: self.w.ptr(), hidden: self.hidden.ptr_mut() }
    }
}

/// Three numbers of eight bits each that add up to this one.
fn parts(x: f32) -> [f32; 3] {
    let cut = |x: f32| f32::from_bits(x.to_bits() & 0xffff_0000);
    let high = cut(x);
    let middle = cut(x - high);
    [high, middle, x - high - middle]
}

impl Device {
    pub fn new(stream: &Arc<dyn Stream>, sizes: &Sizes) -> Self {
        let search = Search::new(stream, sizes.limits(), sizes.layers, sizes.codes).unwrap();
        assert!(search.bytes() > 0);
        let logits = Buffer::new(stream, sizes.requests * sizes.width * sizes.codes).unwrap();
        Self { stream: stream.clone(), search, logits: Logit::Given(logits), sizes: sizes.clone() }
    }

    /// One that runs a step as one launch, by clusters of this size.
    pub fn fused(stream: &Arc<dyn Stream>, sizes: &Sizes, cluster: Cluster) -> Self {
        let head = OneHots::new(stream, sizes.requests * sizes.width, sizes.codes);
        Self { logits: Logit::Made(cluster, head), ..Self::new(stream, sizes) }
    }

    /// Runs a batch on the device and on the CPU, holds the rows of every step against each other, and returns the
    /// device's outcomes and the CPU's.
    pub fn run(&mut self, asks: &[Ask], snapshot: &Snapshot, rows: usize) -> (Vec<Outcome>, Vec<Outcome>) {
        let ads: Vec<Ads<'_>> = asks.iter().map(|ask| ads(ask, snapshot)).collect();
        let requests: Vec<SearchRequest<'_>> = asks
            .iter()
            .zip(&ads)
            .map(|(ask, ads)| SearchRequest {
                rules: &ask.rules,
                snapshot,
                ads,
                organic: &ask.organic,
                excluded: ask.excluded.and_then(|row| ads.find(row)).map(|position| position as u32),
            })
            .collect();
        let mut oracles: Vec<_> = asks.iter().zip(&requests).map(|(ask, r)| Oracle::new(ask, r)).collect();
        self.search.begin(&requests, rows).unwrap();
        let steps = asks.iter().map(|ask| ask.rules.list_len).max().unwrap() * self.sizes.layers;
        for position in 0..=steps {
            self.check_rows(&oracles, rows, position);
            if position < steps {
                let logits = self.logits(asks, &oracles, rows, position);
                match &mut self.logits {
                    Logit::Given(buffer) => {
                        buffer.upload(0, &logits).unwrap();
                        self.search.advance(buffer.ptr()).unwrap();
                    }
                    Logit::Made(cluster, head) => {
                        self.search.step(*cluster, head.of(&logits, self.sizes.codes)).unwrap();
                    }
                }
                oracles.iter_mut().for_each(|oracle| oracle.advance(position));
            }
        }
        self.search.finish().unwrap();
        let mut results = self.search.results();
        self.stream.download(&mut results.downloads(&self.search)).unwrap();
        let device = results
            .lists(&self.search)
            .into_iter()
            .map(|lists| lists.map_err(|error| error.to_string()))
            .collect();
        (device, oracles.into_iter().map(Oracle::outcome).collect())
    }

    /// Rows that are not in use hold NaN.
    fn logits(&self, asks: &[Ask], oracles: &[Oracle<'_>], rows: usize, position: usize) -> Vec<f32> {
        let codes = self.sizes.codes;
        let mut logits = vec![f32::NAN; asks.len() * rows * codes];
        for ((ask, oracle), logits) in asks.iter().zip(oracles).zip(logits.chunks_mut(rows * codes)) {
            let in_use = oracle.rows(position).len() * codes;
            for (i, logit) in logits[..in_use].iter_mut().enumerate() {
                *logit = ask.logit(position, i / codes, i % codes);
            }
        }
        logits
    }

    fn check_rows(&self, oracles: &[Oracle<'_>], rows: usize, position: usize) {
        let state = self.search.inputs().unwrap();
        assert_eq!(state.position as usize, position);
        let positions = self.search.positions();
        let config = self.sizes.config();
        for (request, oracle) in oracles.iter().enumerate() {
            let tokens = &state.tokens[request * rows..][..rows];
            assert!(tokens.iter().all(|&token| (token as usize) < config.vocabulary_size()));
            let ancestors = &state.ancestors[request * rows * positions..][..rows * positions];
            for path in ancestors.chunks(positions) {
                assert!(path[..=position].iter().all(|&row| (row as usize) < rows), "{path:?}");
            }
            for (row, (last_code, path)) in oracle.rows(position).into_iter().enumerate() {
                let layer = (position + self.sizes.layers - 1) % self.sizes.layers;
                let token = last_code.map_or(BOI, |code| config.poi_token(layer, code));
                assert_eq!(tokens[row] as usize, token, "request {request}, row {row}, position {position}");
                assert_eq!(ancestors[row * positions..][..=position], path, "request {request}, row {row}");
            }
        }
    }
}
