//! Beam search weighted by bids token by token (Eq. 21-23), over the codes that lead to eligible items only.
//!
//! The search knows nothing of the model: each step it names the rows that the decoder must run, and takes their
//! logits. Scores are f64; ties go to the lower beam, then to the lower code.

use super::bidding::{BidWeight, splitmix64};
use super::candidates::Ads;
use super::expand::{Child, Expander, Prefix};
use crate::catalog::Snapshot;
use crate::cpu::Exec;
use crate::cpu::exec::part;
use crate::error::{RequestError, RequestErrorKind};
use crate::request::{AdPolicy, BidAggregate, BidScope};

/// The rules of one search.
#[derive(Debug, Clone)]
pub struct SearchRules {
    /// Slots to fill, L.
    pub list_len: usize,
    /// Beams to keep, N_S.
    pub beam_width: usize,
    /// Where ads may stand.
    pub policy: AdPolicy,
    /// Exponent of bids.
    pub alpha: f64,
    /// Weight of organic content.
    pub beta: f64,
    /// How the bids behind a code become its bid.
    pub aggregate: BidAggregate,
    /// Which items are behind a code.
    pub scope: BidScope,
    /// Seed of the tie-breaking hash.
    pub tie_seed: u64,
    /// Micros in one bid unit.
    pub bid_unit: u64,
    /// C_p.
    pub code_layers: usize,
    /// W.
    pub codebook_size: usize,
}

/// An item in a list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chosen {
    /// Row of the item in the snapshot.
    pub item: u32,
    /// Position among the request's ads; none for an organic item.
    pub position: Option<u32>,
    /// ln z of the item: the sum of ln z over its codes.
    pub ln_z: f64,
}

/// A candidate list.
#[derive(Debug, Clone, PartialEq)]
pub struct CandidateList {
    /// Its items, slot by slot.
    pub items: Vec<Chosen>,
    /// Sum of ln z, over dropped part-built items too.
    pub score: f64,
    /// The decoder row that ran this list's prefix at each position.
    pub path: Vec<u32>,
}

/// A row that the decoder must run: the beam's last code (none at position 0) and, for every earlier position,
/// the row that ran its prefix there.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The code chosen last.
    pub last_code: Option<u16>,
    /// Rows of the earlier positions, oldest first.
    pub path: &'a [u32],
}

#[derive(Debug, Clone, Default)]
pub(super) struct Beam {
    score: f64,
    /// Sum of ln z of the item being built.
    item_ln_z: f64,
    pub prefix: Prefix,
    last_code: Option<u16>,
    items: Vec<Chosen>,
    path: Vec<u32>,
    ads: usize,
    last_ad: Option<usize>,
    organics: usize,
    finished: bool,
}

impl Beam {
    /// An empty beam that will not have to grow.
    fn with_room_for(rules: &SearchRules) -> Self {
        Self {
            items: Vec::with_capacity(rules.list_len),
            path: Vec::with_capacity(rules.list_len * rules.code_layers + 1),
            ..Self::default()
        }
    }

    /// The positions of ads that the beam may not show (again), sorted, into `out`.
    fn used(&self, excluded: Option<u32>, out: &mut Vec<u32>) {
        out.clear();
        out.extend(self.items.iter().filter_map(|chosen| chosen.position).chain(excluded));
        out.sort_unstable();
    }

    /// Becomes a copy of `other` in the memory it has.
    fn copy(&mut self, other: &Self) {
        let mut items = std::mem::take(&mut self.items);
        let mut path = std::mem::take(&mut self.path);
        items.clone_from(&other.items);
        path.clone_from(&other.path);
        *self = Self { prefix: other.prefix.clone(), items, path, ..*other };
    }
}

/// A way on: code `code` (-1: the beam is finished) of beam `beam`.
#[derive(Debug, Clone)]
struct Continuation {
    score: f64,
    ln_z: f64,
    beam: u32,
    code: i32,
    prefix: Prefix,
}

/// About what it costs to weigh a code, in the operations of a product.
const OPERATIONS_PER_CODE: usize = 1 << 9;

/// A beam search in progress.
pub struct Search<'a> {
    rules: &'a SearchRules,
    snapshot: &'a Snapshot,
    ads: &'a Ads<'a>,
    organic: &'a [u32],
    excluded: Option<u32>,
    expander: Expander<'a>,
    step: usize,
    beams: Vec<Beam>,
    spare: Vec<Beam>,
    room: Room,
}

