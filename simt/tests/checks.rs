//! The planted mistakes of `tests/kernels`, each of which must be reported at the right line, and correct patterns, which
//! must pass silently; under every order of threads and of copies.

use std::fs;
use std::hash::{BuildHasher, RandomState};

use simt::{Build, Copies, Emulator, Fault, FaultKind, Place, Schedule};

/// Floats of `x` and `in`.
const COUNT: usize = 256;

/// A mistake: its kernel, what it must be reported as, and how it is launched.
struct Mistake {
    kernel: &'static str,
    /// Any of these: which one depends on the order of the threads.
    kinds: &'static [FaultKind],
    blocks: u32,
    threads: u32,
    shared_bytes: u32,
    /// Blocks of a cluster.
    cluster: u32,
    /// Whether all blocks run at the same time.
    cooperative: bool,
    /// Whether it may begin while earlier kernels run.
    dependent: bool,
    /// Whether the plain build reports it too.
    on_plain: bool,
}

const fn mistake(kernel: &'static str, kinds: &'static [FaultKind]) -> Mistake {
    Mistake {
        kernel,
        kinds,
        blocks: 1,
        threads: 64,
        shared_bytes: 0,
        cluster: 1,
        cooperative: false,
        dependent: false,
        on_plain: false,
    }
}

/// One cluster of two blocks.
const fn clustered(kernel: &'static str, kinds: &'static [FaultKind]) -> Mistake {
    Mistake { blocks: 2, cluster: 2, shared_bytes: 512, ..mistake(kernel, kinds) }
}

/// Two blocks that run at the same time.
const fn cooperative(kernel: &'static str, kinds: &'static [FaultKind]) -> Mistake {
    Mistake { blocks: 2, cooperative: true, ..mistake(kernel, kinds) }
}

/// A launch that may begin while earlier kernels run.
const fn dependent(kernel: &'static str) -> Mistake {
    Mistake { dependent: true, shared_bytes: 512, ..mistake(kernel, &[Early]) }
}

impl Mistake {
    const fn blocks(self, blocks: u32) -> Self {
        Self { blocks, ..self }
    }

    const fn threads(self, threads: u32) -> Self {
        Self { threads, ..self }
    }

    const fn shared(self, shared_bytes: u32) -> Self {
        Self { shared_bytes, ..self }
    }

    const fn on_plain(self) -> Self {
        Self { on_plain: true, ..self }
    }
}

use FaultKind::*;

const RACES: &[Mistake] = &[
    mistake("race_write_then_read", &[Race, Uninitialised]),
    mistake("race_read_then_write", &[Race]),
    mistake("race_write_then_write", &[Race]),
    mistake("race_no_syncwarp", &[Race, Uninitialised]).threads(32),
    mistake("race_shuffle_is_no_fence", &[Race]).threads(32),
    mistake("race_blocks_write", &[Race]).blocks(2),
    mistake("race_block_reads_block", &[Race]).blocks(2),
    mistake("race_block_writes_what_all_read", &[Race]).blocks(2),
    mistake("race_plain_read_of_atomic", &[Race]),
    mistake("race_last_block_without_fence", &[Race]).blocks(4).threads(32),
    mistake("race_last_block_without_barrier", &[Race]).blocks(2),
    mistake("race_last_block_fence_of_one", &[Race]).blocks(2),
    mistake("race_last_block_fence_too_early", &[Race]).blocks(2),
    mistake("race_named_barrier_one_way", &[Race, Deadlock]),
    mistake("race_mbarrier_wrong_parity", &[Race, Deadlock]),
    mistake("race_mbarrier_no_wait", &[Race]),
    mistake("race_ldmatrix_before_barrier", &[Race, Uninitialised]).shared(1024),
];

