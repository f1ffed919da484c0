//! Whole allocations: the engine's GPU path, from requests to responses, against its CPU path with
//! the same rounding of operands.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use bidslate::catalog::{ItemKind, Update};
use bidslate::cpu::Precision;
use bidslate::cuda::launch::{Kernel, Launches, Stream};
use bidslate::engine::{Engine, Kernels, Limits, Report};
use bidslate::error::{BuildError, DeviceError, RequestError};
use bidslate::model::config::ModelConfig;
use bidslate::model::weights::WeightType;
use bidslate::money::Micros;
use bidslate::request::{Candidates, PaymentRule, Request};
use bidslate::response::Response;
use rand::RngExt;

use crate::streams::{hopper_streams, streams};
use crate::watched::Watched;
use crate::world::{self, World};

type Answer = Result<Response, RequestError>;

/// Requests of a batch on the emulated device.
const BATCH: usize = 5;

/// A tiny world whose weights are bf16, so that both devices start from the same numbers.
fn world(rng: &mut rand_xoshiro::Xoshiro256PlusPlus) -> World {
    let heads = [1, 2][rng.random_range(0..2)];
    world_of(heads, rng)
}

fn world_of(heads: usize, rng: &mut rand_xoshiro::Xoshiro256PlusPlus) -> World {
    let config = ModelConfig {
        num_heads: heads,
        list_len: 3,
        codebook_size: rng.random_range(5..=70),
        creative_code_layers: rng.random_range(1..=3),
        poi_code_layers: rng.random_range(1..=3),
        ..world::config()
    };
    let items = rng.random_range(2..=60);
    World::with_weights(config, items, rng.random(), WeightType::BF16)
}

fn limits(world: &World, batch: usize) -> Limits {
    Limits {
        batch,
        history: world.config.history_len,
        beams: 20,
        candidates: 100,
        slots: world.config.list_len,
    }
}

fn cpu(world: &World) -> Engine {
    let builder = Engine::builder().model(world.path()).threads(1).precision(Precision::Bf16);
    builder.limits(limits(world, 1)).build().unwrap()
}

fn gpu(world: &World, stream: &Arc<dyn Stream>) -> Engine {
    gpu_with(world, stream, Kernels::default())
}

fn gpu_with(world: &World, stream: &Arc<dyn Stream>, kernels: Kernels) -> Engine {
    let builder = Engine::builder().model(world.path()).streams(vec![stream.clone()]).gpu_kernels(kernels);
    builder.limits(limits(world, BATCH)).build().unwrap()
}

/// What a list shows: items and creatives by slot.
fn list(response: &Response) -> Vec<(u64, u64)> {
    response.slots.iter().map(|slot| (slot.item, slot.creative)).collect()
}

/// How answers of the two devices compare.
#[derive(Debug, Default)]
struct Tally {
    requests: usize,
    refused: usize,
    /// Requests for which both devices show the same list.
    same: usize,
    /// Largest share of its reward by which a list that only one device chose falls short.
    worst_gap: f64,
}

impl Tally {
    fn add(&mut self, request: &Request, cpu: &Answer, gpu: &Answer) {
        self.requests += 1;
        match (cpu, gpu) {
            (Err(cpu), Err(gpu)) => {
                self.refused += 1;
                assert_eq!(cpu, gpu);
            }
            (Ok(cpu), Ok(gpu)) if list(cpu) == list(gpu) => {
                self.same += 1;
                compare(request, cpu, gpu);
            }
            (Ok(cpu), Ok(gpu)) => {
                assert_eq!((&cpu.id, cpu.catalog_version), (&gpu.id, gpu.catalog_version));
                let gap = (cpu.reward - gpu.reward).abs() / cpu.reward.abs().max(1e-6);
                self.worst_gap = self.worst_gap.max(gap);
            }
            _ => panic!("{request:?}\n  CPU {cpu:?}\n  GPU {gpu:?}"),
        }
    }
}