/// Room to find the ways on. It keeps nothing between steps, so that searches that take turns may share it.
#[derive(Default)]
pub struct Room {
    continuations: Vec<Continuation>,
    /// One for each part of the beams that is expanded side by side.
    frontiers: Vec<Frontier>,
}

/// The ways on from a part of the beams, and room to find them.
#[derive(Default)]
struct Frontier {
    continuations: Vec<Continuation>,
    fault: Option<RequestError>,
    codes: Codes,
}

/// The codes that may follow a beam.
#[derive(Default)]
pub(super) struct Codes {
    pub children: Vec<Child>,
    /// Logit + ln w of each.
    pub scores: Vec<f64>,
    used: Vec<u32>,
}

impl<'a> Search<'a> {
    /// A search for lists of `ads` and `organic` items (rows of the snapshot, in their fixed order), starting
    /// from one empty beam. `excluded` is an ad, by position, that no list may show.
    pub fn new(
        rules: &'a SearchRules,
        snapshot: &'a Snapshot,
        ads: &'a Ads<'a>,
        organic: &'a [u32],
        excluded: Option<u32>,
    ) -> Self {
        let expander = Expander::new(
            snapshot,
            ads,
            organic,
            rules.scope,
            rules.aggregate,
            BidWeight::new(rules.alpha, rules.beta),
            rules.bid_unit as f64,
            excluded,
            (rules.code_layers, rules.codebook_size),
        );
        Self::from_the_start(Self {
            rules,
            snapshot,
            ads,
            organic,
            excluded,
            expander,
            step: 0,
            beams: Vec::new(),
            spare: Vec::new(),
            room: Room::default(),
        })
    }

    /// The search for lists of `ads`, which are this one's but for the bid of the one at position `p`; from the start,
    /// however far this one has come.
    pub fn with_bid(&self, ads: &'a Ads<'a>, p: usize) -> Self {
        Self::from_the_start(Self {
            ads,
            expander: self.expander.with_bid(ads, p),
            beams: Vec::new(),
            spare: Vec::new(),
            room: Room::default(),
            step: 0,
            ..*self
        })
    }

    /// Opens the one empty beam of a search that has none.
    fn from_the_start(mut search: Self) -> Self {
        let mut beam = Beam::with_room_for(search.rules);
        search.open_slot(&mut beam);
        search.beams.push(beam);
        search.enter_rows();
        search
    }

    /// Exchanges the room it works in.
    pub fn swap_room(&mut self, room: &mut Room) {
        std::mem::swap(&mut self.room, room);
    }

    /// Steps taken so far: the position that the rows must be run at.
    pub fn step(&self) -> usize {
        self.step
    }

    /// Whether no row is left to be expanded.
    pub fn is_over(&self) -> bool {
        self.step == self.rules.list_len * self.rules.code_layers || self.beams.iter().all(|b| b.finished)
    }

