//! Cooperative launches: blocks that wait for each other through device memory, on both builds.

use simt::{Build, Copies, Emulator, Fault, FaultKind, Schedule};

/// Both builds, in several orders of threads.
fn emulators() -> Vec<Emulator> {
    let ways = [
        (Build::Plain, Schedule::Forward),
        (Build::Plain, Schedule::Random(3)),
        (Build::Check, Schedule::Forward),
        (Build::Check, Schedule::Reverse),
        (Build::Check, Schedule::Random(5)),
    ];
    ways.map(|(build, schedule)| Emulator::open(build).unwrap().schedule(schedule).copies(Copies::Lazy))
        .to_vec()
}

/// Device memory of floats.
struct Floats<'e> {
    emulator: &'e Emulator,
    address: u64,
    count: usize,
}

impl<'e> Floats<'e> {
    fn new(emulator: &'e Emulator, values: &[f32]) -> Self {
        let address = emulator.allocate(values.len() * 4).unwrap();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        emulator.write(address, &bytes).unwrap();
        Self { emulator, address, count: values.len() }
    }

    fn zeros(emulator: &'e Emulator, count: usize) -> Self {
        Self::new(emulator, &vec![0.0; count])
    }

    fn argument(&self) -> [u8; 8] {
        self.address.to_ne_bytes()
    }

    fn values(&self) -> Vec<f32> {
        let mut bytes = vec![0; self.count * 4];
        self.emulator.read(self.address, &mut bytes).unwrap();
        bytes.chunks_exact(4).map(|x| f32::from_ne_bytes(x.try_into().unwrap())).collect()
    }
}

impl Drop for Floats<'_> {
    fn drop(&mut self) {
        self.emulator.free(self.address).unwrap();
    }
}

/// 0, 1, 2 and so on.
fn counted(count: usize) -> Vec<f32> {
    (0..count as u16).map(f32::from).collect()
}

/// What `grid_rounds` makes of rows of `threads` values.
fn rounds_of(values: &[f32], threads: usize, rounds: u32) -> Vec<f32> {
    let blocks = values.len() / threads;
    let mut x = values.to_vec();
    for _ in 0..rounds {
        let moved = |i: usize| x[(i / threads + 1) % blocks * threads + threads - 1 - i % threads] + 1.0;
        x = (0..x.len()).map(moved).collect();
    }
    x
}

#[test]
fn every_block_sees_what_others_did_before_the_barrier() {
    for emulator in emulators() {
        for (blocks, threads) in [(1, 32), (2, 64), (5, 96), (16, 64), (3, 320)] {
            for rounds in [1u32, 2, 5] {
                let values = counted(blocks * threads);
                let x = Floats::new(&emulator, &values);
                let other = Floats::zeros(&emulator, values.len());
                let counter = Floats::zeros(&emulator, 1);
                let (a, b, c) = (x.argument(), other.argument(), counter.argument());
                let arguments: [&[u8]; 4] = [&a, &b, &c, &rounds.to_ne_bytes()];
                let (grid, block) = ([blocks as u32, 1, 1], [threads as u32, 1, 1]);
                // SAFETY: the arrays have a float for each thread of the grid.
                let run =
                    unsafe { emulator.launch_cooperative("grid_rounds", grid, block, 1, 0, &arguments) };
                run.unwrap_or_else(|fault| panic!("{blocks} x {threads}, {emulator:?}: {fault}"));
                let result = if rounds % 2 == 1 { &other } else { &x };
                assert_eq!(result.values(), rounds_of(&values, threads, rounds), "{emulator:?}");
            }
        }
    }
}

/// The counters are as they were after each launch: the second begins where the first began.
#[test]
fn a_team_shares_the_units_of_each_round() {
    const THREADS: usize = 64;
    for emulator in emulators() {
        for (blocks, units, rounds) in [(1, 3, 2), (2, 5, 3), (3, 1, 1), (8, 9, 4), (8, 8, 3)] {
            let values = counted(units * THREADS);
            let wanted = rounds_of(&rounds_of(&values, THREADS, rounds), THREADS, rounds);
            for clusters in [false, true] {
                let x = Floats::new(&emulator, &values);
                let other = Floats::zeros(&emulator, values.len());
                let counters = Floats::zeros(&emulator, 2);
                let what = format!("{blocks} blocks, {units} units, clusters {clusters}, {emulator:?}");
                for (from, to) in [(&x, &other), if rounds % 2 == 1 { (&other, &x) } else { (&x, &other) }] {
                    let words = [from, to, &counters].map(Floats::argument);
                    let counts = [(units as u32).to_ne_bytes(), rounds.to_ne_bytes()];
                    let [a, b, c] = words.each_ref().map(|word| word.as_slice());
                    let [d, e] = counts.each_ref().map(|count| count.as_slice());
                    let (grid, block, shared) =
                        ([blocks as u32, 1, 1], [THREADS as u32, 1, 1], 4 * THREADS as u32);
                    // SAFETY: the arrays have a float for each thread of each unit.
                    let run = unsafe {
                        match clusters {
                            true => emulator.launch_clusters(
                                "team_of_a_cluster",
                                grid,
                                block,
                                blocks as u32,
                                shared,
                                &[a, b, d, e],
                            ),
                            false => emulator.launch_cooperative(
                                "team_of_a_grid",
                                grid,
                                block,
                                1,
                                shared,
                                &[a, b, c, d, e],
                            ),
                        }
                    };
                    run.unwrap_or_else(|fault| panic!("{what}: {fault}"));
                    assert_eq!(counters.values(), [0.0; 2], "{what}");
                }
                assert_eq!(x.values(), wanted, "{what}");
            }
        }
    }
}