/// Holds the figures of the same list to one another. The products of bf16 numbers are summed in different orders, which
/// moves logits by some thousandths of their size: probabilities of codes by more than what follows from the states alone.
fn compare(request: &Request, cpu: &Response, gpu: &Response) {
    let near = |a: f64, b: f64, tolerance: f64, what: &str| {
        assert!((a - b).abs() <= tolerance, "{what}: {a} on the CPU, {b} on the GPU");
    };
    assert_eq!((&cpu.id, cpu.catalog_version, cpu.lists), (&gpu.id, gpu.catalog_version, gpu.lists));
    assert_eq!(cpu.rejected, gpu.rejected);
    near(cpu.reward, gpu.reward, 0.05 * cpu.reward.abs(), "reward");
    near(cpu.log_prob, gpu.log_prob, 0.5, "log_prob");
    for (cpu, gpu) in cpu.slots.iter().zip(&gpu.slots) {
        assert_eq!((cpu.kind, cpu.bid_micros), (gpu.kind, gpu.bid_micros));
        near(cpu.pctr_poi, gpu.pctr_poi, 0.05 * cpu.pctr_poi, "pctr_poi");
        near(cpu.pctr_creative, gpu.pctr_creative, 0.05 * cpu.pctr_creative, "pctr_creative");
        near(cpu.pcvr, gpu.pcvr, 0.05 * cpu.pcvr, "pcvr");
        near(cpu.z.ln(), gpu.z.ln(), 0.4, "ln z");
        // The other rules divide differences of nearly equal numbers.
        if request.payment == PaymentRule::Network {
            near(cpu.rate, gpu.rate, 0.1 * cpu.rate + 1e-3, "rate");
        }
        assert!(gpu.payment_micros <= gpu.bid_micros);
    }
}

fn agree(stream: &Arc<dyn Stream>, kernels: Kernels, worlds: usize, requests: usize) {
    let mut rng = world::rng(&stream.describe());
    let mut tally = Tally::default();
    for _ in 0..worlds {
        // Hopper's attention is for heads of 64.
        let world = if kernels == Kernels::Hopper { world_of(1, &mut rng) } else { world(&mut rng) };
        let requests = world.requests(requests, &mut rng);
        let cpu = cpu(&world).allocate(&requests);
        let gpu = gpu_with(&world, stream, kernels).allocate(&requests);
        for ((request, cpu), gpu) in requests.iter().zip(&cpu).zip(&gpu) {
            tally.add(request, cpu, gpu);
        }
    }
    println!("{tally:?}");
    let answered = tally.requests - tally.refused;
    assert!(tally.same * 100 >= answered * 95, "{tally:?}");
}

#[test]
fn the_gpu_shows_the_lists_of_the_cpu() {
    agree(&streams()[0], Kernels::default(), 16, 15);
}

/// The last of the streams is the one that checks every access.
#[test]
fn the_checked_gpu_shows_the_lists_of_the_cpu() {
    agree(streams().last().unwrap(), Kernels::default(), 3, 10);
}

/// Where there are several kernels for one operation, those made for Hopper run, all of them and no other.
#[test]
fn hoppers_kernels_show_the_lists_of_the_cpu() {
    for stream in hopper_streams().into_iter().take(1) {
        let launched = Arc::new(Mutex::new(BTreeSet::new()));
        let note = launched.clone();
        let hook = move |kernel: &'static Kernel| {
            note.lock().unwrap().insert(kernel.file);
        };
        let stream: Arc<dyn Stream> = Watched::new(stream, Box::new(hook));
        agree(&stream, Kernels::Hopper, 4, 10);
        let launched = launched.lock().unwrap();
        for portable in ["linear", "attention", "beam_attention"] {
            let hopper = format!("{portable}_hopper");
            assert!(launched.contains(&*hopper) && !launched.contains(portable), "{launched:?}");
        }
        for fused in
            ["linear_rotary_hopper", "linear_swiglu_hopper", "linear_norm_hopper", "search_step_hopper"]
        {
            assert!(launched.contains(fused), "{launched:?}");
        }
        assert!(!launched.contains("expand") && !launched.contains("select"), "{launched:?}");
    }
}

