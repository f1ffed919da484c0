//! What all visits, the held-out future included, say about interests, hours and tastes.

use std::collections::BTreeMap;

use super::factors::{self, Factors, Fit};
use super::{Parameters, Truth};
use crate::data::{Catalog, Data, Visits};
use crate::draw;

/// Hours of a day.
pub const HOURS: usize = 24;

/// Standard deviation of the standard logistic distribution, pi / sqrt(3).
const LOGISTIC_DEVIATION: f64 = 1.813_799_364_234_217_8;

/// The truth about an import.
pub fn truth(data: &Data, parameters: &Parameters) -> Truth {
    let (catalog, visits) = (&data.catalog, &data.visits);
    let quality = |id: u64| draw::stream(parameters.seed, "quality", &id.to_string()).normal() as f32;
    Truth {
        interest: lasting_interest(catalog, visits, parameters),
        creative_effect: creative_effects(catalog, visits),
        hour: hours(catalog, visits, parameters),
        quality: catalog.items.iter().map(|item| quality(item.id)).collect(),
    }
}

/// Lasting interest of users in items, `[users, items]`: the items' ranks by the factors' inner product, as quantiles
/// of a logistic distribution of mean 0 and variance 1.
///
/// Inner products of implicit feedback pile up at 0; ranks give every user a like spread with few favourites.
fn lasting_interest(catalog: &Catalog, visits: &Visits, parameters: &Parameters) -> Vec<f32> {
    let factors = smoothed_factors(catalog, visits, parameters);
    let count = catalog.items.len();
    let mut interest = vec![0.0; visits.of.len() * count];
    for (row, user) in interest.chunks_exact_mut(count).zip(&factors.users) {
        let scores: Vec<f64> = factors.items.iter().map(|item| inner(user, item)).collect();
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|&a, &b| {
            scores[a].total_cmp(&scores[b]).then(catalog.items[b].id.cmp(&catalog.items[a].id))
        });
        for (rank, item) in order.into_iter().enumerate() {
            let share = (rank as f64 + 0.5) / count as f64;
            row[item] = (libm::log(share / (1.0 - share)) / LOGISTIC_DEVIATION) as f32;
        }
    }
    interest
}

/// Factors whose items are drawn towards the mean of their category, the more the fewer visits they have.
fn smoothed_factors(catalog: &Catalog, visits: &Visits, parameters: &Parameters) -> Factors {
    let counts: Vec<Vec<(usize, u32)>> = visits
        .of
        .iter()
        .map(|visits| {
            let mut count = BTreeMap::new();
            visits.iter().for_each(|visit| *count.entry(visit.item).or_default() += 1);
            count.into_iter().collect()
        })
        .collect();
    let fit = Fit {
        width: parameters.factors,
        rounds: parameters.rounds,
        confidence: parameters.confidence,
        ridge: parameters.ridge,
        seed: parameters.seed,
    };
    let mut factors = factors::fit(&counts, catalog.items.len(), fit);

    let mut visited = vec![0.0; catalog.items.len()];
    counts.iter().flatten().for_each(|&(item, n)| visited[item] += f64::from(n));
    let mut sums = vec![(0.0, vec![0.0; parameters.factors]); catalog.categories.len()];
    for ((item, n), vector) in catalog.items.iter().zip(&visited).zip(&factors.items) {
        let (total, sum) = &mut sums[item.category];
        *total += n;
        add(sum, *n, vector);
    }
    for ((item, n), vector) in catalog.items.iter().zip(&visited).zip(&mut factors.items) {
        let (total, sum) = &sums[item.category];
        let weight = parameters.category_visits;
        for (v, s) in vector.iter_mut().zip(sum) {
            let mean = if *total > 0.0 { s / total } else { 0.0 };
            *v = (n * *v + weight * mean) / (n + weight);
        }
    }
    factors
}

