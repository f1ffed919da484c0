//! What no public data holds, made up by rule: who advertises, bids, reserves, creatives, embeddings, tastes.
//!
//! Nothing here is measured; `docs/data.md` states every rule and number.

use super::checkins::{CheckIns, Place};
use super::select::RESIDENCE;
use crate::draw::{self, Stream};

mod features;

pub use features::EMBEDDING;

/// Width of the space of styles and tastes.
const STYLE: usize = 6;
/// One place in this many advertises.
const PLACES_PER_AD: usize = 4;
/// Median bid, in currency units.
const MEDIAN_BID: f64 = 1.5;
/// Spread of the log of a bid around its expectation.
const BID_SIGMA: f64 = 0.8;
/// Log-bid per price tier above 2 and per standard deviation of the category's log-demand.
const BID_PER_TIER: f64 = 0.25;
const BID_PER_DEMAND: f64 = 0.3;
/// Reserve over expected bid: one ad in fifty bids below it.
const RESERVE_SHARE: f64 = 0.2;
/// Bids and reserves are whole cents.
const CENT_MICROS: f64 = 10_000.0;
const MOST_CREATIVES: u64 = 6;
/// Size of a creative's style vector beside the place's own vector of size about 1.
const STYLE_SCALE: f64 = 0.8;

/// The catalog, index for index beside the places it was made of.
pub struct World {
    /// One item per place.
    pub items: Vec<Item>,
    seed: u64,
}

/// An item of the catalog.
pub struct Item {
    /// Dense from 1, shuffled: it says nothing about the place.
    pub id: u64,
    /// Set if the place advertises.
    pub ad: Option<Ad>,
    /// Of width [`EMBEDDING`].
    pub embedding: [f64; EMBEDDING],
    /// 1 to 6.
    pub creatives: Vec<Creative>,
}

/// What an advertising place bids.
pub struct Ad {
    /// Bid a click.
    pub bid_micros: u64,
    /// Least it may pay a click.
    pub reserve_micros: u64,
    /// Its owner, of one place or a few of one category.
    pub advertiser: u64,
}

/// A way of showing an item.
pub struct Creative {
    /// Dense from 1 over the catalog.
    pub id: u64,
    /// The item's embedding plus the style's.
    pub embedding: [f64; EMBEDDING],
    style: [f64; STYLE],
}

impl World {
    /// The world of these places; `visits` counts how often each was visited.
    pub fn make(data: &CheckIns, visits: &[u32], seed: u64) -> Self {
        let ids: Vec<u64> =
            draw::shuffled(seed, "item ids", data.places.len()).into_iter().map(|i| i as u64 + 1).collect();
        let embeddings = features::embed(&data.places, visits, &ids, seed);
        let mut ads = ads(&data.places, visits, &ids, seed);
        let mut items: Vec<Item> = ids
            .iter()
            .zip(embeddings)
            .enumerate()
            .map(|(place, (&id, embedding))| Item {
                id,
                ad: ads[place].take(),
                embedding,
                creatives: creatives(id, &embedding, seed),
            })
            .collect();
        let mut by_id: Vec<&mut Item> = items.iter_mut().collect();
        by_id.sort_by_key(|item| item.id);
        let all = by_id.into_iter().flat_map(|item| &mut item.creatives);
        for (creative, id) in all.zip(1..) {
            creative.id = id;
        }
        Self { items, seed }
    }

    /// The creative of `place` that `user` was shown at their visit number `visit`: tastes are fixed points of
    /// the space of styles, and a draw from the softmax of their inner products decides.
    pub fn creative_shown(&self, user: usize, visit: usize, place: usize) -> u64 {
        let taste: [f64; STYLE] = draw::stream(self.seed, "taste", &user.to_string()).normals();
        let mut noise = draw::stream(self.seed, "creative shown", &format!("{user} {visit}"));
        let mut best = (f64::NEG_INFINITY, 0);
        for creative in &self.items[place].creatives {
            let liking: f64 = taste.iter().zip(&creative.style).map(|(t, s)| t * s).sum();
            let score = liking + noise.gumbel();
            if score > best.0 {
                best = (score, creative.id);
            }
        }
        best.1
    }

    /// Whether `user` came to `place` at visit number `visit` through its ad: three in ten do, where it has one.
    pub fn came_by_ad(&self, user: usize, visit: usize, place: usize) -> bool {
        self.items[place].ad.is_some()
            && draw::stream(self.seed, "came by ad", &format!("{user} {visit}")).uniform() < 0.3
    }
}