    /// The rows to run at this position, in the order of their beams.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> + Clone {
        let step = self.step;
        self.beams
            .iter()
            .filter(|b| !b.finished)
            .map(move |b| Row { last_code: b.last_code, path: &b.path[..step] })
    }

    /// Takes the logits of the rows, [rows, W], and keeps the best beams of all continuations.
    ///
    /// # Errors
    /// [`RequestErrorKind::NotFinite`] where the logit of a code that may follow is not finite.
    pub fn advance(&mut self, exec: Exec, logits: &[f32]) -> Result<(), RequestError> {
        let width = self.rules.codebook_size;
        self.advance_by(exec, |row| logits.get(row * width..(row + 1) * width).unwrap_or_default())
    }

    /// [`Search::advance`] with the logits `[W]` of each row, wherever they lie.
    ///
    /// # Errors
    /// As there.
    pub fn advance_by<'l>(
        &mut self,
        exec: Exec,
        logits: impl Fn(usize) -> &'l [f32] + Sync,
    ) -> Result<(), RequestError> {
        let mut room = std::mem::take(&mut self.room);
        let expanded = self.expand(exec, &logits, &mut room);
        if expanded.is_ok() {
            keep_best(&mut room.continuations, self.rules.beam_width);
            self.take(&room.continuations);
        }
        self.room = room;
        expanded
    }

    /// Goes on with these continuations.
    fn take(&mut self, continuations: &[Continuation]) {
        let mut next = std::mem::take(&mut self.spare);
        next.resize_with(continuations.len(), || Beam::with_room_for(self.rules));
        for (beam, continuation) in next.iter_mut().zip(continuations) {
            self.follow(continuation, beam);
        }
        self.spare = std::mem::replace(&mut self.beams, next);
        self.step += 1;
        self.enter_rows();
    }

    /// The candidate lists, best beam first.
    pub fn into_lists(self) -> Vec<CandidateList> {
        self.beams
            .into_iter()
            .map(|b| CandidateList { items: b.items, score: b.score, path: b.path })
            .collect()
    }

    /// The codes `[C_p]` of an item.
    pub(super) fn codes_of(&self, item: u32) -> &[u16] {
        self.snapshot.codes(item)
    }

    fn layer(&self) -> usize {
        self.step % self.rules.code_layers
    }

    /// Notes in every unfinished beam's path which row will run it at this position.
    fn enter_rows(&mut self) {
        for (row, beam) in self.beams.iter_mut().filter(|b| !b.finished).enumerate() {
            beam.path.push(row as u32);
        }
    }

    /// Begins the next slot of a beam: nothing of an item is built yet.
    pub(super) fn open_slot(&self, beam: &mut Beam) {
        let slot = beam.items.len();
        let policy = &self.rules.policy;
        let allowed = policy.max_ads.is_none_or(|most| beam.ads < most)
            && slot >= policy.first_ad_slot
            && beam.last_ad.is_none_or(|last| slot - last > policy.min_gap);
        let ads = if allowed { self.ads.len() as u32 } else { 0 };
        beam.prefix = Prefix { ads: 0..ads, organic: beam.organics < self.organic.len() };
        beam.item_ln_z = 0.0;
    }

    /// Gathers the continuations of all beams, or at least the best of them. Which part of the beams a thread takes
    /// does not show in the result: the order of continuations is total.
    fn expand<'l>(
        &self,
        exec: Exec,
        logits: &(impl Fn(usize) -> &'l [f32] + Sync),
        room: &mut Room,
    ) -> Result<(), RequestError> {
        let Room { continuations, frontiers } = room;
        let open = self.beams.iter().filter(|beam| !beam.finished).count();
        let pieces = exec.pieces(open * self.rules.codebook_size * OPERATIONS_PER_CODE);
        frontiers.resize_with(pieces.max(frontiers.len()), Frontier::default);
        exec.each_with(&mut frontiers[..pieces], |piece, frontier| {
            frontier.continuations.clear();
            let beams = part(self.beams.len(), pieces, piece);
            frontier.fault = beams.into_iter().find_map(|q| self.expand_beam(q, logits, frontier).err());
            keep_best(&mut frontier.continuations, self.rules.beam_width);
        });
        continuations.clear();
        let mut fault = None;
        for frontier in &mut frontiers[..pieces] {
            continuations.append(&mut frontier.continuations);
            fault = fault.or(frontier.fault.take());
        }
        fault.map_or(Ok(()), Err)
    }

    /// Adds the continuations of beam `q`.
    fn expand_beam<'l>(
        &self,
        q: usize,
        logits: impl Fn(usize) -> &'l [f32],
        frontier: &mut Frontier,
    ) -> Result<(), RequestError> {
        let beam = &self.beams[q];
        let finished = Continuation {
            score: beam.score,
            ln_z: 0.0,
            beam: q as u32,
            code: -1,
            prefix: Prefix::default(),
        };
        let Frontier { continuations, codes, .. } = frontier;
        if beam.finished {
            continuations.push(finished);
            return Ok(());
        }
        let log_sum = self.weigh_codes(beam, self.step, logits(beam.path[self.step] as usize), codes)?;
        if log_sum == f64::NEG_INFINITY {
            continuations.push(finished);
            return Ok(());
        }
        let score = beam.score;
        let ways = codes.children.iter().zip(&codes.scores).filter(|(_, x)| **x > f64::NEG_INFINITY);
        continuations.extend(ways.map(|(child, x)| {
            let ln_z = x - log_sum;
            Continuation {
                score: score + ln_z,
                ln_z,
                beam: q as u32,
                code: i32::from(child.code),
                prefix: child.prefix(),
            }
        }));
        Ok(())
    }

    /// The codes that may follow `beam` at `step`, where its row has these logits `[W]`, into `codes`. Returns ln of
    /// the sum of w e^logit over them; -infinity where all are masked.
    pub(super) fn weigh_codes(
        &self,
        beam: &Beam,
        step: usize,
        logits: &[f32],
        codes: &mut Codes,
    ) -> Result<f64, RequestError> {
        let Codes { children, scores, used } = codes;
        beam.used(self.excluded, used);
        let organic = self.organic.get(beam.organics).copied();
        let layer = step % self.rules.code_layers;
        self.expander.expand(&beam.prefix, layer, used, organic, children, scores);
        // From here on `scores` holds logit + ln w.
        for (x, child) in scores.iter_mut().zip(children.iter()) {
            let logit = logits[usize::from(child.code)];
            if !logit.is_finite() {
                return Err(RequestError::new(
                    RequestErrorKind::NotFinite,
                    "history",
                    format!("the logit of code {} at position {step} is {logit}", child.code),
                ));
            }
            *x += f64::from(logit);
        }
        Ok(log_sum_exp(scores))
    }

    /// Makes `beam` the one that a continuation leads to.
    fn follow(&self, continuation: &Continuation, beam: &mut Beam) {
        beam.copy(&self.beams[continuation.beam as usize]);
        beam.score = continuation.score;
        let Ok(code) = u16::try_from(continuation.code) else {
            beam.finished = true;
            return;
        };
        beam.last_code = Some(code);
        beam.item_ln_z += continuation.ln_z;
        beam.prefix = continuation.prefix.clone();
        if self.layer() + 1 == self.rules.code_layers {
            self.close_item(beam);
        }
    }

    /// Chooses the item behind a beam's full code, and opens the next slot.
    fn close_item(&self, beam: &mut Beam) {
        let (item, position) = self.best_item(beam);
        self.show(beam, Chosen { item, position, ln_z: beam.item_ln_z });
    }

    /// Puts an item into the open slot of a beam, and opens the next.
    pub(super) fn show(&self, beam: &mut Beam, chosen: Chosen) {
        match chosen.position {
            Some(_) => {
                beam.ads += 1;
                beam.last_ad = Some(beam.items.len());
            }
            None => beam.organics += 1,
        }
        beam.items.push(chosen);
        self.open_slot(beam);
    }

    /// The item with the highest bid behind the beam's full code; of equal bids the one with the higher hash.
    fn best_item(&self, beam: &Beam) -> (u32, Option<u32>) {
        let hash = |item: u32| splitmix64(self.rules.tie_seed ^ self.snapshot.id(item));
        let organic = self.organic.get(beam.organics).filter(|_| beam.prefix.organic);
        let mut best = organic.map(|&item| (0, hash(item), item, None));
        let mut used = Vec::new();
        beam.used(self.excluded, &mut used);
        let range = beam.prefix.ads.start as usize..beam.prefix.ads.end as usize;
        if let Some(bid) = self.ads.aggregate_without(range.clone(), &used).max {
            self.ads.for_each_with_bid(range, bid, &mut |p| {
                let item = self.ads.item(p);
                let rival = (bid.0, hash(item), item, Some(p as u32));
                if used.binary_search(&(p as u32)).is_err()
                    && best.is_none_or(|b| (b.0, b.1) < (rival.0, rival.1))
                {
                    best = Some(rival);
                }
            });
        }
        // A code is only ever kept with an item behind it, so there is a best one.
        best.map_or((u32::MAX, None), |b| (b.2, b.3))
    }
}

