//! Rows in the order of their codes, and what is reported of any set of codes (spec section 8).

use serde::Serialize;

/// Sorts `rows` by their codes; rows of equal codes keep their order. `codes` is [rows, layers], each below
/// `codebook`.
///
/// One stable counting sort per layer, last layer first: linear in the rows and free of comparisons.
pub(super) fn sort_by_codes(rows: Vec<u32>, codes: &[u16], layers: usize, codebook: usize) -> Vec<u32> {
    let mut rows = rows;
    let mut sorted = vec![0; rows.len()];
    for layer in (0..layers).rev() {
        let code = |row: u32| usize::from(codes[row as usize * layers + layer]);
        let mut starts = vec![0u32; codebook + 1];
        rows.iter().for_each(|&row| starts[code(row) + 1] += 1);
        for k in 0..codebook {
            starts[k + 1] += starts[k];
        }
        for &row in &rows {
            let start = &mut starts[code(row)];
            sorted[*start as usize] = row;
            *start += 1;
        }
        std::mem::swap(&mut rows, &mut sorted);
    }
    rows
}

/// How one layer of codes is used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LayerUse {
    /// Codes that at least one row has.
    pub used: usize,
    /// exp of the entropy of the codes: the number of codes that would be as varied if all were used alike.
    pub perplexity: f64,
}

/// How well semantic ids spread over their codes, and how often rows share all of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CodeReport {
    /// Rows that were counted.
    pub rows: usize,
    /// W: codes per layer.
    pub codebook_size: usize,
    /// One per layer.
    pub layers: Vec<LayerUse>,
    /// Distinct full codes.
    pub full_codes: usize,
    /// Share of rows whose full code another row has too.
    pub collisions: f64,
    /// Rows of the most shared full code.
    pub deepest: usize,
}

impl CodeReport {
    /// Reports on `codes` [rows, layers], each below `codebook`.
    ///
    /// Codes out of range are clipped to the last code, and sizes of 0 count as 1.
    pub fn of(codes: &[u16], layers: usize, codebook: usize) -> Self {
        let (layers, codebook) = (layers.max(1), codebook.max(1));
        let last = (codebook - 1).min(usize::from(u16::MAX)) as u16;
        let clipped: Vec<u16>;
        let codes = if codes.iter().any(|&code| code > last) {
            clipped = codes.iter().map(|&code| code.min(last)).collect();
            &clipped
        } else {
            codes
        };
        let rows = codes.len() / layers;
        let uses = (0..layers).map(|layer| layer_use(codes, layer, layers, codebook)).collect();
        let order = sort_by_codes((0..rows as u32).collect(), codes, layers, codebook);
        let full = |row: u32| &codes[row as usize * layers..(row as usize + 1) * layers];
        let (mut full_codes, mut shared, mut deepest) = (0, 0, 0);
        for bucket in order.chunk_by(|&a, &b| full(a) == full(b)) {
            full_codes += 1;
            deepest = deepest.max(bucket.len());
            shared += if bucket.len() > 1 { bucket.len() } else { 0 };
        }
        let collisions = if rows == 0 { 0.0 } else { shared as f64 / rows as f64 };
        Self { rows, codebook_size: codebook, layers: uses, full_codes, collisions, deepest }
    }
}

fn layer_use(codes: &[u16], layer: usize, layers: usize, codebook: usize) -> LayerUse {
    let mut counts = vec![0u64; codebook];
    codes.iter().skip(layer).step_by(layers).for_each(|&code| counts[usize::from(code)] += 1);
    let rows = (codes.len() / layers) as f64;
    let shares = counts.iter().filter(|&&count| count > 0).map(|&count| count as f64 / rows);
    let entropy: f64 = shares.map(|share| -share * share.ln()).sum();
    let used = counts.iter().filter(|&&count| count > 0).count();
    LayerUse { used, perplexity: if used == 0 { 0.0 } else { entropy.exp() } }
}

impl std::fmt::Display for CodeReport {
    /// One line per layer, then the collisions.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (layer, LayerUse { used, perplexity }) in self.layers.iter().enumerate() {
            writeln!(f, "layer {layer}: {used} of {} codes, perplexity {perplexity:.1}", self.codebook_size)?;
        }
        let (rows, distinct, share) = (self.rows, self.full_codes, self.collisions * 100.0);
        write!(f, "{rows} rows, {distinct} full codes, {share:.2} % collide, deepest bucket {}", self.deepest)
    }
}
