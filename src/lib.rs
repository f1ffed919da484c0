//! Bidslate serves end-to-end generative advertising (EGA-V2, arXiv 2505.17549): one model writes the whole list,
//! ads and organic items, token by token under the weight of bids, picks the creatives and sets the payments.
//!
//! # Tour
//!
//! An [`Engine`](engine::Engine) is a model, a catalog and a device. It is built once, from a model directory
//! ([`model::config`] names its keys, [`model::tensors`] its tensors), and everything is read, checked and
//! allocated then. After that it is shared by reference among as many threads as like to.
//!
//! ```
//! use bidslate::catalog::Update;
//! use bidslate::engine::{Engine, Limits};
//! use bidslate::money::Micros;
//! use bidslate::request::{AdPolicy, Candidates, Request};
//! # use bidslate::model::{config::{ModelConfig, ModelSize}, init::init_model, weights::WeightType};
//! # use bidslate::synthetic;
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! # let config = ModelConfig { codebook_size: 16, ..ModelConfig::of_size(ModelSize::Tiny) };
//! # init_model(dir, &config, WeightType::F32, 1)?;
//! # let world = synthetic::catalog(&config, 40, 1);
//! # world.write(&dir.join("catalog.safetensors"), &config)?;
//! # let [ad, first, second] = [world.ids[0], world.ids[1], world.ids[2]];
//! // Room for one request at a time, of at most this size. Memory is fixed here.
//! let limits = Limits { batch: 1, history: 16, beams: 8, candidates: 100, slots: 3 };
//! let engine = Engine::builder().model(dir).threads(1).limits(limits).build()?;
//! assert!(engine.memory().total() > 0);
//!
//! // Who looks, what may be shown, by which rules. What is not said is as the model says.
//! let request = Request {
//!     organic: vec![first, second],
//!     policy: AdPolicy { max_ads: Some(1), ..AdPolicy::default() },
//!     list_len: Some(3),
//!     beam_width: Some(8),
//!     ..Request::new("home", Vec::new(), Candidates::All)
//! };
//!
//! // One result per request, in order. A refused request does not touch its neighbours.
//! let unknown = Request { candidates: Candidates::Items(vec![7]), ..request.clone() };
//! let answers = engine.allocate(&[request.clone(), unknown]);
//! let response = answers[0].as_ref().unwrap();
//! assert!(response.slots.iter().all(|slot| slot.payment_micros <= slot.bid_micros));
//! assert_eq!(answers[1].as_ref().unwrap_err().field, "candidates[0]");
//!
//! // Bids change while requests run; those that start later see the new version, whole.
//! let version = engine.catalog().apply(&[Update::Bid { item: ad, bid: Micros(2_500_000) }])?;
//! assert_eq!(engine.allocate(&[request])[0].as_ref().unwrap().catalog_version, version);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! ## Asking
//!
//! - [`Request`](request::Request) holds the history, the candidates and the organic items, the ad policy, and the
//!   rules: alpha and beta of token-level bidding, the objective, the payment rule, the seed of ties.
//!   [`Request::from_json`](request::Request::from_json) reads the JSON of `bidslate allocate`.
//! - [`Engine::allocate`](engine::Engine::allocate) answers a batch, each request on its own: the response is a
//!   function of weights, catalog snapshot and request, whatever else is in the batch and however many threads.
//!   [`allocate_with`](engine::Engine::allocate_with) adds what a [`Report`](engine::Report) asks for: the time of
//!   each stage, what every payment rule would charge, intermediate tensors.
//! - [`Request::audit`](request::Request::audit) asks what the ads could gain by other bids, in one of three tiers; the
//!   grid of bids is the engine's ([`AuditOptions`](engine::AuditOptions)), and [`auction::psi`] sums up many audits.
//! - [`Response`](response::Response) is the list with bids, payments and probabilities per slot, the version of the
//!   catalog that it saw, and the items that could not take part with the reason.
//!
//! ## Memory and threads
//!
//! [`Limits`](engine::Limits) says how large requests may be and how many run at a time; a request beyond them is
//! refused with [`RequestErrorKind::Limit`](error::RequestErrorKind::Limit). Workspaces for that are allocated by
//! [`build`](engine::EngineBuilder::build), and [`Memory`](engine::Memory) says what they hold. `threads` is the size
//! of the engine's own pool: a batch runs as whole requests side by side, what is left over is split over the pool.
//! With one thread the engine computes on the caller's. Callers beyond `limits.batch` wait their turn.
//!
//! ## The catalog
//!
//! [`Catalog`](catalog::Catalog) opens a file of columns or takes [`Columns`](catalog::Columns) from memory.
//! [`Catalog::apply`](catalog::Catalog::apply) takes a batch of [`Update`](catalog::Update)s, all or none; readers
//! never wait for it. A [`Snapshot`](catalog::Snapshot) answers questions about one version.
//!
//! ## Errors
//!
//! Every fault is a typed value in [`error`] that names the file, tensor, column or field, the value found and what
//! was expected. Building fails with [`BuildError`](error::BuildError), an update with
//! [`UpdateError`](error::UpdateError), a request with [`RequestError`](error::RequestError). Nothing a file or a
//! request holds makes the library panic; nothing is ever printed.
//!
//! ## Tracing
//!
//! The engine opens [`tracing`] spans at debug level: `allocate` (field `request`, its id) around a request, and in it
//! `encode` (`behaviors`), `search` (`beams`), `creative` and `reward` (`lists`), and `audit` (`tier`). There are no
//! events.
//!
//! # Features
//!
//! - `cli` (default) builds the `bidslate` command. An embedding program turns default features off.
//! - `cuda` adds the backend for NVIDIA GPUs, [`cuda`]. To build it takes nvcc of CUDA 13.0, which `scripts/nvcc`
//!   installs; a driver is looked for only where a GPU is asked for.

pub mod auction;
pub mod catalog;
pub mod cpu;
pub mod cuda;
pub mod decode;
pub mod digest;
pub mod engine;
pub mod error;
mod json;
pub mod model;
pub mod money;
pub mod ops;
pub mod record;
pub mod request;
mod resolve;
pub mod response;
pub mod synthetic;

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
