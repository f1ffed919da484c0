//! From a list to what each advertiser pays.

pub mod batch;
pub mod choice;
pub mod landscape;
mod misreport;
pub mod pricing;
pub mod psi;
mod ranking;
pub mod regret;
pub mod request;
pub mod settle;
mod slots;
pub mod standalone;
mod view;