/// The persistent form of the search decides about time alone. Answers of the graph and of `kernel`, which alone runs the
/// decoder.
fn is_persistent(stream: &Arc<dyn Stream>, world: &World, requests: &[Request], kernel: &str) {
    let launched = Arc::new(Mutex::new(BTreeSet::new()));
    let note = launched.clone();
    let hook = move |kernel: &'static Kernel| {
        note.lock().unwrap().insert(kernel.name);
    };
    let watched: Arc<dyn Stream> = Watched::new(stream.clone(), Box::new(hook));
    let [graph, persistent] = [(stream, Kernels::Portable), (&watched, Kernels::Persistent)]
        .map(|(stream, kernels)| gpu_with(world, stream, kernels));
    assert_eq!(persistent.backend(), graph.backend());
    assert_eq!(persistent.allocate(requests), graph.allocate(requests));
    let launched = launched.lock().unwrap();
    assert!(launched.iter().any(|name| name.starts_with(kernel)), "{launched:?}");
    assert!(!["embed", "expand", "select_beams"].iter().any(|name| launched.contains(name)), "{launched:?}");
}

/// The last of the streams is the one that checks every access.
#[test]
fn a_search_in_one_launch_by_clusters_gives_the_bits_of_the_graph() {
    for (stream, requests) in hopper_streams().iter().zip([8, 4]) {
        let mut rng = world::rng(&stream.describe());
        let world = world(&mut rng);
        is_persistent(stream, &world, &world.requests(requests, &mut rng), "persistent_search_cluster");
    }
}

/// Models of more than 256 columns are searched by a grid.
#[test]
fn a_search_in_one_launch_by_a_grid_gives_the_bits_of_the_graph() {
    for stream in hopper_streams() {
        let mut rng = world::rng(&stream.describe());
        let config = ModelConfig {
            hidden_size: 288,
            num_heads: 9,
            ffn_size: 32,
            decoder_layers: 1,
            list_len: 1,
            poi_code_layers: 2,
            ..world::config()
        };
        let world = World::with_weights(config, 30, rng.random(), WeightType::BF16);
        is_persistent(&stream, &world, &world.requests(2, &mut rng), "persistent_search_grid");
    }
}

#[test]
fn an_engine_names_hoppers_kernels_and_refuses_them_on_the_cpu() {
    let [world, narrow] = [1, 2].map(|num_heads| {
        let config = ModelConfig { num_heads, ..world::config() };
        World::with_weights(config, 5, 1, WeightType::BF16)
    });
    for stream in hopper_streams().into_iter().take(1) {
        let backend = |world, kernels| gpu_with(world, &stream, kernels).backend().to_owned();
        assert_eq!(backend(&world, Kernels::Portable), stream.kind());
        let all =
            ", hopper encoder_products encoder_attention encoder_fusion decoder_products cross_attention";
        let expected = stream.kind() + all;
        assert_eq!(backend(&world, Kernels::Hopper), expected);
        // For heads of 32 there is one attention.
        let expected = stream.kind() + ", hopper encoder_products encoder_fusion decoder_products";
        assert_eq!(backend(&narrow, Kernels::Hopper), expected);
    }
    for kernels in [Kernels::Hopper, Kernels::Persistent] {
        let builder = Engine::builder().model(world.path()).gpu_kernels(kernels);
        let refused = builder.build().err().unwrap().to_string();
        assert!(refused.contains("gpu_kernels"), "{refused}");
    }
}

