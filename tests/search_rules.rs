//! The rules of allocation under random logits: eligibility, order, policy, scores, ties, beams.

mod world;

#[path = "search_rules/naive.rs"]
mod naive;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use bidslate::catalog::{Catalog, Columns, ItemKind, Snapshot};
use bidslate::cpu::{Exec, Isa, Team};
use bidslate::decode::candidates::Ads;
use bidslate::decode::search::{CandidateList, Search, SearchRules};
use bidslate::error::{RequestError, RequestErrorKind};
use bidslate::model::config::{ModelConfig, ModelSize};
use bidslate::request::{AdPolicy, BidAggregate, BidScope};
use naive::{Naive, State};
use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;

type Rng = Xoshiro256PlusPlus;

/// A search, without its logits.
struct Case {
    config: ModelConfig,
    columns: Columns,
    rules: SearchRules,
    /// Rows; none: all ads of the catalog.
    candidates: Option<Vec<u32>>,
    organic: Vec<u32>,
    excluded: Option<u32>,
    seed: u64,
    /// Codes 0 and 1, 2 and 3, ... have the same logits, and all bids are equal: ties are common.
    paired: bool,
}

/// Sizes and rules of the cases to draw.
struct Sizes {
    items: usize,
    slots: usize,
    widths: RangeInclusive<usize>,
    codebooks: RangeInclusive<usize>,
}

const SMALL: Sizes = Sizes { items: 14, slots: 4, widths: 1..=9, codebooks: 2..=5 };

fn pick<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.random_range(0..of.len())]
}

fn config(layers: usize, codebook: usize) -> ModelConfig {
    ModelConfig {
        poi_code_layers: layers,
        creative_code_layers: 1,
        codebook_size: codebook,
        item_embedding_size: 1,
        ..ModelConfig::of_size(ModelSize::Tiny)
    }
}

/// A catalog in which few things are as they should be.
fn columns(rng: &mut Rng, config: &ModelConfig, items: usize, equal_bids: bool) -> Columns {
    let mut columns = Columns { creative_offsets: vec![0], ..Columns::default() };
    let ids: BTreeSet<u64> = (0..items).map(|_| rng.random()).collect();
    columns.ids = ids.into_iter().collect();
    for _ in 0..columns.ids.len() {
        columns.kinds.push(if rng.random_bool(0.6) { ItemKind::Ad } else { ItemKind::Organic });
        let codes = (0..config.poi_code_layers).map(|_| rng.random_range(0..config.codebook_size as u16));
        columns.codes.extend(codes);
        let bid = if equal_bids {
            2_000_000
        } else {
            pick(rng, &[0, 1, 700_001, 1_500_000, 1_500_000, 40_000_000])
        };
        columns.bid_micros.push(bid);
        columns.reserve_micros.push(pick(rng, &[0, 0, 0, 1, 700_001, 2_000_000]));
        columns.embeddings.push(if rng.random_bool(0.05) { f32::NAN } else { 0.5 });
        let creatives = pick(rng, &[0, 1, 1, 1, 1, 1, 1, 2]);
        for _ in 0..creatives {
            columns.creative_ids.push(columns.creative_ids.len() as u64);
            columns.creative_codes.push(0);
        }
        columns.creative_offsets.push(columns.creative_ids.len() as u64);
    }
    columns.active = Some(columns.ids.iter().map(|_| rng.random_bool(0.9)).collect());
    if rng.random_bool(0.5) {
        columns.advertisers = Some(columns.ids.iter().map(|_| pick(rng, &[1, 2, 3])).collect());
        columns.advertiser_ids = Some(vec![1, 2, 3]);
        columns.advertiser_budget_micros = Some(vec![5, pick(rng, &[0, 5]), 1 << 40]);
        columns.advertiser_pacing = Some(vec![1.0, 1.0, if equal_bids { 1.0 } else { 0.3 }]);
    }
    columns
}

