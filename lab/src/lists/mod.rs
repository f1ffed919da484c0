//! Lists that policies make: every one of them feasible, which means what the engine could show too.

mod feasible;
mod random;

pub use feasible::{Feasible, assemble};
pub use random::{random_list, random_places};