/// Leaves the `width` best continuations, best first.
fn keep_best(continuations: &mut Vec<Continuation>, width: usize) {
    let order = |a: &Continuation, b: &Continuation| {
        b.score.total_cmp(&a.score).then(a.beam.cmp(&b.beam)).then(a.code.cmp(&b.code))
    };
    if continuations.len() > width {
        continuations.select_nth_unstable_by(width, order);
        continuations.truncate(width);
    }
    continuations.sort_unstable_by(order);
}

/// ln of the sum of e^x; -infinity where every x is, or there is none.
///
/// The terms are added as fixed-point numbers, 46 bits after the point in one word and 46 more in another: their order
/// does not matter, so that a device may add them in any and come to the same bits.
fn log_sum_exp(xs: &[f64]) -> f64 {
    const ONE: f64 = (1i64 << 46) as f64;
    let max = xs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if max == f64::NEG_INFINITY {
        return max;
    }
    let (mut high, mut low) = (0i64, 0i64);
    for x in xs {
        let scaled = libm::exp(x - max) * ONE;
        let whole = scaled as i64;
        high += whole;
        low += ((scaled - whole as f64) * ONE) as i64;
    }
    let whole = (high + (low >> 46)) as f64;
    let rest = (low & ((1 << 46) - 1)) as f64;
    max + libm::log((whole + rest / ONE) / ONE)
}
