//! What all visits, the held-out future included, say about interests, hours and tastes.

use super::factors::{self, Fit, add};
use super::{Parameters, Truth};
use crate::data::{Catalog, Data, Item, Visit, Visits};
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

/// Lasting interest of users in items, `[users, items]`: the items' ranks by what the factors say and by popularity,
/// as quantiles of a logistic distribution of mean 0 and variance 1.
///
/// Ranks give every user a like spread with few favourites, however long their history is.
fn lasting_interest(catalog: &Catalog, visits: &Visits, parameters: &Parameters) -> Vec<f32> {
    let fit = Fit {
        width: parameters.factors,
        rounds: parameters.rounds,
        ridge: parameters.ridge,
        seed: parameters.seed,
    };
    let factors = factors::fit(&preferences(catalog, visits, parameters), fit);
    let mut scores: Vec<Vec<f64>> = factors
        .users
        .iter()
        .map(|user| factors.items.iter().map(|item| inner(user, item)).collect())
        .collect();
    let (_, deviation) = moments(&scores.concat());
    let popularity = popularity(catalog, visits);
    for row in &mut scores {
        add(row, parameters.popularity * deviation, &popularity);
    }
    scores.iter().flat_map(|row| logistic_quantiles(row, catalog)).collect()
}

/// What users seem to like, `[users][items]`: logs of visits to the item, to its category and to the category's root,
/// less the means of user and of item.
fn preferences(catalog: &Catalog, visits: &Visits, parameters: &Parameters) -> Vec<Vec<f64>> {
    let mut rows: Vec<Vec<f64>> =
        visits.of.iter().map(|visits| liking(catalog, visits, parameters)).collect();
    centre(&mut rows);
    rows
}

/// Takes the mean of each row away, then that of each column.
fn centre(rows: &mut [Vec<f64>]) {
    let share = 1.0 / rows.len() as f64;
    let mut mean = vec![0.0; rows.first().map_or(0, Vec::len)];
    for row in rows.iter_mut() {
        let own = row.iter().sum::<f64>() / row.len() as f64;
        row.iter_mut().for_each(|value| *value -= own);
        add(&mut mean, share, row);
    }
    rows.iter_mut().for_each(|row| add(row, -1.0, &mean));
}

fn liking(catalog: &Catalog, visits: &[Visit], parameters: &Parameters) -> Vec<f64> {
    let mut items = vec![0.0; catalog.items.len()];
    let mut categories = vec![0.0; catalog.categories.len()];
    let mut roots = vec![0.0; catalog.roots.len()];
    for visit in visits {
        let item = &catalog.items[visit.item];
        items[visit.item] += 1.0;
        categories[item.category] += 1.0;
        roots[item.root] += 1.0;
    }
    let value = |(item, n): (&Item, &f64)| {
        libm::log1p(*n)
            + parameters.like_category * libm::log1p(categories[item.category])
            + parameters.like_root * libm::log1p(roots[item.root])
    };
    catalog.items.iter().zip(&items).map(value).collect()
}

/// ln(1 + visits) of each item, mean 0 and variance 1.
fn popularity(catalog: &Catalog, visits: &Visits) -> Vec<f64> {
    let mut counts = vec![0.0; catalog.items.len()];
    visits.of.iter().flatten().for_each(|visit| counts[visit.item] += 1.0);
    let logs: Vec<f64> = counts.into_iter().map(libm::log1p).collect();
    let (mean, deviation) = moments(&logs);
    logs.into_iter().map(|log| over(log - mean, deviation)).collect()
}

/// Scores of all items as quantiles of a logistic distribution of variance 1; of equal scores the lower id is higher.
fn logistic_quantiles(scores: &[f64], catalog: &Catalog) -> Vec<f32> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let id = |item: usize| catalog.items[item].id;
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(id(b).cmp(&id(a))));
    let mut quantiles = vec![0.0; scores.len()];
    for (rank, item) in order.into_iter().enumerate() {
        let share = (rank as f64 + 0.5) / scores.len() as f64;
        quantiles[item] = (libm::log(share / (1.0 - share)) / LOGISTIC_DEVIATION) as f32;
    }
    quantiles
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
    let deviation = libm::sqrt(squares / f64::max(count, 1.0));
    effects.into_iter().map(|effect| over(effect, deviation) as f32).collect()
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
    affinity.into_iter().map(|value| over(value - mean, deviation) as f32).collect()
}

fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, libm::sqrt(values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n))
}

fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `value / deviation`, 0 where nothing deviates.
fn over(value: f64, deviation: f64) -> f64 {
    if deviation > 0.0 { value / deviation } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn centred_rows_and_columns_sum_to_nothing() {
        let mut rows = vec![vec![1.0, 2.0, 6.0], vec![0.0, 5.0, 1.0]];
        centre(&mut rows);
        assert_eq!(rows, [[0.0, -2.0, 2.0], [0.0, 2.0, -2.0]]);
    }
}