fn case(rng: &mut Rng, sizes: &Sizes) -> Case {
    let config = config(rng.random_range(1..=3), rng.random_range(sizes.codebooks.clone()));
    let paired = rng.random_bool(0.3);
    let items = rng.random_range(0..=sizes.items);
    let columns = columns(rng, &config, items, paired);
    let of_kind = |kind| -> Vec<u32> {
        (0..columns.ids.len() as u32).filter(|&row| columns.kinds[row as usize] == kind).collect()
    };
    let (ads, mut organic) = (of_kind(ItemKind::Ad), of_kind(ItemKind::Organic));
    organic.retain(|&row| naive::may_be_shown(&columns, row) && rng.random_bool(0.8));
    for i in (1..organic.len()).rev() {
        organic.swap(i, rng.random_range(0..=i));
    }
    let some: Vec<u32> = ads.iter().copied().filter(|_| rng.random_bool(0.8)).collect();
    let candidates = rng.random_bool(0.6).then_some(some);
    let excluded = (rng.random_bool(0.3) && !ads.is_empty()).then(|| pick(rng, &ads));
    let rules = SearchRules {
        list_len: rng.random_range(1..=sizes.slots),
        beam_width: rng.random_range(sizes.widths.clone()),
        policy: AdPolicy {
            max_ads: pick(rng, &[None, None, Some(0), Some(1), Some(2)]),
            min_gap: pick(rng, &[0, 0, 1, 2]),
            first_ad_slot: pick(rng, &[0, 0, 1, 2]),
        },
        alpha: pick(rng, &[0.0, 0.5, 1.0, 1.2, 3.0]),
        beta: pick(rng, &[0.0, 0.1, 2.0, 50.0]),
        aggregate: pick(rng, &[BidAggregate::Max, BidAggregate::Mean]),
        scope: pick(rng, &[BidScope::Prefix, BidScope::Code]),
        tie_seed: rng.random(),
        bid_unit: pick(rng, &[1_000_000, 10_000]),
        code_layers: config.poi_code_layers,
        codebook_size: config.codebook_size,
    };
    Case { config, columns, rules, candidates, organic, excluded, seed: rng.random(), paired }
}

/// A logit of the code after `history`, the same whenever it is asked for.
fn logit(seed: u64, history: &[u16], code: u16) -> f32 {
    let hash = history.iter().fold(naive::splitmix64(seed), |h, &c| naive::splitmix64(h ^ u64::from(c)));
    let bits = naive::splitmix64(hash ^ (u64::from(code) << 32)) >> 40;
    bits as f32 / (1u64 << 24) as f32 * 8.0 - 4.0
}

impl Case {
    fn logit(&self, history: &[u16], code: u16) -> f32 {
        logit(self.seed, history, if self.paired { code / 2 } else { code })
    }

    fn snapshot(&self) -> std::sync::Arc<Snapshot> {
        Catalog::from_columns(self.columns.clone(), &self.config).unwrap().snapshot()
    }

    fn run(&self) -> Vec<Found> {
        self.run_with(&|history, code| self.logit(history, code)).unwrap()
    }

    fn run_with(&self, logit: &dyn Fn(&[u16], u16) -> f32) -> Result<Vec<Found>, RequestError> {
        self.run_in(None, logit)
    }

    fn run_in(
        &self,
        team: Option<&Team>,
        logit: &dyn Fn(&[u16], u16) -> f32,
    ) -> Result<Vec<Found>, RequestError> {
        let snapshot = self.snapshot();
        let ads = match &self.candidates {
            Some(rows) => Ads::listed(&snapshot, rows),
            None => Ads::all(&snapshot),
        };
        let excluded = self.excluded.and_then(|row| ads.find(row)).map(|position| position as u32);
        let search = Search::new(&self.rules, &snapshot, &ads, &self.organic, excluded);
        drive(search, Exec { isa: Isa::detect(), team }, &self.rules, logit)
    }

    fn naive<'a>(&'a self, logit: &'a dyn Fn(&[u16], u16) -> f32) -> Naive<'a> {
        let ads = (0..self.columns.ids.len() as u32)
            .filter(|&row| self.columns.kinds[row as usize] == ItemKind::Ad)
            .collect();
        Naive {
            columns: &self.columns,
            rules: &self.rules,
            candidates: self.candidates.clone().unwrap_or(ads),
            organic: self.organic.clone(),
            excluded: self.excluded,
            logit,
        }
    }
}