/// The style's direction in embedding space.
fn style_vector(style: &[f64; STYLE], seed: u64) -> [f64; EMBEDDING] {
    let mut out = [0.0; EMBEDDING];
    for (dimension, amount) in style.iter().enumerate() {
        let axis = features::direction(&mut draw::stream(seed, "style axis", &dimension.to_string()));
        features::add(&mut out, amount * STYLE_SCALE / libm::sqrt(STYLE as f64), &axis);
    }
    out
}

fn creatives(item: u64, embedding: &[f64; EMBEDDING], seed: u64) -> Vec<Creative> {
    let mut draws = draw::stream(seed, "creatives", &item.to_string());
    let count = draws.integer(1, MOST_CREATIVES);
    let make = |_| {
        let style = draws.normals();
        let mut embedding = *embedding;
        features::add(&mut embedding, 1.0, &style_vector(&style, seed));
        Creative { id: 0, embedding, style }
    };
    (0..count).map(make).collect()
}

/// The ad of each place, where it has one.
fn ads(places: &[Place], visits: &[u32], ids: &[u64], seed: u64) -> Vec<Option<Ad>> {
    let advertising = advertising(places, seed);
    let expected = expected_log_bids(places, visits, &advertising);
    let owners = owners(places, ids, &advertising, seed);
    let mut ads: Vec<Option<Ad>> = places.iter().map(|_| None).collect();
    for ((&place, mu), advertiser) in advertising.iter().zip(expected).zip(owners) {
        let mut draws = draw::stream(seed, "bid", &ids[place].to_string());
        ads[place] = Some(Ad {
            bid_micros: cents(libm::exp(mu + BID_SIGMA * draws.normal())),
            reserve_micros: cents(RESERVE_SHARE * libm::exp(mu)),
            advertiser,
        });
    }
    ads
}

fn cents(amount: f64) -> u64 {
    ((amount * 1e6 / CENT_MICROS).round().max(1.0) * CENT_MICROS) as u64
}

/// The places that advertise: one in [`PLACES_PER_AD`] of all, drawn from those that are no residences.
fn advertising(places: &[Place], seed: u64) -> Vec<usize> {
    let order = draw::shuffled(seed, "who advertises", places.len());
    let count = places.len().div_ceil(PLACES_PER_AD);
    let mut chosen: Vec<usize> =
        order.into_iter().filter(|&p| places[p].root != RESIDENCE).take(count).collect();
    chosen.sort_unstable();
    chosen
}

/// mu of each advertising place: dearer places and categories in demand bid more; the median place bids
/// [`MEDIAN_BID`].
fn expected_log_bids(places: &[Place], visits: &[u32], advertising: &[usize]) -> Vec<f64> {
    let mut demand = std::collections::HashMap::<&str, f64>::new();
    for (place, &n) in places.iter().zip(visits) {
        *demand.entry(&place.category).or_default() += f64::from(n);
    }
    let demand: Vec<f64> =
        advertising.iter().map(|&p| libm::log1p(demand[places[p].category.as_str()])).collect();
    let demand = features::standardized(&demand);
    let level: Vec<f64> = advertising
        .iter()
        .zip(demand)
        .map(|(&p, demand)| {
            BID_PER_TIER * places[p].price_tier.map_or(0.0, |tier| f64::from(tier) - 2.0)
                + BID_PER_DEMAND * demand
        })
        .collect();
    let mut sorted = level.clone();
    sorted.sort_by(f64::total_cmp);
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
    level.into_iter().map(|level| libm::log(MEDIAN_BID) + level - median).collect()
}

/// The advertiser of each advertising place: four in five own one place, the others two to five of a category.
fn owners(places: &[Place], ids: &[u64], advertising: &[usize], seed: u64) -> Vec<u64> {
    let mut order: Vec<usize> = (0..advertising.len()).collect();
    order.sort_by_key(|&i| (&places[advertising[i]].category, ids[advertising[i]]));
    let mut owners = vec![0; advertising.len()];
    let mut draws = draw::stream(seed, "owners", "");
    let (mut owner, mut left, mut category) = (0, 0, "");
    for i in order {
        let this = places[advertising[i]].category.as_str();
        if left == 0 || this != category {
            owner += 1;
            left = chain(&mut draws);
            category = this;
        }
        owners[i] = owner;
        left -= 1;
    }
    owners
}

fn chain(draws: &mut Stream) -> u64 {
    if draws.uniform() < 0.8 { 1 } else { draws.integer(2, 5) }
}

