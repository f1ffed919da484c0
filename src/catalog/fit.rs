//! Fitting a residual quantizer by k-means, layer after layer on what the layers before leave.

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rayon::prelude::*;

use crate::error::CatalogError;

use super::quantizer::{Quantizer, nearest, transpose};

/// How [`fit`] proceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FitOptions {
    /// C: residual layers.
    pub layers: usize,
    /// W: codes per layer.
    pub codes: usize,
    /// Lloyd iterations per layer.
    pub iterations: usize,
    /// Seed of all that is drawn.
    pub seed: u64,
    /// Whether the last layer aims at codes of equal size, at some cost in distance: fewer rows then share a
    /// full code. Codes are still those nearest to the residual.
    pub balance_last: bool,
}

/// Rows per code from which the first centroids are drawn.
const INITIAL_ROWS_PER_CODE: usize = 32;

/// Fits a quantizer without an encoder to `data` [n, width].
///
/// Centroids start by k-means++ and move by Lloyd's iterations; a code that no row takes moves to the row
/// that is farthest from its own. The result depends on the data and the options alone, not on threads.
/// `progress` is called with the iterations done and to do.
///
/// # Errors
/// [`CatalogError::Quantizer`] where `data` is empty, ragged or holds a NaN or an infinity, or where the
/// options are out of range.
pub fn fit(
    data: &[f32],
    width: usize,
    options: &FitOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Quantizer, CatalogError> {
    check(data, width, options).map_err(|message| CatalogError::Quantizer { message })?;
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(options.seed);
    let mut residuals = data.to_vec();
    let mut codebook = Vec::with_capacity(options.layers * options.codes * width);
    let total = options.layers * options.iterations;
    for layer in 0..options.layers {
        let mut means = KMeans::seeded(&residuals, width, options.codes, &mut rng);
        let balanced = options.balance_last && layer + 1 == options.layers;
        for iteration in 0..options.iterations {
            // The last quarter settles what was split.
            means.iterate(&residuals, balanced && iteration * 4 < options.iterations * 3);
            progress(layer * options.iterations + iteration + 1, total);
        }
        means.subtract(&mut residuals);
        codebook.extend(means.centroids);
    }
    Quantizer::new(width, Vec::new(), codebook, [options.layers, options.codes, width])
}

fn check(data: &[f32], width: usize, options: &FitOptions) -> Result<(), String> {
    if width == 0 || data.is_empty() || !data.len().is_multiple_of(width) {
        return Err(format!("{} values are not rows of {width}", data.len()));
    }
    if data.len() / width > u32::MAX as usize {
        return Err("more than 2^32 - 1 rows".into());
    }
    if options.layers == 0 || options.layers > 64 || !(2..=1 << 16).contains(&options.codes) {
        let FitOptions { layers, codes, .. } = options;
        return Err(format!("{layers} layers of {codes} codes, expected 1 to 64 layers of 2 to 65536"));
    }
    // Squared distances of such values, summed over any width, stay finite.
    match data.iter().position(|value| value.is_nan() || value.abs() > 1e15) {
        Some(i) => Err(format!(
            "row {} value {}: {}, expected a number of at most 1e15",
            i / width,
            i % width,
            data[i]
        )),
        None => Ok(()),
    }
}

/// One layer's centroids while they move.
struct KMeans {
    width: usize,
    /// [W, width]
    centroids: Vec<f32>,
}

impl KMeans {
    /// k-means++: each next centroid is a row drawn with weight proportional to the squared distance to the
    /// centroids so far. Drawn from a sample of the rows, which is all that the start needs.
    fn seeded(data: &[f32], width: usize, codes: usize, rng: &mut Xoshiro256PlusPlus) -> Self {
        let rows = data.len() / width;
        let sample = sample(rows, codes * INITIAL_ROWS_PER_CODE, rng);
        let row = |i: usize| &data[sample[i] as usize * width..][..width];
        let mut centroids = row(rng.random_range(0..sample.len())).to_vec();
        let mut distances = vec![f64::INFINITY; sample.len()];
        for _ in 1..codes {
            let last = centroids[centroids.len() - width..].to_vec();
            distances.par_iter_mut().enumerate().for_each(|(i, distance)| {
                *distance = distance.min(squared_distance(row(i), &last));
            });
            let total: f64 = distances.iter().sum();
            let mut left = rng.random::<f64>() * total;
            let drawn = distances.iter().position(|&distance| {
                left -= distance;
                left < 0.0
            });
            // With fewer distinct rows than codes nothing is left to draw; the first row again is never
            // chosen over the code that has it.
            let drawn = drawn.unwrap_or(0);
            centroids.extend_from_slice(row(drawn));
        }
        Self { width, centroids }
    }

    /// The nearest code of each row, and its squared distance.
    fn assign(&self, data: &[f32]) -> Vec<(u32, f32)> {
        let by_dimension = transpose(&self.centroids, self.width);
        let one = |scratch: &mut Vec<f32>, row: &[f32]| {
            let (code, distance) = nearest(row, &by_dimension, scratch);
            (code as u32, distance)
        };
        data.par_chunks(self.width).with_min_len(64).map_init(Vec::new, one).collect()
    }

    /// One Lloyd iteration: assign, then move each centroid to the mean of its rows; then, where asked for,
    /// split the crowded.
    fn iterate(&mut self, data: &[f32], split: bool) {
        let nearest = self.assign(data);
        let groups = Groups::new(&nearest, self.centroids.len() / self.width);
        let width = self.width;
        self.centroids.par_chunks_mut(width).enumerate().for_each(|(code, centroid)| {
            let rows = groups.of(code);
            if rows.is_empty() {
                return;
            }
            // Rows in their order and in f64: the mean does not depend on threads.
            let mut sums = vec![0.0f64; width];
            for &row in rows {
                let row = &data[row as usize * width..][..width];
                sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
            }
            centroid.iter_mut().zip(sums).for_each(|(c, sum)| *c = (sum / rows.len() as f64) as f32);
        });
        self.revive(data, &nearest, &groups);
        if split {
            self.split(data, &nearest, &groups);
        }
    }

    /// Moves codes without rows to the rows farthest from their codes.
    fn revive(&mut self, data: &[f32], nearest: &[(u32, f32)], groups: &Groups) {
        let empty: Vec<usize> =
            (0..self.centroids.len() / self.width).filter(|&code| groups.of(code).is_empty()).collect();
        if empty.is_empty() {
            return;
        }
        let mut rows: Vec<u32> =
            (0..nearest.len() as u32).filter(|&row| nearest[row as usize].1 > 0.0).collect();
        let distance = |row: u32| nearest[row as usize].1;
        rows.sort_by(|&a, &b| distance(b).total_cmp(&distance(a)).then(a.cmp(&b)));
        for (code, row) in empty.into_iter().zip(rows) {
            let centroid = &mut self.centroids[code * self.width..][..self.width];
            centroid.copy_from_slice(&data[row as usize * self.width..][..self.width]);
        }
    }

    /// Moves the codes with the fewest rows next to those with the most, as long as that evens them out: the
    /// next iterations share the crowd between the two.
    fn split(&mut self, data: &[f32], nearest: &[(u32, f32)], groups: &Groups) {
        let codes = self.centroids.len() / self.width;
        let mut by_rows: Vec<usize> = (0..codes).collect();
        by_rows.sort_by_key(|&code| (groups.of(code).len(), code));
        for pair in 0..codes.div_ceil(8).min(codes / 2) {
            let (few, many) = (by_rows[pair], by_rows[codes - 1 - pair]);
            let crowd = groups.of(many);
            if groups.of(few).len() * 4 >= crowd.len() {
                break;
            }
            let mut crowd = crowd.to_vec();
            crowd.sort_by(|&a, &b| nearest[a as usize].1.total_cmp(&nearest[b as usize].1).then(a.cmp(&b)));
            let row = crowd[crowd.len() / 2] as usize;
            self.centroids[few * self.width..][..self.width]
                .copy_from_slice(&data[row * self.width..][..self.width]);
        }
    }

    /// Leaves in `data` what the nearest centroids do not explain.
    fn subtract(&self, data: &mut [f32]) {
        let nearest = self.assign(data);
        for (row, (code, _)) in data.chunks_mut(self.width).zip(nearest) {
            let centroid = &self.centroids[code as usize * self.width..][..self.width];
            row.iter_mut().zip(centroid).for_each(|(value, c)| *value -= c);
        }
    }
}

/// Rows by code, in order.
struct Groups {
    starts: Vec<u32>,
    rows: Vec<u32>,
}

impl Groups {
    fn new(nearest: &[(u32, f32)], codes: usize) -> Self {
        let mut starts = vec![0u32; codes + 1];
        nearest.iter().for_each(|&(code, _)| starts[code as usize + 1] += 1);
        for code in 0..codes {
            starts[code + 1] += starts[code];
        }
        let mut next = starts.clone();
        let mut rows = vec![0; nearest.len()];
        for (row, &(code, _)) in nearest.iter().enumerate() {
            rows[next[code as usize] as usize] = row as u32;
            next[code as usize] += 1;
        }
        Self { starts, rows }
    }

    fn of(&self, code: usize) -> &[u32] {
        &self.rows[self.starts[code] as usize..self.starts[code + 1] as usize]
    }
}

/// Up to `count` distinct rows of `rows`, all of them where that is no more.
fn sample(rows: usize, count: usize, rng: &mut Xoshiro256PlusPlus) -> Vec<u32> {
    let mut all: Vec<u32> = (0..rows as u32).collect();
    if count < rows {
        for i in 0..count {
            let j = rng.random_range(i..rows);
            all.swap(i, j);
        }
        all.truncate(count);
    }
    all
}

fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b) * f64::from(a - b)).sum()
}
