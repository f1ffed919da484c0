//! Implementers, random inputs and comparisons.

use bidslate::cpu::{Exec, Isa, Team};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// Every way to run an operation, the plain one first.
pub fn execs() -> Vec<Exec<'static>> {
    thread_local! {
        // Every test leads a team of its own.
        static TEAM: &'static Team = Box::leak(Box::new(Team::spawn(2).unwrap()));
    }
    let team = TEAM.with(|team| *team);
    let both = |isa| [Exec { isa, team: None }, Exec { isa, team: Some(team) }];
    Isa::available().into_iter().flat_map(both).collect()
}

pub fn name(exec: Exec) -> String {
    format!("{:?}, {}", exec.isa, if exec.team.is_some() { "team of 2" } else { "alone" })
}

/// A source of inputs that tells its seed when the test fails.
pub struct Inputs {
    seed: u64,
    rng: Xoshiro256PlusPlus,
}

impl Inputs {
    pub fn new() -> Self {
        let seed = match std::env::var("BIDSLATE_SEED") {
            Ok(seed) => seed.parse().expect("BIDSLATE_SEED is a number"),
            Err(_) => std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
        };
        Self { seed, rng: Xoshiro256PlusPlus::seed_from_u64(seed) }
    }

    /// What all inputs are drawn from.
    #[allow(dead_code)]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// `count` numbers, evenly between -1 and 1.
    pub fn numbers(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.rng.random_range(-1.0f32..1.0)).collect()
    }

    /// `count` indices below `bound`.
    pub fn indices(&mut self, count: usize, bound: usize) -> Vec<u32> {
        (0..count).map(|_| self.rng.random_range(0..bound as u32)).collect()
    }
}

impl Drop for Inputs {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("inputs of BIDSLATE_SEED={}", self.seed);
        }
    }
}

pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// As the products see numbers in bf16.
pub fn rounded(x: &[f32]) -> Vec<f32> {
    x.iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect()
}

/// Asserts `|got - want| <= tolerance * scale`, element by element.
pub fn assert_near(got: &[f32], want: &[f64], scale: impl Fn(usize) -> f64, tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let (error, bound) = ((f64::from(got) - want).abs(), tolerance * scale(i));
        assert!(
            error <= bound,
            "{what}: element {i} is {got}, expected {want}: off by {error:e}, allowed {bound:e}"
        );
    }
}

/// Asserts equality bit by bit.
pub fn assert_same(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let differs = got.iter().zip(want).position(|(got, want)| got.to_bits() != want.to_bits());
    if let Some(i) = differs {
        panic!("{what}: element {i} is {:e}, bit for bit {:e} was expected", got[i], want[i]);
    }
}
