//! What a GPU leaves open and the emulator decides.

/// The order in which threads that can run do so. A correct kernel gives the same results under all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Schedule {
    /// Lanes, warps and blocks upwards. Each thread runs until it waits.
    #[default]
    Forward,
    /// Lanes, warps and blocks downwards.
    Reverse,
    /// Lanes and warps by chance, drawn from a seed; blocks upwards.
    Random(u64),
}

/// When an asynchronous copy (`cp.async`) lands. A correct kernel gives the same results under all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Copies {
    /// When it is issued.
    Eager,
    /// When it is waited for. Until then the destination holds NaN.
    #[default]
    Lazy,
    /// Each copy either way, drawn from a seed.
    Random(u64),
}

impl Schedule {
    /// As `simt::Schedule` numbers it, and the seed.
    pub(crate) fn raw(self) -> (u32, u64) {
        match self {
            Self::Forward => (0, 0),
            Self::Reverse => (1, 0),
            Self::Random(seed) => (2, seed),
        }
    }
}

impl Copies {
    /// As `simt::Copies` numbers it, and the seed.
    pub(crate) fn raw(self) -> (u32, u64) {
        match self {
            Self::Eager => (0, 0),
            Self::Lazy => (1, 0),
            Self::Random(seed) => (2, seed),
        }
    }
}
