//! Requests from histories: each holds one visit out and asks what to show before it.

use std::collections::HashSet;

use anyhow::ensure;
use serde::Serialize;

use super::checkins::{CheckIns, Moment, Position, Visit, WEATHER};
use super::select::RESIDENCE;
use super::world::World;
use crate::draw;

/// Context features of a request and their sizes.
pub const CONTEXT_FEATURES: [(&str, usize); 3] = [("hour", 24), ("weekday", 7), ("weather", WEATHER.len())];
/// Features of a past behaviour and their sizes.
pub const BEHAVIOR_FEATURES: [(&str, usize); 3] = [("action", 4), ("is_ad", 2), ("recency", 8)];

/// Candidates are the advertisers within this radius, grown until there are enough of them.
const FIRST_RADIUS_KM: f64 = 1.5;
const RADIUS_GROWTH: f64 = 1.5;
const FEWEST_CANDIDATES: usize = 50;
const MOST_CANDIDATES: usize = 2000;
const ORGANIC: usize = 20;
/// Upper ends of the first seven recency buckets, in seconds: an hour, six, a day, three, a week, four, twelve.
pub const RECENCY: [i64; 7] = [3600, 21_600, 86_400, 259_200, 604_800, 2_419_200, 7_257_600];

/// One request: the visit of a user that it holds out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ask {
    /// Index of the user.
    pub user: usize,
    /// Index of the visit held out; at least 1.
    pub target: usize,
}

/// Which visits to hold out: the last of each user first, then the ones before, user after user, up to `wanted`
/// or one per user.
///
/// # Errors
/// Where the histories make fewer requests than wanted.
pub fn plan(data: &CheckIns, wanted: Option<usize>) -> anyhow::Result<Vec<Ask>> {
    let wanted = wanted.unwrap_or(data.users.len());
    let longest = data.users.iter().map(Vec::len).max().unwrap_or(0);
    let asks = (1..longest).flat_map(|back| {
        let long_enough = move |(_, visits): &(usize, &Vec<Visit>)| visits.len() > back;
        let ask = move |(user, visits): (usize, &Vec<Visit>)| Ask { user, target: visits.len() - back };
        data.users.iter().enumerate().filter(long_enough).map(ask)
    });
    let plan: Vec<Ask> = asks.take(wanted).collect();
    ensure!(
        plan.len() == wanted,
        "--requests is {wanted}, expected at most the {} visits to hold out",
        plan.len()
    );
    Ok(plan)
}

/// Visits of each place, those held out by `plan` apart: what is to be guessed must not show in popularity.
pub fn popularity(data: &CheckIns, plan: &[Ask]) -> Vec<u32> {
    let held_out: HashSet<&Ask> = plan.iter().collect();
    let mut visits = vec![0; data.places.len()];
    for (user, history) in data.users.iter().enumerate() {
        for (target, visit) in history.iter().enumerate() {
            if !held_out.contains(&Ask { user, target }) {
                visits[visit.place] += 1;
            }
        }
    }
    visits
}

/// A request as `bidslate allocate` reads it.
#[derive(Debug, Serialize)]
pub struct Request {
    id: String,
    context: Context,
    history: Vec<Behavior>,
    candidates: Vec<u64>,
    organic: Vec<u64>,
    policy: Policy,
    tie_seed: u64,
}

#[derive(Debug, Serialize)]
struct Context {
    hour: i64,
    weekday: i64,
    weather: usize,
}

impl Context {
    fn of(visit: &Visit) -> Self {
        Self { hour: visit.at.hour(), weekday: visit.at.weekday(), weather: visit.weather }
    }
}

#[derive(Debug, Serialize)]
struct Behavior {
    item: u64,
    creative: u64,
    features: Features,
}

#[derive(Debug, Serialize)]
struct Features {
    action: usize,
    is_ad: u8,
    recency: usize,
}

#[derive(Debug, Serialize)]
struct Policy {
    max_ads: usize,
    min_gap: usize,
    first_ad_slot: usize,
}

/// The visit that a request holds out.
#[derive(Debug, Serialize)]
pub struct HeldOut {
    id: String,
    /// From 1.
    user: usize,
    /// Index among the user's visits.
    visit: usize,
    item: u64,
    creative: u64,
    kind: &'static str,
    /// Whether the request could have shown it: it is a candidate or organic.
    shown: bool,
}

/// A visit as it was, for training: unlike a request's history it tells when.
#[derive(Debug, Serialize)]
pub struct PastVisit {
    /// From 1.
    user: usize,
    /// Index among the user's visits.
    visit: usize,
    /// Since the first visit of all.
    second: i64,
    item: u64,
    creative: u64,
    features: PastFeatures,
    context: Context,
}

/// The behaviour features that do not depend on when a request is made.
#[derive(Debug, Serialize)]
struct PastFeatures {
    action: usize,
    is_ad: u8,
}

/// Makes requests of visits.
pub struct Maker<'a> {
    data: &'a CheckIns,
    world: &'a World,
    history: usize,
    seed: u64,
    /// Places, most popular first (ties: lower id), the order of organic items.
    by_popularity: Vec<usize>,
    /// In kilometres.
    positions: Vec<[f64; 2]>,
    /// When the first visit of all was.
    start: Moment,
}

