//! The stages of an allocation on the CPU, on one thread: the names and the least work of the bench `gpu`.
//!
//! `BIDSLATE_BENCH_SIZE` (default `tiny`) names the model, `BIDSLATE_BENCH_BATCHES` (default `1`) the batches: `1,8`. A
//! batch is its requests one after another, so a decode step and the search's steps are taken of one.

#[path = "gpu/costs.rs"]
#[allow(dead_code)]
mod costs;
#[path = "setup/rules.rs"]
mod rules;
mod setup;

use std::hint::black_box;
use std::time::Duration;

use bidslate::catalog::{Catalog, Quantizer};
use bidslate::cpu::{Exec, Isa, Precision};
use bidslate::decode::candidates::Ads;
use bidslate::decode::search::{Row, Search};
use bidslate::engine::{Engine, Report};
use bidslate::model::blocks::{Packer, Scratch, Shape};
use bidslate::model::config::ModelConfig;
use bidslate::model::decoder::Decoder;
use bidslate::model::encoder::Embeddings;
use bidslate::model::init::init_model;
use bidslate::model::weights::WeightType;
use bidslate::request::Request;
use bidslate::response::Timings;
use bidslate::{model, synthetic};
use costs::{Stages, Work, throughput};
use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use setup::Setup;

/// A stage of the engine: its name, its time in a run, and the least work of it.
type Stage = (&'static str, fn(&Timings) -> u64, fn(&Stages) -> Work);

const STAGES: [Stage; 4] = [
    ("encoder", |t| t.encode_us, |least| least.encoder()),
    ("creative", |t| t.creative_us, |least| least.creative()),
    ("reward", |t| t.reward_us, |least| least.reward()),
    ("payment", |t| t.payment_us, |least| least.payment()),
];
const ITEMS: usize = 20_000;

fn main() {
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    let variable = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.into());
    let size = setup::size(&variable("BIDSLATE_BENCH_SIZE", "tiny"));
    let config = ModelConfig::of_size(size);
    for batch in variable("BIDSLATE_BENCH_BATCHES", "1").split(',') {
        let batch = batch.trim().parse().expect("BIDSLATE_BENCH_BATCHES holds numbers");
        let setup = Setup { size, threads: 1, precision: Precision::F32, batch };
        allocations(&mut criterion, &config, setup);
        quantizer(&mut criterion, batch);
    }
    decode_step(&mut criterion, &config);
    select(&mut criterion, &config);
    criterion.final_summary();
}

/// The best instructions of this CPU, on one thread.
fn exec() -> Exec<'static> {
    Exec { isa: Isa::detect(), team: None }
}

/// A group of one benchmark, with its least work.
fn group<'c>(criterion: &'c mut Criterion, name: String, least: Work) -> BenchmarkGroup<'c, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(throughput(least));
    group
}

/// Whole allocations, and the stages that the engine tells the time of.
fn allocations(criterion: &mut Criterion, config: &ModelConfig, setup: Setup) {
    let (batch, d) = (setup.batch, config.hidden_size);
    let (engine, requests) = setup.build();
    let least = Stages::new(config, batch);
    for (name, time, work) in STAGES {
        group(criterion, format!("{name} d {d}, batch {batch}"), work(&least)).bench_function(
            "cpu",
            |bencher| {
                bencher.iter_custom(|runs| (0..runs).map(|_| stage(&engine, &requests, time)).sum());
            },
        );
    }
    group(criterion, format!("allocate d {d}, batch {batch}"), least.allocate()).bench_function(
        "cpu",
        |bencher| {
            bencher.iter(|| engine.allocate(&requests));
        },
    );
}

/// The time of a stage, of all requests together. One may take less than the engine's clock shows.
fn stage(engine: &Engine, requests: &[Request], time: fn(&Timings) -> u64) -> Duration {
    let answers = engine.allocate_with(requests, Report { timings: true, ..Report::default() });
    let micros = answers
        .into_iter()
        .map(|answer| time(&answer.expect("an answer").timings.expect("timings were asked for")).max(1));
    Duration::from_micros(micros.sum())
}

fn numbers(len: usize) -> Vec<f32> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// The step that half of the search is behind, with its logits.
fn decode_step(criterion: &mut Criterion, config: &ModelConfig) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    init_model(dir.path(), config, WeightType::F32, 1).expect("a model");
    let (config, weights) = model::open(dir.path()).expect("the model");
    let packer = Packer { weights: &weights, precision: Precision::F32 };
    let (shape, rotary) = (Shape::of(&config), model::rotary(&config));
    let embeddings = Embeddings::load(&packer, &config);
    let decoder = Decoder::load(&packer, &config, shape, &embeddings);
    let (beams, tokens) = (config.beam_width, config.history_tokens(config.history_len));
    let mut cross = decoder.cross_keys(tokens, Precision::F32);
    decoder.begin(exec(), &numbers(tokens * shape.d), &mut vec![0.0; tokens * 3 * shape.d], &mut cross);
    let mut rows = decoder.rows(&config, beams, beams, config.list_len);
    let mut scratch = Scratch::new(beams, shape, 1);
    let least = Stages::new(&config, 1);
    let half = least.steps() / 2;
    // Every beam goes its own way from the first step on.
    let paths: Vec<Vec<u32>> = (0..beams).map(|row| vec![row as u32; half]).collect();
    let mut step = |position: usize| {
        let last_code = (position > 0).then_some(1);
        let new = paths.iter().map(|path| Row { last_code, path: &path[..position] });
        let (rows, scratch) = (&mut rows, &mut scratch);
        let m = decoder.step(exec(), &config, &embeddings, &rotary, position, 0, new, &cross, rows, scratch);
        black_box(decoder.logits(exec(), &config, position, 0, m, rows));
    };
    (0..half).for_each(&mut step);
    let name = format!("decode_step d {}, batch 1", shape.d);
    group(criterion, name, least.decode_step(half)).bench_function("cpu", |bencher| {
        bencher.iter(|| step(half));
    });
}

/// Every step of a search over all ads, without the decoder.
fn select(criterion: &mut Criterion, config: &ModelConfig) {
    let catalog = Catalog::from_columns(synthetic::catalog(config, ITEMS, 1), config).expect("a catalog");
    let snapshot = catalog.snapshot();
    let (ads, rules) = (Ads::all(&snapshot), rules::rules(config));
    let logits = numbers(config.beam_width * config.codebook_size);
    let least = Stages::new(config, 1);
    let steps = least.steps();
    let name = format!("search 1x{} beams, {steps} steps, {} ads", config.beam_width, ads.len());
    group(criterion, name, least.select() * steps).bench_function("cpu", |bencher| {
        bencher.iter(|| {
            let mut search = Search::new(&rules, &snapshot, &ads, &[], None);
            while !search.is_over() {
                let rows = search.rows().count();
                search.advance(exec(), &logits[..rows * config.codebook_size]).expect("finite logits");
            }
            search.into_lists()
        });
    });
}

/// The codes of `rows` vectors in three codebooks of 1,024 codes of 64 numbers.
fn quantizer(criterion: &mut Criterion, rows: usize) {
    let shape @ [layers, codes, width] = [3, 1024, 64];
    let books = numbers(layers * codes * width);
    let quantizer = Quantizer::new(width, Vec::new(), books, shape).expect("sizes that fit");
    let vectors = numbers(rows * width);
    let name = format!("quantize {rows}x{layers}x{codes}x{width}");
    group(criterion, name, costs::quantizer(rows, shape)).bench_function("cpu", |bencher| {
        bencher.iter(|| quantizer.encode(&vectors).expect("finite vectors"));
    });
}