const COPIES: &[Mistake] = &[
    mistake("copy_read_before_wait", &[InFlight]).shared(2048),
    mistake("copy_wait_too_weak", &[InFlight]).shared(2048),
    mistake("copy_without_commit", &[InFlight]).shared(2048),
    mistake("copy_overwritten_in_flight", &[InFlight]).shared(2048),
    mistake("copy_wait_without_barrier", &[Race, InFlight, Uninitialised]).shared(2048),
    mistake("copy_refilled_too_early", &[Race, InFlight]).shared(2048),
    mistake("copy_source_changes", &[Race]).shared(2048),
    mistake("copy_source_out_of_bounds", &[OutOfBounds]).shared(2048),
    mistake("copy_destination_out_of_bounds", &[OutOfBounds]).shared(2048).on_plain(),
    mistake("copy_source_misaligned", &[Misaligned]).shared(2048).on_plain(),
    mistake("copy_destination_misaligned", &[Misaligned]).shared(2048).on_plain(),
];

const ACCESSES: &[Mistake] = &[
    mistake("access_write_past_end", &[OutOfBounds]),
    mistake("access_read_past_end", &[OutOfBounds]),
    mistake("access_read_before_start", &[OutOfBounds, Race]),
    mistake("access_wide_past_end", &[OutOfBounds]).shared(252),
    mistake("access_null", &[OutOfBounds]),
    mistake("access_misaligned_vector", &[Misaligned]),
    mistake("access_misaligned_ldmatrix", &[Misaligned]).shared(256).on_plain(),
    mistake("access_dynamic_too_small", &[OutOfBounds]).shared(252),
    mistake("access_static_index", &[OutOfBounds]),
    mistake("access_ldmatrix_past_end", &[OutOfBounds]).shared(64).on_plain(),
    mistake("access_other_threads_variable", &[OutOfBounds]),
    mistake("access_write_to_constant", &[OutOfBounds]),
    mistake("access_uninitialised_static", &[Uninitialised]),
    mistake("access_uninitialised_dynamic", &[Uninitialised]).shared(256),
    mistake("access_shared_of_last_block", &[Uninitialised]).blocks(2),
    mistake("access_uninitialised_atomic", &[Uninitialised]),
    mistake("undefined_signed_overflow", &[Undefined]),
    mistake("undefined_shift", &[Undefined]),
    mistake("undefined_cast", &[Undefined]),
];

const MEETINGS: &[Mistake] = &[
    mistake("barrier_in_divergent_code", &[Barrier]).on_plain(),
    mistake("barrier_in_some_threads", &[Barrier]).on_plain(),
    mistake("barrier_that_others_never_reach", &[Deadlock]).on_plain(),
    mistake("barrier_named_never_completed", &[Deadlock]).on_plain(),
    mistake("barrier_named_two_counts", &[Barrier]).on_plain(),
    mistake("barrier_named_part_of_warp", &[Barrier]).on_plain(),
    mistake("mbarrier_never_initialised", &[Uninitialised]).on_plain(),
    mistake("mbarrier_too_few_arrivals", &[Deadlock]).on_plain(),
    mistake("warp_mask_names_exited_lanes", &[Collective]).on_plain(),
    mistake("warp_mask_leaves_caller_out", &[Collective]).on_plain(),
    mistake("warp_lanes_at_different_collectives", &[Collective]).on_plain(),
    mistake("warp_shuffle_from_outside", &[Collective]).on_plain(),
    mistake("warp_half_at_ldmatrix", &[Deadlock]).on_plain(),
    mistake("endless_polling", &[Endless]).on_plain(),
    mistake("trap_on_purpose", &[Trap]).on_plain(),
    mistake("trap_by_assertion", &[Trap]).on_plain(),
];

const fn hopper(kernel: &'static str, kinds: &'static [FaultKind]) -> Mistake {
    mistake(kernel, kinds).threads(128).shared(8192)
}

