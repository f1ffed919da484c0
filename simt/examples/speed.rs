//! Times the emulator's own operations on both builds, best of fifty: `cargo run -p simt --release --example speed`.

use std::error::Error;
use std::time::{Duration, Instant};

use simt::{Build, Emulator};

/// Kernels of `tests/kernels/speed.cu`, and how often each repeats its operation.
const KERNELS: [(&str, u32); 7] = [
    ("speed_nothing", 1),
    ("speed_syncwarp", 200),
    ("speed_syncthreads", 200),
    ("speed_shuffle", 200),
    ("speed_ldmatrix", 100),
    ("speed_mma", 100),
    ("speed_shared", 200),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("{:18} {:>7} {:>14} {:>14}", "", "threads", "plain", "check");
    for (kernel, count) in KERNELS {
        for threads in [32, 128] {
            let plain = measure(&Emulator::open(Build::Plain)?, kernel, threads, count)?;
            let check = measure(&Emulator::open(Build::Check)?, kernel, threads, count)?;
            println!("{kernel:18} {threads:>7} {:>11} ns {:>11} ns", plain.as_nanos(), check.as_nanos());
        }
    }
    println!("An operation of the whole block; of one block for speed_nothing.");
    Ok(())
}

/// Time of one operation, or of one block where there is none.
fn measure(emulator: &Emulator, kernel: &str, threads: u32, count: u32) -> Result<Duration, Box<dyn Error>> {
    let blocks = if count == 1 { 100 } else { 1 };
    let out = emulator.allocate(4 * threads as usize)?;
    let mut best = Duration::MAX;
    for _ in 0..50 {
        let start = Instant::now();
        // SAFETY: the kernels write one float per thread.
        unsafe {
            let arguments: [&[u8]; 2] = [&count.to_ne_bytes(), &out.to_ne_bytes()];
            emulator.launch(kernel, [blocks, 1, 1], [threads, 1, 1], 512, &arguments)?;
        }
        best = best.min(start.elapsed());
    }
    emulator.free(out)?;
    Ok(best / (count * blocks))
}
