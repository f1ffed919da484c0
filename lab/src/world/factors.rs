//! Factors of users and items: a low-rank summary of how much users like items, by alternating least squares.

use crate::draw;

/// How the factors are fitted.
#[derive(Debug, Clone, Copy)]
pub struct Fit {
    /// Width.
    pub width: usize,
    /// Rounds, each users first.
    pub rounds: usize,
    /// Ridge penalty.
    pub ridge: f64,
    /// Seed of the items' start.
    pub seed: u64,
}

/// Vectors whose inner product says how much a user likes an item.
#[derive(Debug)]
pub struct Factors {
    /// `[users][width]`.
    pub users: Vec<Vec<f64>>,
    /// `[items][width]`.
    pub items: Vec<Vec<f64>>,
}

/// Fits factors to `preferences`, `[users][items]`.
pub fn fit(preferences: &[Vec<f64>], fit: Fit) -> Factors {
    let count = preferences.first().map_or(0, Vec::len);
    let start = |item: usize| {
        let mut draws = draw::stream(fit.seed, "factors", &item.to_string());
        (0..fit.width).map(|_| 0.1 * draws.normal()).collect()
    };
    let by_item: Vec<Vec<f64>> =
        (0..count).map(|item| preferences.iter().map(|row| row[item]).collect()).collect();
    let mut factors = Factors { users: Vec::new(), items: (0..count).map(start).collect() };
    for _ in 0..fit.rounds {
        factors.users = solve_side(preferences, &factors.items, fit);
        factors.items = solve_side(&by_item, &factors.users, fit);
    }
    factors
}

/// The best vector x of each row a, the other side's vectors Y being what they are: (Y'Y + ridge) x = Y'a.
fn solve_side(rows: &[Vec<f64>], others: &[Vec<f64>], fit: Fit) -> Vec<Vec<f64>> {
    let mut gram = vec![0.0; fit.width * fit.width];
    for other in others {
        for (row, &a) in gram.chunks_exact_mut(fit.width).zip(other) {
            add(row, a, other);
        }
    }
    for i in 0..fit.width {
        gram[i * fit.width + i] += fit.ridge;
    }
    decompose(&mut gram, fit.width);
    let solve = |row: &Vec<f64>| {
        let mut right = vec![0.0; fit.width];
        row.iter().zip(others).for_each(|(&a, other)| add(&mut right, a, other));
        substitute(&gram, &mut right);
        right
    };
    rows.iter().map(solve).collect()
}

/// `to += amount * v`.
pub fn add(to: &mut [f64], amount: f64, v: &[f64]) {
    to.iter_mut().zip(v).for_each(|(t, v)| *t += amount * v);
}

/// Cholesky's decomposition of a positive definite matrix, in place, in the lower half.
fn decompose(matrix: &mut [f64], n: usize) {
    for j in 0..n {
        for i in j..n {
            let inner: f64 = (0..j).map(|k| matrix[i * n + k] * matrix[j * n + k]).sum();
            let rest = matrix[i * n + j] - inner;
            matrix[i * n + j] = if i == j { libm::sqrt(rest) } else { rest / matrix[j * n + j] };
        }
    }
}

/// Solves the system of a decomposed matrix in place: `right` becomes the solution.
fn substitute(lower: &[f64], right: &mut [f64]) {
    let n = right.len();
    for i in 0..n {
        let known: f64 = (0..i).map(|k| lower[i * n + k] * right[k]).sum();
        right[i] = (right[i] - known) / lower[i * n + i];
    }
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|k| lower[k * n + i] * right[k]).sum();
        right[i] = (right[i] - known) / lower[i * n + i];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solves_a_system_by_hand() {
        let (mut left, mut right) = (vec![4.0, 2.0, 2.0, 3.0], vec![10.0, 9.0]);
        decompose(&mut left, 2);
        substitute(&left, &mut right);
        assert!((right[0] - 1.5).abs() < 1e-12 && (right[1] - 2.0).abs() < 1e-12, "{right:?}");
    }

    #[test]
    fn finds_a_matrix_of_low_rank_again() {
        let mut draws = draw::stream(2, "test", "");
        let mut vectors =
            |n: usize| -> Vec<[f64; 2]> { (0..n).map(|_| [draws.normal(), draws.normal()]).collect() };
        let (users, items) = (vectors(30), vectors(40));
        let value = |u: &[f64; 2], i: &[f64; 2]| u[0] * i[0] + u[1] * i[1];
        let matrix: Vec<Vec<f64>> =
            users.iter().map(|u| items.iter().map(|i| value(u, i)).collect()).collect();
        let fitted = fit(&matrix, Fit { width: 2, rounds: 40, ridge: 1e-9, seed: 1 });
        for (row, user) in matrix.iter().zip(&fitted.users) {
            for (expected, item) in row.iter().zip(&fitted.items) {
                let found: f64 = user.iter().zip(item).map(|(x, y)| x * y).sum();
                assert!((found - expected).abs() < 1e-6, "{found} {expected}");
            }
        }
    }
}