/// Nothing was measured: launches are programmatic where Hopper's kernels were asked for, and nowhere else.
#[test]
fn an_engine_tells_all_its_streams_how_launches_follow_each_other() {
    let config = ModelConfig { num_heads: 1, ..world::config() };
    let world = World::with_weights(config, 5, 1, WeightType::BF16);
    for stream in hopper_streams().into_iter().take(1) {
        let launches = |kernels| {
            let watched = [(); 2].map(|()| Watched::new(stream.clone(), Box::new(|_| ())));
            let streams = watched.iter().map(|watched| watched.clone() as Arc<dyn Stream>).collect();
            let builder = Engine::builder().model(world.path()).streams(streams).gpu_kernels(kernels);
            builder.limits(limits(&world, 1)).build().unwrap();
            watched.map(|watched| watched.launches())
        };
        assert_eq!(launches(Kernels::Hopper), [Some(Launches::Programmatic); 2]);
        assert_eq!(launches(Kernels::Portable), [Some(Launches::Ordinary); 2]);
        assert_eq!(launches(Kernels::Measured), [Some(Launches::Ordinary); 2]);
    }
}

#[test]
fn a_response_does_not_depend_on_its_batch() {
    let mut rng = world::rng("a_response_does_not_depend_on_its_batch");
    let world = world(&mut rng);
    let engine = gpu(&world, &streams()[0]);
    let requests = world.requests(2 * BATCH + 1, &mut rng);
    let together = engine.allocate(&requests);
    for (request, together) in requests.iter().zip(together) {
        assert_eq!(engine.allocate(std::slice::from_ref(request)).remove(0), together);
    }
}

/// A call of more requests than may run at a time runs them a few at a time, each few to their end.
#[test]
fn a_response_does_not_depend_on_how_many_run_at_a_time() {
    let mut rng = world::rng("a_response_does_not_depend_on_how_many_run_at_a_time");
    let world = world(&mut rng);
    let requests = world.requests(BATCH, &mut rng);
    let answers = |at_once: usize| {
        let builder = Engine::builder().model(world.path()).streams(vec![streams().remove(0)]);
        builder.limits(limits(&world, at_once)).build().unwrap().allocate(&requests)
    };
    let together = answers(BATCH);
    assert!(together.iter().any(Result::is_ok));
    for at_once in [1, 2, 3] {
        assert_eq!(answers(at_once), together, "{at_once} at a time");
    }
}

/// Batches of one call on two streams at once, and calls of two threads at once.
#[test]
fn streams_work_side_by_side() {
    let mut rng = world::rng("streams_work_side_by_side");
    let world = world(&mut rng);
    let one = gpu(&world, &streams()[0]);
    let both = [(); 2].map(|()| streams().remove(0)).to_vec();
    let builder = Engine::builder().model(world.path()).streams(both);
    let two = builder.limits(limits(&world, BATCH)).build().unwrap();
    let requests = world.requests(5 * BATCH + 1, &mut rng);
    let expected = one.allocate(&requests);
    assert_eq!(two.allocate(&requests), expected);
    let (first, second) = requests.split_at(2 * BATCH);
    let (first, second) = std::thread::scope(|scope| {
        let [first, second] = [first, second].map(|part| scope.spawn(|| two.allocate(part)));
        (first.join().unwrap(), second.join().unwrap())
    });
    assert_eq!([first, second].concat(), expected);
}

/// What needs the emulator itself.
mod emulated {
    use super::*;
    use simt::{Build, Copies, Schedule};

    use crate::emulator::stream_with;

    #[test]
    fn models_beyond_the_shared_memory_are_refused() {
        let world = World::with_weights(world::config(), 5, 1, WeightType::BF16);
        let build = |shared_bytes| {
            let stream = stream_with(Build::Plain, Schedule::Forward, Copies::Lazy, shared_bytes);
            let builder = Engine::builder().model(world.path()).streams(vec![stream]);
            builder.limits(limits(&world, 1)).build().map(|_| ())
        };
        // Normed rows of 64 columns in bf16, 64 of them, and a ring of 32 KiB.
        let needed = 64 * world::config().hidden_size.next_multiple_of(64) * 2 + (32 << 10);
        build(needed).unwrap();
        let refused = build(needed - 1).unwrap_err().to_string();
        assert!(refused.contains("hidden_size") && refused.contains(&needed.to_string()), "{refused}");
    }
}

