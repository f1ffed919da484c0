//! The world: who would click on what, known to nobody but the judge.
//!
//! The rules and their reasons are in `docs/world.md`. Everything numeric that a rule needs is in [`Parameters`],
//! fixed before any model was trained. What they make of an import is [`Truth`]; the probability of a click is
//! [`clicks`]. A world is written once as `world.json` and `truth.safetensors` and only ever read after that.

mod calibrate;
pub mod clicks;
mod factors;
mod fit;
mod parameters;
mod truth;

pub use clicks::{Clicks, Shown, Viewer};
pub use parameters::Parameters;
pub use truth::{Fitted, Truth, World};

use crate::data::{Ask, Data};

/// Makes the world of an import: fits the truth to all visits, then sets the general level of clicks by random lists
/// for `asks`.
///
/// # Errors
/// Where random lists of the requests show nothing.
pub fn make<'a>(data: &'a Data, asks: &[Ask], parameters: Parameters) -> anyhow::Result<World<'a>> {
    let truth = fit::truth(data, &parameters);
    let fitted = Fitted { bias_poi: 0.0, bias_creative: 0.0 };
    let mut world = World { data, parameters, fitted, truth };
    world.fitted = calibrate::biases(&world, asks)?;
    Ok(world)
}