/// Effects of creatives on users, `[users, creatives]`: the inner product of the user's taste with how the creative
/// differs from the mean of its item's, in standard deviations over creatives that have siblings.
///
/// A taste is the mean of these differences over the creatives that the user came by at their visits.
fn creative_effects(catalog: &Catalog, visits: &Visits) -> Vec<f32> {
    let differences = creative_differences(catalog);
    let width = differences.first().map_or(0, Vec::len);
    let mut effects = Vec::with_capacity(visits.of.len() * differences.len());
    for visits in &visits.of {
        let mut taste = vec![0.0; width];
        let share = 1.0 / visits.len() as f64;
        visits.iter().for_each(|visit| add(&mut taste, share, &differences[visit.creative]));
        effects.extend(differences.iter().map(|difference| inner(&taste, difference)));
    }
    let has_siblings: Vec<bool> = catalog
        .items
        .iter()
        .flat_map(|item| item.creatives.clone().map(|_| item.creatives.len() > 1))
        .collect();
    let counted = effects.iter().zip(has_siblings.iter().cycle()).filter(|(_, counts)| **counts);
    let (squares, count) = counted.fold((0.0, 0.0), |(sum, n), (effect, _)| (sum + effect * effect, n + 1.0));
    let scale = if squares > 0.0 { libm::sqrt(count / squares) } else { 0.0 };
    effects.into_iter().map(|effect| (effect * scale) as f32).collect()
}

/// Each creative's embedding less the mean of its item's creatives.
fn creative_differences(catalog: &Catalog) -> Vec<Vec<f64>> {
    let mut differences: Vec<Vec<f64>> = catalog
        .creative_embeddings
        .iter()
        .map(|embedding| embedding.iter().copied().map(f64::from).collect())
        .collect();
    for item in &catalog.items {
        let own = &mut differences[item.creatives.clone()];
        let mut mean = vec![0.0; own[0].len()];
        own.iter().for_each(|embedding| add(&mut mean, 1.0 / item.creatives.len() as f64, embedding));
        own.iter_mut().for_each(|embedding| add(embedding, -1.0, &mean));
    }
    differences
}

/// Affinity of hours and categories, `[24, categories]`: the log of how much more often a category is visited at the
/// hour than places are in general, both smoothed over the hours beside; mean 0 and variance 1 over hours and items.
fn hours(catalog: &Catalog, visits: &Visits, parameters: &Parameters) -> Vec<f32> {
    let categories = catalog.categories.len();
    let (mut by_hour, mut all) = (vec![[0.0; HOURS]; categories], [0.0; HOURS]);
    for visit in visits.of.iter().flatten() {
        let category = catalog.items[visit.item].category;
        for (offset, weight) in [(HOURS - 1, 0.25), (0, 0.5), (1, 0.25)] {
            let hour = (visit.hour + offset) % HOURS;
            by_hour[category][hour] += weight;
            all[hour] += weight;
        }
    }
    let total: f64 = all.iter().sum();
    let usual = all.map(|n| (n + 1.0) / (total + HOURS as f64));
    let mut affinity = vec![0.0; HOURS * categories];
    for (category, counts) in by_hour.iter().enumerate() {
        let visits: f64 = counts.iter().sum();
        for hour in 0..HOURS {
            let share =
                (counts[hour] + parameters.hour_visits * usual[hour]) / (visits + parameters.hour_visits);
            affinity[hour * categories + category] = libm::log(share / usual[hour]);
        }
    }
    let items = catalog.items.iter().map(|item| item.category);
    let cells: Vec<f64> = items
        .flat_map(|category| (0..HOURS).map(move |hour| hour * categories + category))
        .map(|i| affinity[i])
        .collect();
    let (mean, deviation) = moments(&cells);
    let scale = if deviation > 0.0 { 1.0 / deviation } else { 0.0 };
    affinity.into_iter().map(|value| ((value - mean) * scale) as f32).collect()
}

fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, libm::sqrt(values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n))
}

fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `to += amount * v`.
fn add(to: &mut [f64], amount: f64, v: &[f64]) {
    to.iter_mut().zip(v).for_each(|(t, v)| *t += amount * v);
}