const HOPPER: &[Mistake] = &[
    hopper("bulk_no_wait", &[InFlight]),
    hopper("bulk_wait_of_one", &[InFlight, Race, Uninitialised]),
    hopper("bulk_wrong_parity", &[InFlight, Uninitialised, Race, Deadlock]),
    hopper("bulk_wrong_bytes", &[Deadlock]).on_plain(),
    hopper("bulk_barrier_not_fenced", &[Proxy]).on_plain(),
    hopper("bulk_never_waited", &[InFlight]).on_plain(),
    hopper("bulk_refilled_too_early", &[Race, InFlight, Deadlock]),
    hopper("bulk_misaligned", &[Misaligned]).on_plain(),
    hopper("bulk_store_without_proxy_fence", &[Proxy]),
    hopper("bulk_store_fence_of_one", &[Proxy]),
    hopper("bulk_store_fence_too_early", &[Proxy]),
    hopper("bulk_store_source_changes", &[InFlight]),
    hopper("bulk_store_never_waited", &[InFlight]).on_plain(),
    hopper("bulk_store_wait_too_weak", &[InFlight]).on_plain(),
    hopper("wgmma_without_proxy_fence", &[Proxy]),
    hopper("wgmma_before_barrier", &[Race, Uninitialised]),
    hopper("wgmma_operand_in_flight", &[InFlight]),
    hopper("wgmma_without_fence", &[Barrier]).on_plain(),
    hopper("wgmma_sums_read_before_wait", &[InFlight]),
    hopper("wgmma_sums_written_before_wait", &[InFlight]),
    hopper("wgmma_wait_too_weak", &[InFlight]),
    hopper("wgmma_operand_changes", &[InFlight, Race]),
    hopper("wgmma_stage_released_too_early", &[Race, InFlight]).threads(160),
    hopper("wgmma_never_waited", &[InFlight]).on_plain(),
    hopper("wgmma_of_one_warp", &[Collective]).on_plain(),
    hopper("wgmma_misaligned_pattern", &[Misaligned]).on_plain(),
    hopper("registers_not_a_multiple", &[Collective]).on_plain(),
];

const CLUSTERS: &[Mistake] = &[
    clustered("cluster_read_before_barrier", &[Race, Uninitialised]),
    clustered("cluster_no_barrier_before_end", &[Race, UseAfterFree]),
    clustered("cluster_write_before_barrier", &[Race]),
    clustered("cluster_block_barrier_only", &[Race, Uninitialised]),
    clustered("cluster_arrival_twice", &[Barrier]).on_plain(),
    clustered("cluster_wait_alone", &[Barrier]).on_plain(),
    clustered("cluster_barriers_crossed", &[Deadlock]).on_plain(),
    clustered("cluster_no_such_block", &[OutOfBounds]).on_plain(),
    clustered("cluster_arrival_before_write", &[Race]),
];

const GRIDS: &[Mistake] = &[
    cooperative("grid_without_barrier", &[Race]),
    cooperative("grid_arrival_without_fence", &[Race]),
    cooperative("grid_wait_without_fence", &[Race]),
    cooperative("grid_arrival_before_block", &[Race]),
    cooperative("grid_wait_of_one_warp", &[Race]),
    cooperative("grid_too_few_arrivals", &[Endless]).on_plain(),
    cooperative("grid_round_repeated", &[Race]),
    cooperative("grid_round_skipped", &[Endless]).on_plain(),
    cooperative("grid_overwritten_too_early", &[Race]),
];

const DEPENDENT: &[Mistake] = &[
    dependent("early_load"),
    dependent("early_store"),
    dependent("early_atomic"),
    dependent("early_memcpy"),
    dependent("early_cp_async"),
    dependent("early_bulk_load"),
    dependent("early_bulk_store"),
    dependent("early_counter"),
    dependent("early_in_some_lanes"),
    dependent("early_wait_of_one_thread"),
    dependent("early_end").on_plain(),
    dependent("early_end_of_all").on_plain(),
];

