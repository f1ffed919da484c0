//! From a list to what each advertiser pays.

pub mod batch;
pub mod choice;
pub mod pricing;
pub mod psi;
pub mod regret;
pub mod settle;
pub mod standalone;