/// What the kernels do not take is refused when the engine is built, by the key of config.json.
#[test]
fn models_beyond_the_kernels_are_refused() {
    let cases = [
        (ModelConfig { list_len: 33, ..world::config() }, "list_len"),
        (ModelConfig { ffn_size: 200, ..world::config() }, "ffn_size"),
        (
            ModelConfig { reward_hidden_size: 1536, reward_heads: 1, ..world::config() },
            "reward_hidden_size / reward_heads",
        ),
    ];
    for (config, expected) in cases {
        let world = World::with_weights(config, 5, 1, WeightType::BF16);
        let builder = Engine::builder().model(world.path()).streams(vec![streams()[0].clone()]);
        match builder.limits(limits(&world, 1)).build() {
            Err(BuildError::Device(DeviceError::Unsupported { key, .. })) => assert_eq!(key, expected),
            other => panic!("{expected}: {:?}", other.err()),
        }
    }
}

#[test]
fn updates_between_batches_are_seen() {
    let mut rng = world::rng("updates_between_batches_are_seen");
    let world = world(&mut rng);
    let (cpu, gpu) = (cpu(&world), gpu(&world, &streams()[0]));
    let mut tally = Tally::default();
    for _ in 0..4 {
        let update = |(&item, &kind): (&u64, &ItemKind)| match kind {
            ItemKind::Ad if rng.random_bool(0.6) => {
                Update::Bid { item, bid: Micros(rng.random_range(0..5_000_000)) }
            }
            _ => Update::Active { item, active: rng.random_bool(0.8) },
        };
        let updates: Vec<Update> = world.catalog.ids.iter().zip(&world.catalog.kinds).map(update).collect();
        assert_eq!(cpu.catalog().apply(&updates).unwrap(), gpu.catalog().apply(&updates).unwrap());
        let mut requests = world.requests(BATCH, &mut rng);
        requests.iter_mut().for_each(|request| request.candidates = Candidates::All);
        let answers = cpu.allocate(&requests).into_iter().zip(gpu.allocate(&requests));
        for (request, (cpu, gpu)) in requests.iter().zip(answers) {
            tally.add(request, &cpu, &gpu);
        }
    }
    assert!(tally.same + tally.refused + 2 >= tally.requests, "{tally:?}");
}

#[test]
fn a_trace_holds_what_the_cpus_holds() {
    let mut rng = world::rng("a_trace_holds_what_the_cpus_holds");
    let world = world(&mut rng);
    let report = Report { trace: true, timings: true, quotes: true, ..Report::default() };
    let requests = world.requests(BATCH + 1, &mut rng);
    let cpu = cpu(&world).allocate_with(&requests, report);
    let gpu = gpu(&world, &streams()[0]).allocate_with(&requests, report);
    for (cpu, gpu) in cpu.into_iter().zip(gpu) {
        let (Ok(cpu), Ok(gpu)) = (cpu, gpu) else { continue };
        assert!(gpu.timings.is_some() && gpu.quotes.is_some());
        let same = list(&cpu) == list(&gpu);
        let (cpu, gpu) = (cpu.trace.unwrap(), gpu.trace.unwrap());
        // The length of the difference, as a share of the length of the whole.
        let near = |what: &str, a: &[f32], b: &[f32]| {
            assert_eq!(a.len(), b.len());
            let length =
                |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            let difference = length(&mut a.iter().zip(b).map(|(a, b)| a - b));
            let whole = length(&mut a.iter().copied());
            assert!(difference <= 0.02 * whole, "{what} is off by {difference} of {whole}");
        };
        near("encoder", &cpu.encoder, &gpu.encoder);
        if same {
            near("poi_logits", &cpu.poi_logits, &gpu.poi_logits);
            near("creative_logits", &cpu.creative_logits, &gpu.creative_logits);
            near("reward_features", &cpu.reward_features, &gpu.reward_features);
            assert_eq!(cpu.items.len(), gpu.items.len());
        }
    }
}