/// A list with the codes that led to it.
struct Found {
    list: CandidateList,
    codes: Vec<u16>,
}

impl Found {
    fn rows(&self) -> Vec<u32> {
        self.list.items.iter().map(|chosen| chosen.item).collect()
    }
}

/// Runs a search on made-up logits, following the rows as a decoder does.
fn drive(
    mut search: Search,
    exec: Exec,
    rules: &SearchRules,
    logit: &dyn Fn(&[u16], u16) -> f32,
) -> Result<Vec<Found>, RequestError> {
    // The codes that each row of each position has seen.
    let mut seen: Vec<Vec<Vec<u16>>> = Vec::new();
    loop {
        let step = search.step();
        let mut rows = Vec::new();
        for row in search.rows() {
            assert_eq!((row.path.len(), row.last_code.is_some()), (step, step > 0));
            let history = match row.last_code {
                None => Vec::new(),
                Some(code) => [&seen[step - 1][row.path[step - 1] as usize][..], &[code]].concat(),
            };
            for (position, &earlier) in row.path.iter().enumerate() {
                assert_eq!(seen[position][earlier as usize], history[..position], "the path is its own");
            }
            rows.push(history);
        }
        assert!(rows.len() <= rules.beam_width);
        seen.push(rows);
        if search.is_over() {
            break;
        }
        let codes = 0..rules.codebook_size as u16;
        let logits: Vec<f32> =
            seen[step].iter().flat_map(|history| codes.clone().map(|code| logit(history, code))).collect();
        search.advance(exec, &logits)?;
    }
    let with_codes = |list: CandidateList| {
        let position = list.path.len() - 1;
        Found { codes: seen[position][list.path[position] as usize].clone(), list }
    };
    Ok(search.into_lists().into_iter().map(with_codes).collect())
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * (1.0 + a.abs().max(b.abs()))
}

/// Steps through a list code by code, by the naive rules.
fn replay(naive: &Naive, codes: &[u16]) -> State {
    codes.iter().fold(State::default(), |state, &code| {
        let ways = naive.z(&state);
        let sum: f64 = ways.iter().map(|&(_, z)| z).sum();
        assert!(close(sum, 1.0), "z sums to {sum}");
        let (_, z) = *ways.iter().find(|&&(k, _)| k == code).expect("a masked code was chosen");
        naive.follow(&state, code, z)
    })
}

#[test]
fn every_list_keeps_the_rules_and_has_the_score_of_its_codes() {
    let mut rng = world::rng("every_list_keeps_the_rules_and_has_the_score_of_its_codes");
    let (mut full, mut short, mut dropped, mut ads_shown) = (0, 0, 0, 0);
    for _ in 0..3000 {
        let case = case(&mut rng, &SMALL);
        let logit = |history: &[u16], code| case.logit(history, code);
        let naive = case.naive(&logit);
        let found = case.run();
        assert!((1..=case.rules.beam_width).contains(&found.len()));
        for found in &found {
            let rows = found.rows();
            let distinct: BTreeSet<u32> = rows.iter().copied().collect();
            assert_eq!(distinct.len(), rows.len(), "{rows:?} repeats an item");
            let (ads, organic): (Vec<u32>, Vec<u32>) = rows.iter().partition(|&&row| naive.is_ad(row));
            assert_eq!(organic, case.organic[..organic.len()], "organic items out of order in {rows:?}");
            for ad in &ads {
                assert!(naive::may_be_shown(&case.columns, *ad) && naive.candidates.contains(ad), "ad {ad}");
                assert_ne!(Some(*ad), case.excluded);
            }
            let is_ad: Vec<bool> = rows.iter().map(|&row| naive.is_ad(row)).collect();
            assert!(naive::keeps_policy(&case.rules, &is_ad), "{:?} in {is_ad:?}", case.rules.policy);
            let state = replay(&naive, &found.codes);
            assert_eq!(state.rows(), rows);
            assert!(close(state.score(), found.list.score), "{} and {}", state.score(), found.list.score);
            for (chosen, (_, ln_z)) in found.list.items.iter().zip(&state.items) {
                assert!(close(chosen.ln_z, *ln_z), "{} and {ln_z}", chosen.ln_z);
                assert_eq!(chosen.position.is_some(), naive.is_ad(chosen.item));
            }
            assert!(naive.z(&state).is_empty(), "{rows:?} could go on");
            full += usize::from(rows.len() == case.rules.list_len);
            short += usize::from(rows.len() < case.rules.list_len);
            dropped += usize::from(found.codes.len() > rows.len() * case.rules.code_layers);
            ads_shown += ads.len();
        }
    }
    println!("{full} full lists, {short} short ones ({dropped} dropped an item), {ads_shown} ads");
    assert!(full > 1000 && short > 1000 && dropped > 10 && ads_shown > 1000);
}