impl<'a> Maker<'a> {
    /// A maker of requests with at most `history` behaviours.
    pub fn new(data: &'a CheckIns, world: &'a World, visits: &[u32], history: usize, seed: u64) -> Self {
        let mut by_popularity: Vec<usize> = (0..data.places.len()).collect();
        by_popularity.sort_by_key(|&p| (std::cmp::Reverse(visits[p]), world.items[p].id));
        let positions = data.places.iter().map(|place| Position::kilometres(place.position)).collect();
        let start = data.users.iter().flatten().map(|visit| visit.at).min().unwrap_or_default();
        Self { data, world, history, seed, by_popularity, positions, start }
    }

    /// The request before the visit of `ask`, and that visit.
    pub fn make(&self, ask: Ask) -> (Request, HeldOut) {
        let visits = &self.data.users[ask.user];
        let (target, last) = (visits[ask.target], visits[ask.target - 1]);
        let id = format!("user-{}-{}", ask.user + 1, visits.len() - ask.target);
        let (candidates, organic) = self.nearby(last.place);
        let item = &self.world.items[target.place];
        let held_out = HeldOut {
            id: id.clone(),
            user: ask.user + 1,
            visit: ask.target,
            item: item.id,
            creative: self.world.creative_shown(ask.user, ask.target, target.place),
            kind: if item.ad.is_some() { "ad" } else { "organic" },
            shown: candidates.binary_search(&item.id).is_ok() || organic.contains(&item.id),
        };
        let request = Request {
            context: Context::of(&target),
            history: self.behaviors(ask),
            candidates,
            organic,
            policy: Policy { max_ads: 4, min_gap: 1, first_ad_slot: 1 },
            // 53 bits, so that JSON readers that know only doubles carry it unharmed.
            tie_seed: draw::stream(self.seed, "tie seed", &id).integer(0, (1 << 53) - 1),
            id,
        };
        (request, held_out)
    }

    /// Every visit of `user`, in time order.
    pub fn visits(&self, user: usize) -> impl Iterator<Item = PastVisit> + '_ {
        let visits = &self.data.users[user];
        visits.iter().enumerate().map(move |(i, visit)| PastVisit {
            user: user + 1,
            visit: i,
            second: visit.at.seconds_since(self.start),
            item: self.world.items[visit.place].id,
            creative: self.world.creative_shown(user, i, visit.place),
            features: PastFeatures {
                action: action(&visits[..i], visit.place),
                is_ad: u8::from(self.world.came_by_ad(user, i, visit.place)),
            },
            context: Context::of(visit),
        })
    }

    fn behaviors(&self, ask: Ask) -> Vec<Behavior> {
        let visits = &self.data.users[ask.user];
        let first = ask.target.saturating_sub(self.history);
        (first..ask.target).map(|i| self.behavior(ask, visits, i)).collect()
    }

    fn behavior(&self, ask: Ask, visits: &[Visit], i: usize) -> Behavior {
        let visit = visits[i];
        let age = visits[ask.target].at.seconds_since(visit.at);
        Behavior {
            item: self.world.items[visit.place].id,
            creative: self.world.creative_shown(ask.user, i, visit.place),
            features: Features {
                action: action(&visits[..i], visit.place),
                is_ad: u8::from(self.world.came_by_ad(ask.user, i, visit.place)),
                recency: RECENCY.iter().position(|&end| age < end).unwrap_or(RECENCY.len()),
            },
        }
    }

    /// Ids of the advertisers (ascending) and of the popular organic items (in their order) around a place.
    fn nearby(&self, place: usize) -> (Vec<u64>, Vec<u64>) {
        let mut ads = Vec::new();
        let mut others = Vec::new();
        for &other in &self.by_popularity {
            let distance = self.distance(place, other);
            if self.world.items[other].ad.is_some() {
                ads.push((distance, other));
            } else if self.data.places[other].root != RESIDENCE {
                others.push((distance, other));
            }
        }
        ads.sort_by(|a, b| a.0.total_cmp(&b.0));
        let wanted_ads = FEWEST_CANDIDATES.min(ads.len());
        let wanted_others = ORGANIC.min(others.len());
        let mut radius = FIRST_RADIUS_KM;
        let within = |list: &[(f64, usize)], radius: f64| list.iter().filter(|(d, _)| *d <= radius).count();
        while within(&ads, radius) < wanted_ads || within(&others, radius) < wanted_others {
            radius *= RADIUS_GROWTH;
        }
        let id = |&(_, place): &(f64, usize)| self.world.items[place].id;
        let mut candidates: Vec<u64> =
            ads.iter().take_while(|(d, _)| *d <= radius).take(MOST_CANDIDATES).map(id).collect();
        candidates.sort_unstable();
        (candidates, others.iter().filter(|(d, _)| *d <= radius).take(ORGANIC).map(id).collect())
    }

    fn distance(&self, a: usize, b: usize) -> f64 {
        let (a, b) = (self.positions[a], self.positions[b]);
        libm::hypot(a[0] - b[0], a[1] - b[1])
    }
}

/// 0: the user's first visit to the place; 1: its second to fourth; 2: a later one; 3: the place of the visit
/// just before.
fn action(before: &[Visit], place: usize) -> usize {
    if before.last().is_some_and(|last| last.place == place) {
        return 3;
    }
    match before.iter().filter(|visit| visit.place == place).count() {
        0 => 0,
        1..=3 => 1,
        _ => 2,
    }
}