/// Every schedule with every way of copies; the seeds are drawn afresh, and a failure shows them.
fn emulators(build: Build) -> Vec<Emulator> {
    let seed = RandomState::new().hash_one(0);
    let schedules =
        [Schedule::Forward, Schedule::Reverse, Schedule::Random(seed), Schedule::Random(seed ^ 1)];
    let copies = [Copies::Eager, Copies::Lazy, Copies::Random(seed)];
    let emulator = Emulator::open(build).unwrap();
    schedules.iter().flat_map(|&s| copies.map(|c| emulator.clone().schedule(s).copies(c))).collect()
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

/// 256 floats: 0, 1, 2 and so on, the last one with all bits zero.
fn upload(emulator: &Emulator) -> u64 {
    let mut values: Vec<f32> = (0..COUNT as u16).map(f32::from).collect();
    values[COUNT - 1] = 0.0;
    let address = emulator.allocate(4 * COUNT).unwrap();
    emulator.write(address, &bytes_of(&values)).unwrap();
    address
}

fn run(emulator: &Emulator, mistake: &Mistake) -> Result<(), Fault> {
    let x = upload(emulator);
    let emulator = if mistake.dependent { &emulator.clone().dependent() } else { emulator };
    // SAFETY: what leaves `x` is run on the check build only, which stops it before.
    let result = unsafe {
        let (grid, block) = ([mistake.blocks, 1, 1], [mistake.threads, 1, 1]);
        let Mistake { kernel, cluster, shared_bytes, .. } = *mistake;
        let arguments: [&[u8]; 1] = [&x.to_ne_bytes()];
        match mistake.cooperative {
            true => emulator.launch_cooperative(kernel, grid, block, cluster, shared_bytes, &arguments),
            false => emulator.launch_clusters(kernel, grid, block, cluster, shared_bytes, &arguments),
        }
    };
    emulator.free(x).unwrap();
    result.map(drop)
}

/// Whether the line is one that the kernel's author marked.
fn is_marked(place: &Place) -> bool {
    let source = fs::read_to_string(&*place.file).unwrap_or_default();
    let line = place.line.checked_sub(1).and_then(|index| source.lines().nth(index as usize)).unwrap_or("");
    line.contains("// flagged") || line.contains("// racy")
}

fn assert_reported(emulator: &Emulator, mistake: &Mistake) {
    let name = mistake.kernel;
    let fault = run(emulator, mistake).expect_err(&format!("{name} passed silently on {emulator:?}"));
    assert!(mistake.kinds.contains(&fault.kind), "{emulator:?}: {fault}");
    let places: Vec<&Place> = fault.place.iter().chain(&fault.other_place).collect();
    assert!(!places.is_empty() && places.iter().all(|place| is_marked(place)), "{emulator:?}: {fault}");
    if fault.kind == Race {
        assert_eq!(places.len(), 2, "a race has two places: {fault}");
    }
}

fn all_are_reported(mistakes: &[Mistake]) {
    for mistake in mistakes {
        emulators(Build::Check).iter().for_each(|emulator| assert_reported(emulator, mistake));
        if mistake.on_plain {
            emulators(Build::Plain).iter().for_each(|emulator| assert_reported(emulator, mistake));
        }
    }
}

#[test]
fn races_are_reported() {
    all_are_reported(RACES);
}

#[test]
fn mistakes_around_asynchronous_copies_are_reported() {
    all_are_reported(COPIES);
}

#[test]
fn wrong_accesses_are_reported() {
    all_are_reported(ACCESSES);
}

#[test]
fn threads_that_fail_to_meet_are_reported() {
    all_are_reported(MEETINGS);
}

#[test]
fn mistakes_around_bulk_copies_and_wgmma_are_reported() {
    all_are_reported(HOPPER);
}

#[test]
fn mistakes_between_blocks_of_a_cluster_are_reported() {
    all_are_reported(CLUSTERS);
}

#[test]
fn mistakes_between_blocks_that_wait_for_each_other_are_reported() {
    all_are_reported(GRIDS);
}

#[test]
fn what_does_not_wait_for_earlier_kernels_is_reported() {
    all_are_reported(DEPENDENT);
}

/// With one order of threads only: it takes a while until a loop counts as endless.
#[test]
fn endless_computing_is_reported() {
    let emulator = Emulator::open(Build::Check).unwrap();
    assert_reported(&emulator, &mistake("endless_computing", &[Endless]));
}

#[test]
fn memory_that_was_never_written_is_reported() {
    for emulator in emulators(Build::Check) {
        let x = emulator.allocate(4 * COUNT).unwrap();
        // SAFETY: the kernel stays within 64 floats.
        let result = unsafe { emulator.launch("access_plain", [1; 3], [64, 1, 1], 0, &[&x.to_ne_bytes()]) };
        assert_eq!(result.unwrap_err().kind, Uninitialised);
        emulator.free(x).unwrap();
    }
}

#[test]
fn memory_that_was_freed_is_reported() {
    for emulator in emulators(Build::Check) {
        let x = upload(&emulator);
        emulator.free(x).unwrap();
        // SAFETY: the check build stops the access.
        let result = unsafe { emulator.launch("access_plain", [1; 3], [64, 1, 1], 0, &[&x.to_ne_bytes()]) };
        assert_eq!(result.unwrap_err().kind, UseAfterFree);
    }
}

/// A correct pattern, and what it computes for thread `t` from `in`.
struct Pattern {
    kernel: &'static str,
    blocks: u32,
    block: [u32; 3],
    shared_bytes: u32,
    wanted: fn(&[f32], usize) -> f32,
}

const fn pattern(kernel: &'static str, wanted: fn(&[f32], usize) -> f32) -> Pattern {
    Pattern { kernel, blocks: 1, block: [64, 1, 1], shared_bytes: 0, wanted }
}

/// What the second warp of a pipeline sums over eight tiles of 32.
fn sum_of_tiles(input: &[f32], t: usize) -> f32 {
    if t < 32 { 0.0 } else { (0..8).map(|k| input[k * 32 + 63 - t]).sum() }
}

/// The 16 x 8 product of `correct_matrices`, element by element, as far as the thread holds it.
fn product(input: &[f32], t: usize) -> f32 {
    // Lane l of ldmatrix gives row l % 8 of matrix l / 8; the four are a's quarters, the first two b's halves.
    let tile = |matrix: usize, row: usize, column: usize| input[((matrix * 8 + row) * 8 + column) % 64];
    let a = |m: usize, k: usize| tile(m / 8 + k / 8 * 2, m % 8, k % 8);
    let b = |k: usize, n: usize| tile(k / 8, k % 8, n);
    let (g, t) = (t % 32 / 4, t % 4);
    let element = |m: usize, n: usize| (0..16).map(|k| a(m, k) * b(k, n)).sum::<f32>();
    element(g, 2 * t) + element(g, 2 * t + 1) + element(g + 8, 2 * t) + element(g + 8, 2 * t + 1)
}

const PATTERNS: &[Pattern] = &[
    pattern("correct_syncthreads", |x, t| x[t] * 2.0),
    Pattern {
        shared_bytes: 2048,
        ..pattern("correct_double_buffer", |x, t| 4.0 * x[(63 - t) * 4..(63 - t) * 4 + 4].iter().sum::<f32>())
    },
    Pattern { shared_bytes: 256, ..pattern("correct_mbarrier_pipeline", sum_of_tiles) },
    pattern("correct_named_barriers", sum_of_tiles),
    pattern("correct_barrier_per_warp", |x, t| x[t ^ 31]),
    Pattern { blocks: 5, ..pattern("correct_atomics", |_, _| 16.0) },
    Pattern { blocks: 4, ..pattern("correct_last_block", |x, t| 10.0 * x[t]) },
    Pattern { blocks: 4, ..pattern("correct_last_block_one_fence", |x, t| 10.0 * x[t]) },
    Pattern { blocks: 4, ..pattern("correct_last_block_named_barrier", |x, t| 10.0 * x[t]) },
    Pattern { blocks: 4, ..pattern("correct_last_thread", |x, t| 10.0 * x[t]) },
    pattern("correct_warp_scan", |x, t| x[t / 32 * 32..=t / 32 * 32 + 31 - t % 32].iter().sum()),
    pattern("correct_half_warps", |x, t| if t % 32 < 16 { x[t] + x[t ^ 1] } else { x[t] - x[t ^ 3] }),
    pattern("correct_warp_functions", |_, _| 1.0),
    pattern("correct_narrow_neighbours", |x, t| 2.0 * (x[t] + 2.0)),
    pattern("correct_early_exit", |x, t| if t < 40 { x[39 - t] } else { 0.0 }),
    Pattern { shared_bytes: 2048, ..pattern("correct_matrices", product) },
    Pattern {
        block: [4, 8, 2],
        ..pattern("correct_dimensions", |x, t| x[63 - t] + if t < 32 { 0.0 } else { 1.0 })
    },
    pattern("correct_polling", |x, t| x[t]),
    Pattern { shared_bytes: 256, ..pattern("correct_bulk_ring", sum_of_tiles) },
];

fn assert_correct(emulator: &Emulator, pattern: &Pattern) {
    let x = upload(emulator);
    let out = emulator.allocate(4 * COUNT * 2).unwrap();
    let counter = emulator.allocate(4).unwrap();
    emulator.write(counter, &[0; 4]).unwrap();
    let arguments: [&[u8]; 3] = [&x.to_ne_bytes(), &out.to_ne_bytes(), &counter.to_ne_bytes()];
    let grid = [pattern.blocks, 1, 1];
    // SAFETY: the kernels stay within the 256 floats of `x`, the 512 of `out` and the counter.
    let result =
        unsafe { emulator.launch(pattern.kernel, grid, pattern.block, pattern.shared_bytes, &arguments) };
    result.unwrap_or_else(|fault| panic!("{emulator:?}: {fault}"));
    let mut bytes = vec![0; 4 * 64];
    emulator.read(out, &mut bytes).unwrap();
    let got: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_ne_bytes(b.try_into().unwrap())).collect();
    let mut input: Vec<f32> = (0..COUNT as u16).map(f32::from).collect();
    input[COUNT - 1] = 0.0;
    let wanted: Vec<f32> = (0..64).map(|t| (pattern.wanted)(&input, t)).collect();
    assert_eq!(got, wanted, "{} on {emulator:?}", pattern.kernel);
    for address in [x, out, counter] {
        emulator.free(address).unwrap();
    }
}

