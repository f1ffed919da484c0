//! Embeddings of places by rule: facts along random directions of one space.

use super::super::checkins::Place;
use crate::draw::{self, Stream};

/// Width of every embedding.
pub const EMBEDDING: usize = 64;

/// Random Fourier features of a position, and the length over which they lose half of their likeness.
const WAVES: usize = 16;
const LENGTH_KM: f64 = 3.0;

const CATEGORY: f64 = 0.6;
const ROOT: f64 = 0.5;
const PRICE: f64 = 0.3;
const RATING: f64 = 0.2;
const POPULARITY: f64 = 0.3;
const LOCATION: f64 = 0.5;
const OWN: f64 = 0.3;

/// A random direction of length about 1.
pub fn direction(draws: &mut Stream) -> [f64; EMBEDDING] {
    draws.normals::<EMBEDDING>().map(|x| x / libm::sqrt(EMBEDDING as f64))
}

/// `to += amount * vector`.
pub fn add(to: &mut [f64; EMBEDDING], amount: f64, vector: &[f64; EMBEDDING]) {
    for (t, v) in to.iter_mut().zip(vector) {
        *t += amount * v;
    }
}

/// Mean 0 and variance 1, or all 0 where all are equal.
pub fn standardized(values: &[f64]) -> Vec<f64> {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    let deviation = libm::sqrt(values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n);
    let scale = if deviation > 0.0 { 1.0 / deviation } else { 0.0 };
    values.iter().map(|v| (v - mean) * scale).collect()
}

/// The embedding of each place: the sum of its category's and root's vectors, of its price tier, rating and
/// popularity along one direction each, of a smooth function of its position, and of a vector of its own.
pub fn embed(places: &[Place], visits: &[u32], ids: &[u64], seed: u64) -> Vec<[f64; EMBEDDING]> {
    let axis = |purpose: &str, key: &str| direction(&mut draw::stream(seed, purpose, key));
    let (price, rating, popularity) =
        (axis("axis", "price"), axis("axis", "rating"), axis("axis", "popularity"));
    let waves = Waves::draw(seed);
    let visits: Vec<f64> = visits.iter().map(|&n| libm::log1p(f64::from(n))).collect();
    let visits = standardized(&visits);
    let mut out = Vec::with_capacity(places.len());
    for ((place, popular), id) in places.iter().zip(visits).zip(ids) {
        let mut e = [0.0; EMBEDDING];
        add(&mut e, CATEGORY, &axis("category", &place.category));
        add(&mut e, ROOT, &axis("root", &place.root));
        add(&mut e, PRICE * place.price_tier.map_or(0.0, |tier| (f64::from(tier) - 2.0) / 2.0), &price);
        add(&mut e, RATING * place.rating.map_or(0.0, |rating| (rating - 7.0) / 1.5), &rating);
        add(&mut e, POPULARITY * popular, &popularity);
        waves.add(&mut e, place.position.kilometres());
        add(&mut e, OWN, &axis("own", &id.to_string()));
        out.push(e);
    }
    out
}

/// Random Fourier features: an inner product of two of them falls with the distance of the positions, and no
/// coordinate is among them. They are smooth and sums with the other vectors, not a secret.
struct Waves(Vec<Wave>);

struct Wave {
    frequency: [f64; 2],
    phase: f64,
    axis: [f64; EMBEDDING],
}

impl Waves {
    fn draw(seed: u64) -> Self {
        let wave = |i: usize| {
            let mut draws = draw::stream(seed, "wave", &i.to_string());
            Wave {
                frequency: draws.normals::<2>().map(|f| f / LENGTH_KM),
                phase: std::f64::consts::TAU * draws.uniform(),
                axis: direction(&mut draws),
            }
        };
        Self((0..WAVES).map(wave).collect())
    }

    fn add(&self, to: &mut [f64; EMBEDDING], [east, north]: [f64; 2]) {
        let amount = LOCATION * libm::sqrt(2.0 / WAVES as f64);
        for wave in &self.0 {
            let angle = wave.frequency[0] * east + wave.frequency[1] * north + wave.phase;
            add(to, amount * libm::cos(angle), &wave.axis);
        }
    }
}
