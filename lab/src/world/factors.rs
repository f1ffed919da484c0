//! Factors of users and items from implicit feedback: alternating least squares with confidences (Hu, Koren and
//! Volinsky 2008), every pair of user and item a case, visited or not.

use crate::draw;

/// How the factors are fitted.
#[derive(Debug, Clone, Copy)]
pub struct Fit {
    /// Width.
    pub width: usize,
    /// Rounds, each users first.
    pub rounds: usize,
    /// Confidence in n visits is 1 + this x ln(1 + n).
    pub confidence: f64,
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

/// Fits factors to the number of visits of each user (outer) to items (index, visits).
pub fn fit(visits: &[Vec<(usize, u32)>], items: usize, fit: Fit) -> Factors {
    let mut by_item = vec![Vec::new(); items];
    for (user, row) in visits.iter().enumerate() {
        for &(item, n) in row {
            by_item[item].push((user, n));
        }
    }
    let start = |item: usize| {
        let mut draws = draw::stream(fit.seed, "factors", &item.to_string());
        (0..fit.width).map(|_| 0.1 * draws.normal()).collect()
    };
    let mut factors = Factors { users: Vec::new(), items: (0..items).map(start).collect() };
    for _ in 0..fit.rounds {
        factors.users = solve_side(visits, &factors.items, fit);
        factors.items = solve_side(&by_item, &factors.users, fit);
    }
    factors
}

/// The best vector of each row, the other side's vectors being what they are: for visits n with confidence c(n) it
/// solves (Y'Y + sum (c - 1) y y' + ridge) x = sum c y.
fn solve_side(rows: &[Vec<(usize, u32)>], others: &[Vec<f64>], fit: Fit) -> Vec<Vec<f64>> {
    let mut gram = vec![0.0; fit.width * fit.width];
    for other in others {
        add_outer(&mut gram, 1.0, other);
    }
    for i in 0..fit.width {
        gram[i * fit.width + i] += fit.ridge;
    }
    let solve = |row: &Vec<(usize, u32)>| {
        let (mut left, mut right) = (gram.clone(), vec![0.0; fit.width]);
        for &(other, n) in row {
            let confidence = 1.0 + fit.confidence * libm::log1p(f64::from(n));
            add_outer(&mut left, confidence - 1.0, &others[other]);
            right.iter_mut().zip(&others[other]).for_each(|(r, y)| *r += confidence * y);
        }
        solve_positive(&mut left, &mut right);
        right
    };
    rows.iter().map(solve).collect()
}

/// `to += amount * v v'`.
fn add_outer(to: &mut [f64], amount: f64, v: &[f64]) {
    for (row, a) in to.chunks_exact_mut(v.len()).zip(v) {
        row.iter_mut().zip(v).for_each(|(t, b)| *t += amount * a * b);
    }
}

/// Solves a positive definite system in place by Cholesky's decomposition: `right` becomes the solution.
fn solve_positive(left: &mut [f64], right: &mut [f64]) {
    let n = right.len();
    for j in 0..n {
        for i in j..n {
            let inner: f64 = (0..j).map(|k| left[i * n + k] * left[j * n + k]).sum();
            let rest = left[i * n + j] - inner;
            left[i * n + j] = if i == j { rest.sqrt() } else { rest / left[j * n + j] };
        }
    }
    for i in 0..n {
        let known: f64 = (0..i).map(|k| left[i * n + k] * right[k]).sum();
        right[i] = (right[i] - known) / left[i * n + i];
    }
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|k| left[k * n + i] * right[k]).sum();
        right[i] = (right[i] - known) / left[i * n + i];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solves_a_system_by_hand() {
        let (mut left, mut right) = (vec![4.0, 2.0, 2.0, 3.0], vec![10.0, 9.0]);
        solve_positive(&mut left, &mut right);
        assert!((right[0] - 1.5).abs() < 1e-12 && (right[1] - 2.0).abs() < 1e-12, "{right:?}");
    }

    #[test]
    fn users_like_what_their_kind_visits() {
        // Two kinds of users, each with items of its own; each user leaves one item of its kind out.
        let visits: Vec<Vec<(usize, u32)>> = (0..20)
            .map(|user| {
                let own = (0..10).filter(|item| item % 10 != user / 2).map(|item| item + 10 * (user % 2));
                own.map(|item| (item, 2)).collect()
            })
            .collect();
        let fitted = fit(&visits, 20, Fit { width: 4, rounds: 10, confidence: 10.0, ridge: 1.0, seed: 1 });
        for (user, row) in visits.iter().enumerate() {
            let score = |item: usize| -> f64 {
                fitted.users[user].iter().zip(&fitted.items[item]).map(|(x, y)| x * y).sum()
            };
            let left_out = user / 2 + 10 * (user % 2);
            assert!(row.iter().all(|&(item, _)| item != left_out));
            let other_kind = (0..10).map(|item| item + 10 * (1 - user % 2));
            assert!(other_kind.into_iter().all(|item| score(item) + 0.3 < score(left_out)));
        }
    }
}