#[test]
fn beams_are_those_of_a_plain_search() {
    let mut rng = world::rng("beams_are_those_of_a_plain_search");
    let (mut compared, mut ties) = (0, 0);
    for _ in 0..3000 {
        let case = case(&mut rng, &SMALL);
        let logit = |history: &[u16], code| case.logit(history, code);
        let (expected, sure) = case.naive(&logit).beam_search();
        let found = case.run();
        for pair in found.windows(2) {
            assert!(pair[0].list.score >= pair[1].list.score, "lists are not in order");
            ties += usize::from(pair[0].list.score == pair[1].list.score);
        }
        if !sure {
            continue;
        }
        compared += 1;
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            let case = (&case.rules, found.list.score, expected);
            assert_eq!(found.codes, expected.codes, "{case:?}");
            assert_eq!(found.rows(), expected.rows(), "{case:?}");
            assert!(close(found.list.score, expected.score()));
        }
    }
    println!("{compared} searches compared, {ties} pairs of lists tied");
    assert!(compared > 2700 && ties > 40, "{compared} {ties}");
}

#[test]
fn a_team_of_any_size_finds_the_same_lists_and_the_same_fault() {
    let mut rng = world::rng("a_team_of_any_size_finds_the_same_lists_and_the_same_fault");
    // Large enough to be worth several threads.
    let sizes = Sizes { items: 400, slots: 4, widths: 48..=64, codebooks: 60..=70 };
    for threads in [2, 3] {
        let team = Team::spawn(threads).unwrap();
        for _ in 0..20 {
            let case = case(&mut rng, &sizes);
            let broken = rng.random_bool(0.3).then(|| rng.random_range(0..60));
            let logit = |history: &[u16], code: u16| match broken {
                Some(broken) if history.len() == 2 && code >= broken => f32::NAN,
                _ => case.logit(history, code),
            };
            let lists = |team| match case.run_in(team, &logit) {
                Ok(found) => Ok(found.into_iter().map(|found| found.list).collect::<Vec<_>>()),
                Err(error) => Err(error.to_string()),
            };
            assert_eq!(lists(Some(&team)), lists(None));
        }
    }
}