#[test]
fn fences_and_atomics_make_a_barrier() {
    for emulator in emulators() {
        let values = counted(4 * 64);
        let (x, doubled) = (Floats::new(&emulator, &values), Floats::zeros(&emulator, 256));
        let (y, counter) = (Floats::zeros(&emulator, 256), Floats::zeros(&emulator, 1));
        let arguments = [&x, &doubled, &y, &counter].map(Floats::argument);
        let arguments: Vec<&[u8]> = arguments.iter().map(|argument| argument.as_slice()).collect();
        // SAFETY: the arrays have 64 floats for each of four blocks.
        let run =
            unsafe { emulator.launch_cooperative("grid_fences", [4, 1, 1], [64, 1, 1], 1, 0, &arguments) };
        run.unwrap_or_else(|fault| panic!("{emulator:?}: {fault}"));
        let wanted: Vec<f32> = (0..256).map(|i| 2.0 * values[(i + 64) % 256]).collect();
        assert_eq!(y.values(), wanted, "{emulator:?}");
    }
}

#[test]
fn clusters_keep_to_themselves_in_a_cooperative_launch() {
    for emulator in emulators() {
        for (clusters, size) in [(1, 4), (3, 2), (4, 4), (5, 1)] {
            let (blocks, count) = (clusters * size, clusters * size * 64);
            let values = counted(count);
            let (x, passed) = (Floats::new(&emulator, &values), Floats::zeros(&emulator, count));
            let (y, counter) = (Floats::zeros(&emulator, count), Floats::zeros(&emulator, 1));
            let arguments = [&x, &passed, &y, &counter].map(Floats::argument);
            let arguments: Vec<&[u8]> = arguments.iter().map(|argument| argument.as_slice()).collect();
            let (grid, block) = ([blocks as u32, 1, 1], [64, 1, 1]);
            // SAFETY: the arrays have 64 floats for each block.
            let run = unsafe {
                emulator.launch_cooperative("grid_of_clusters", grid, block, size as u32, 256, &arguments)
            };
            run.unwrap_or_else(|fault| panic!("{clusters} of {size}, {emulator:?}: {fault}"));
            let from = |i: usize| {
                let block = (i / 64 + size) % blocks;
                values[(block / size * size + (block + 1) % size) * 64 + i % 64]
            };
            assert_eq!(y.values(), (0..count).map(from).collect::<Vec<f32>>(), "{clusters} of {size}");
        }
    }
}

fn fault_of(emulator: &Emulator, blocks: u32, threads: u32, cooperative: bool) -> Fault {
    let x = Floats::zeros(emulator, 64);
    let counter = Floats::zeros(emulator, 1);
    let (a, c) = (x.argument(), counter.argument());
    let arguments: [&[u8]; 4] = [&a, &a, &c, &1u32.to_ne_bytes()];
    let (grid, block) = ([blocks, 1, 1], [threads, 1, 1]);
    // SAFETY: these launches are refused, or stop in the barrier of the first of two blocks of 32.
    let run = unsafe {
        match cooperative {
            true => emulator.launch_cooperative("grid_rounds", grid, block, 1, 0, &arguments),
            false => emulator.launch("grid_rounds", grid, block, 0, &arguments),
        }
    };
    run.expect_err("it ran")
}

#[test]
fn what_cannot_run_at_once_is_refused() {
    for (build, most) in [(Build::Plain, 4096), (Build::Check, 1024)] {
        let emulator = Emulator::open(build).unwrap();
        for (blocks, threads) in [(17, 32), (8, most / 8 + 32), (2, 48)] {
            let fault = fault_of(&emulator, blocks, threads, true);
            assert_eq!(fault.kind, FaultKind::Launch, "{fault}");
            assert!(fault.message.ends_with("not emulated"), "{fault}");
        }
        // The blocks of an ordinary launch run one after another: the first would wait for ever.
        assert_eq!(fault_of(&emulator, 2, 32, false).kind, FaultKind::Endless);
    }
}