#[test]
fn correct_patterns_pass_silently() {
    for build in [Build::Plain, Build::Check] {
        for emulator in emulators(build) {
            PATTERNS.iter().for_each(|pattern| assert_correct(&emulator, pattern));
        }
    }
}

/// No planted mistake or pattern is left out of the tables above.
#[test]
fn every_kernel_is_tested() {
    let tested: Vec<&str> = [RACES, COPIES, ACCESSES, MEETINGS, HOPPER, CLUSTERS, GRIDS, DEPENDENT]
        .iter()
        .flat_map(|mistakes| mistakes.iter().map(|mistake| mistake.kernel))
        .chain(PATTERNS.iter().map(|pattern| pattern.kernel))
        .chain(["access_plain", "endless_computing"])
        .collect();
    let tables = [
        "races.cu",
        "copies.cu",
        "accesses.cu",
        "meetings.cu",
        "hopper_mistakes.cu",
        "grid_mistakes.cu",
        "dependent_mistakes.cu",
        "correct.cu",
    ];
    for kernel in Emulator::open(Build::Plain).unwrap().kernels() {
        let listed = tables.iter().any(|table| kernel.file == format!("simt/tests/kernels/{table}"));
        assert!(!listed || tested.contains(&kernel.name.as_str()), "{} is not tested", kernel.name);
    }
}