#[test]
fn with_room_for_all_lists_the_search_is_exhaustive() {
    let mut rng = world::rng("with_room_for_all_lists_the_search_is_exhaustive");
    let mut lists = 0;
    for _ in 0..800 {
        let case = case(&mut rng, &Sizes { items: 13, slots: 3, widths: 10_000..=10_000, ..SMALL });
        let logit = |history: &[u16], code| case.logit(history, code);
        let expected = case.naive(&logit).all_lists();
        let found = case.run();
        assert_eq!(found.len(), expected.len());
        let by_codes: BTreeMap<&[u16], &State> =
            expected.iter().map(|state| (&state.codes[..], state)).collect();
        for found in &found {
            let state = by_codes[&found.codes[..]];
            assert_eq!(found.rows(), state.rows());
            assert!(close(found.list.score, state.score()));
        }
        // The probabilities of all lists, finished ones included, are those of one draw.
        let sum: f64 = found.iter().map(|found| found.list.score.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
        assert!(found.windows(2).all(|pair| pair[0].list.score >= pair[1].list.score));
        lists += found.len();
    }
    assert!(lists > 1000, "{lists}");
}

/// Ads for every full code, all with the same bid and reserve 0; organic items none.
fn grid(layers: usize, codebook: usize, copies: usize) -> Case {
    let config = config(layers, codebook);
    let ads = codebook.pow(layers as u32) * copies;
    let codes = (0..ads).flat_map(|ad| {
        (0..layers)
            .map(move |layer| (ad / copies / codebook.pow((layers - 1 - layer) as u32) % codebook) as u16)
    });
    let columns = Columns {
        ids: (0..ads as u64).map(|ad| 1000 + 7 * ad).collect(),
        kinds: vec![ItemKind::Ad; ads],
        codes: codes.collect(),
        bid_micros: vec![1_000_000; ads],
        reserve_micros: vec![0; ads],
        embeddings: vec![0.0; ads],
        creative_offsets: (0..=ads as u64).collect(),
        creative_ids: (0..ads as u64).collect(),
        creative_codes: vec![0; ads],
        ..Columns::default()
    };
    let rules = SearchRules {
        list_len: 1,
        beam_width: 1,
        policy: AdPolicy::default(),
        alpha: 1.0,
        beta: 1.0,
        aggregate: BidAggregate::Max,
        scope: BidScope::Prefix,
        tie_seed: 0,
        bid_unit: 1_000_000,
        code_layers: layers,
        codebook_size: codebook,
    };
    Case { config, columns, rules, candidates: None, organic: vec![], excluded: None, seed: 0, paired: false }
}

#[test]
fn ties_of_scores_go_to_the_lower_beam_then_to_the_lower_code() {
    for width in [1, 2, 3, 5, 9, 26, 27, 100] {
        let mut case = grid(3, 3, 1);
        case.rules.beam_width = width;
        let found = case.run_with(&|_, _| 0.25).unwrap();
        // With everything equal, that is the order of the codes.
        let rows: Vec<Vec<u32>> = found.iter().map(Found::rows).collect();
        let expected: Vec<Vec<u32>> = (0..width.min(27) as u32).map(|row| vec![row]).collect();
        assert_eq!(rows, expected, "{width} beams");
    }
}

#[test]
fn equal_bids_behind_one_code_win_in_turn() {
    for copies in [2, 3] {
        let mut case = grid(2, 2, copies);
        let mut wins = vec![0; copies];
        const SEEDS: u64 = 6000;
        for tie_seed in 0..SEEDS {
            case.rules.tie_seed = tie_seed;
            let row = case.run_with(&|_, code| -f32::from(code)).unwrap()[0].rows()[0] as usize;
            let hash = |row: &usize| naive::splitmix64(tie_seed ^ case.columns.ids[*row]);
            assert_eq!(Some(row), (0..copies).max_by_key(hash));
            wins[row] += 1;
        }
        let share = SEEDS as f64 / copies as f64;
        // Six standard deviations of a binomial.
        let slack = 6.0 * (share * (1.0 - 1.0 / copies as f64)).sqrt();
        assert!(wins.iter().all(|&won| (f64::from(won) - share).abs() < slack), "{wins:?}");
    }
    // A higher bid wins whatever the seed.
    let mut case = grid(2, 2, 2);
    case.columns.bid_micros[1] += 1;
    for tie_seed in 0..100 {
        case.rules.tie_seed = tie_seed;
        assert_eq!(case.run_with(&|_, code| -f32::from(code)).unwrap()[0].rows(), [1]);
    }
}

#[test]
fn a_logit_that_is_not_finite_counts_where_its_code_may_follow() {
    let mut rng = world::rng("a_logit_that_is_not_finite_counts_where_its_code_may_follow");
    let (mut refused, mut passed) = (0, 0);
    for _ in 0..500 {
        let case = case(&mut rng, &SMALL);
        let plain = |history: &[u16], code| case.logit(history, code);
        let naive = case.naive(&plain);
        let bad = pick(&mut rng, &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
        let expected = case.run();
        // Behind masked codes anything may stand. A weight of 0 masks too, but such a code has candidates.
        let on_masked = case.run_with(&|history, code| {
            let state = replay(&naive, history);
            let masked = naive.nothing_behind(&state, code);
            if masked { bad } else { plain(history, code) }
        });
        let same =
            on_masked.unwrap().iter().map(|found| (found.rows(), found.list.score)).collect::<Vec<_>>();
        assert_eq!(same, expected.iter().map(|found| (found.rows(), found.list.score)).collect::<Vec<_>>());
        passed += 1;
        // The first code of the best list is not masked.
        if let Some(&first) = expected[0].codes.first() {
            let error = case.run_with(&|history, code| {
                if history.is_empty() && code == first { bad } else { plain(history, code) }
            });
            assert_eq!(error.err().map(|error| error.kind), Some(RequestErrorKind::NotFinite));
            refused += 1;
        }
    }
    assert!(refused > 200 && passed > 200, "{refused} {passed}");
}

#[test]
fn no_bid_alpha_beta_or_logit_turns_into_nan() {
    let mut rng = world::rng("no_bid_alpha_beta_or_logit_turns_into_nan");
    for _ in 0..2000 {
        let mut case = case(&mut rng, &SMALL);
        case.rules.alpha = pick(&mut rng, &[0.0, 1e-300, 1.0, 15.9, 16.0]);
        case.rules.beta = pick(&mut rng, &[0.0, 5e-324, 1e-9, 1.0, 1e12]);
        case.rules.bid_unit = pick(&mut rng, &[1, 1_000_000, 1 << 43]);
        for (bid, reserve) in case.columns.bid_micros.iter_mut().zip(&mut case.columns.reserve_micros) {
            *bid = pick(&mut rng, &[0, 1, 2, 999_999, 1 << 42, (1 << 43) - 1, 1 << 43]);
            *reserve = 0;
        }
        let scale = pick(&mut rng, &[1.0, 100.0, 1e30, f32::MAX / 4.0]);
        let found = case.run_with(&|history, code| scale * case.logit(history, code)).unwrap();
        for found in &found {
            assert!(found.list.score.is_finite() && found.list.score <= 1e-9, "{}", found.list.score);
            for chosen in &found.list.items {
                assert!(chosen.ln_z.is_finite() && chosen.ln_z <= 1e-9 && chosen.ln_z.exp() >= 0.0);
            }
        }
        if scale == 1.0 {
            let sum: f64 = found.iter().map(|found| found.list.score.exp()).sum();
            assert!(sum <= 1.0 + 1e-9, "{sum}");
        }
    }
}

/// Two organic items and no ad: with beta 0 nothing weighs anything, with beta above 0 the order is fixed.
#[test]
fn without_weight_for_organic_items_lists_end_early() {
    let mut case = grid(2, 2, 1);
    case.columns.kinds[1..].fill(ItemKind::Organic);
    case.organic = vec![3, 1, 2];
    case.rules.list_len = 4;
    case.rules.beam_width = 50;
    case.rules.beta = 0.0;
    let found = case.run_with(&|_, _| 0.0).unwrap();
    // Only the ad weighs anything: one list, of the ad alone, with all the probability.
    assert_eq!(found.iter().map(Found::rows).collect::<Vec<_>>(), [vec![0]]);
    assert_eq!(found[0].list.score, 0.0);
    case.rules.beta = 1.0;
    case.rules.policy.max_ads = Some(0);
    let found = case.run_with(&|_, _| 0.0).unwrap();
    assert_eq!(found.iter().map(Found::rows).collect::<Vec<_>>(), [vec![3, 1, 2]]);
    // The ad may come before, between or after them; where it comes is what the lists differ in.
    case.rules.policy.max_ads = None;
    let found = case.run_with(&|_, _| 0.0).unwrap();
    let lists: BTreeSet<Vec<u32>> = found.iter().map(Found::rows).collect();
    let expected = [vec![0, 3, 1, 2], vec![3, 0, 1, 2], vec![3, 1, 0, 2], vec![3, 1, 2, 0]];
    assert_eq!(lists, BTreeSet::from(expected));
}