#[cfg(test)]
mod tests {
    use super::super::checkins::Position;
    use super::*;

    /// Places of ten categories on a grid of about 100 m, the first category dear, the last residences.
    fn places(n: usize) -> CheckIns {
        let place = |i: usize| Place {
            category: format!("category {}", i % 10),
            root: if i % 10 == 9 { RESIDENCE.to_owned() } else { format!("root {}", i % 3) },
            price_tier: i.is_multiple_of(10).then_some(4),
            rating: None,
            position: Position { lat: 40.7 + 0.001 * (i / 60) as f64, lon: -74.0 + 0.001 * (i % 60) as f64 },
        };
        CheckIns { places: (0..n).map(place).collect(), users: Vec::new() }
    }

    #[test]
    fn bids_are_log_normal_around_the_median() {
        let data = places(8000);
        let world = World::make(&data, &vec![3; 8000], 1);
        let bids = |dear: bool| -> Vec<f64> {
            let of_kind =
                world.items.iter().zip(&data.places).filter(|(_, p)| p.price_tier.is_some() == dear);
            let mut logs: Vec<f64> = of_kind
                .filter_map(|(item, _)| item.ad.as_ref())
                .map(|ad| (ad.bid_micros as f64 / 1e6).ln())
                .collect();
            logs.sort_by(f64::total_cmp);
            logs
        };
        let (cheap, dear) = (bids(false), bids(true));
        assert_eq!(cheap.len() + dear.len(), 2000);
        let median = |logs: &[f64]| logs[logs.len() / 2];
        assert!((median(&cheap) - MEDIAN_BID.ln()).abs() < 0.08, "{}", median(&cheap));
        assert!((median(&dear) - median(&cheap) - 2.0 * BID_PER_TIER).abs() < 0.2, "{}", median(&dear));
        let mean = cheap.iter().sum::<f64>() / cheap.len() as f64;
        let variance = cheap.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / cheap.len() as f64;
        assert!((variance.sqrt() - BID_SIGMA).abs() < 0.05, "{variance}");
        let below =
            world.items.iter().filter_map(|i| i.ad.as_ref()).filter(|a| a.bid_micros < a.reserve_micros);
        assert!((20..80).contains(&below.count()), "one ad in fifty bids below its reserve");
    }

    #[test]
    fn likeness_falls_with_distance() {
        let data = places(3000);
        let world = World::make(&data, &vec![1; 3000], 1);
        let likeness = |a: usize, b: usize| -> f64 {
            let (a, b) = (&world.items[a].embedding, &world.items[b].embedding);
            let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
            dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
        };
        // Steps of 60 and 1800 keep category and root: 0.1 and 3.3 km apart. A step of 61 changes both.
        let mean = |step: usize| (0..1000).map(|i| likeness(i, i + step)).sum::<f64>() / 1000.0;
        let (near, far, other) = (mean(60), mean(1800), mean(61));
        assert!(near > far + 0.05, "{near} {far}");
        assert!(near > other + 0.2, "{near} {other}");
    }

    #[test]
    fn users_have_tastes() {
        let data = places(100);
        let world = World::make(&data, &[1; 100], 1);
        let place = (0..100).find(|&p| world.items[p].creatives.len() == 6).unwrap();
        // The share of a user's most frequent creative, over users: one in six by chance.
        let share = |user| {
            let mut shown = std::collections::HashMap::<u64, usize>::new();
            for visit in 0..60 {
                *shown.entry(world.creative_shown(user, visit, place)).or_default() += 1;
            }
            let own: Vec<u64> = world.items[place].creatives.iter().map(|c| c.id).collect();
            assert!(shown.keys().all(|id| own.contains(id)));
            *shown.values().max().unwrap() as f64 / 60.0
        };
        let mean = (0..50).map(share).sum::<f64>() / 50.0;
        assert!(mean > 0.5, "{mean}");
    }

    #[test]
    fn advertisers_own_places_of_one_category() {
        let data = places(2000);
        let world = World::make(&data, &vec![1; 2000], 1);
        let mut owned = std::collections::HashMap::<u64, Vec<usize>>::new();
        for (place, item) in world.items.iter().enumerate() {
            if let Some(ad) = &item.ad {
                owned.entry(ad.advertiser).or_default().push(place);
            }
        }
        assert!(owned.values().any(|places| places.len() > 1));
        for places in owned.values() {
            assert!(places.len() <= 5);
            assert!(places.iter().all(|&p| data.places[p].category == data.places[places[0]].category));
        }
    }
}
