//! The CPU operations at the sizes of the base model, beside what the core can do at most.
//!
//! `cargo bench --bench ops` on one thread; names that end in `x2` run on two. The throughput column counts floating
//! point operations: "Gelem/s" reads GFLOP/s.

use std::hint::black_box;
use std::time::Duration;

use bidslate::cpu::*;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn numbers(count: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

const PRECISIONS: [(Precision, &str); 2] = [(Precision::F32, "f32"), (Precision::Bf16, "bf16")];

/// Runs `run` on one thread and on two.
fn on_threads(c: &mut Criterion, name: &str, flops: usize, mut run: impl FnMut(Exec)) {
    let team = Team::spawn(2).expect("two threads");
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(flops as u64));
    for isa in Isa::available().into_iter().filter(|&isa| isa != Isa::Scalar) {
        group.bench_function(format!("{isa:?}"), |b| b.iter(|| run(Exec { isa, team: None })));
    }
    let exec = Exec { isa: Isa::detect(), team: Some(&team) };
    group.bench_function(format!("{:?}x2", exec.isa), |b| b.iter(|| run(exec)));
    group.finish();
}

fn products(c: &mut Criterion) {
    for (m, in_size, out_size) in
        [(64, 512, 512), (1792, 512, 2048), (64, 1536, 512), (1792, 1536, 512), (1, 512, 512)]
    {
        let (x, w) = (numbers(m * in_size), numbers(in_size * out_size));
        let mut y = vec![0.0; m * out_size];
        for (precision, name) in PRECISIONS {
            let w = Linear::pack(&[&w], in_size, precision);
            on_threads(
                c,
                &format!("linear {m}x{in_size}x{out_size} {name}"),
                2 * m * in_size * out_size,
                |exec| {
                    linear(exec, black_box(&x), m, &w, Epilogue::Store, &mut y);
                },
            );
        }
    }
}

fn attentions(c: &mut Criterion) {
    let (heads, head_size, n) = (8, 64, 1792);
    let d = heads * head_size;
    let rows = numbers(n * 3 * d);
    for m in [1792, 64] {
        let mut out = vec![0.0; m * d];
        let mut scratch = AttentionScratch::new(2, head_size);
        for (precision, name) in PRECISIONS {
            let exec = Exec { isa: Isa::detect(), team: None };
            let mut kv = KeyValues::with_capacity(n, heads, head_size, precision);
            kv.fill(exec, &rows, n, 3 * d, d, 2 * d);
            on_threads(c, &format!("attention {m} over {n}, 8 heads of 64, {name}"), 4 * m * n * d, |exec| {
                attention(exec, black_box(&rows), m, 3 * d, 0, &kv, &mut scratch, &mut out);
            });
            if m == 1792 {
                on_threads(c, &format!("fill {n}, 8 heads of 64, {name}"), 2 * n * d, |exec| {
                    kv.fill(exec, black_box(&rows), n, 3 * d, d, 2 * d);
                });
            }
        }
    }
}

fn few_keys(c: &mut Criterion) {
    let (m, heads, head_size, len) = (64, 8, 64, 30);
    let d = heads * head_size;
    let (q, keys, values) = (numbers(m * d), numbers(len * m * d), numbers(len * m * d));
    let ancestors: Vec<u32> = (0..m * len).map(|i| (i * 7 % m) as u32).collect();
    let mut out = vec![0.0; m * d];
    on_threads(c, "cached_attention 64 over 30, 8 heads of 64", 4 * m * d * len, |exec| {
        cached_attention(
            exec, &q, m, d, 0, &keys, &values, m, &ancestors, len, len, heads, head_size, &mut out,
        );
    });
    let (lists, slots, heads) = (64, 10, 4);
    let d = heads * head_size;
    let qkv = numbers(lists * slots * 3 * d);
    let offsets: Vec<usize> = (0..=lists).map(|list| list * slots).collect();
    let mut out = vec![0.0; lists * slots * d];
    on_threads(c, "segment_attention 64 lists of 10, 4 heads of 64", 4 * lists * slots * slots * d, |exec| {
        segment_attention(exec, black_box(&qkv), &offsets, heads, head_size, &mut out);
    });
}

fn elementwise(c: &mut Criterion) {
    for m in [64, 1792] {
        let d = 512;
        let (x, weight) = (numbers(m * d), numbers(d));
        let mut y = vec![0.0; m * d];
        on_threads(c, &format!("rms_norm {m}x{d}"), 4 * m * d, |exec| {
            rms_norm(exec, black_box(&x), m, &weight, 1e-6, &mut y);
        });
        let rotary = Rotary::new(10_000.0, 64, 1792);
        on_threads(c, &format!("rotate {m}x{d}"), 3 * m * d, |exec| {
            rotate(exec, &rotary, &mut y, d, 0..d, |row| row);
        });
        on_threads(c, &format!("silu {m}x{d}"), m * d, |exec| {
            y.copy_from_slice(&x);
            math::silu_in_place(exec, &mut y);
        });
    }
}

fn peaks(c: &mut Criterion) {
    for (precision, name) in PRECISIONS {
        let flops = peak::flops_per_step(precision) as usize * 10_000;
        on_threads(c, &format!("peak {name}"), flops, |exec| {
            black_box(peak::run(exec, precision, black_box(10_000)));
        });
    }
}

criterion_group! {
    name = ops;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500))
        .sample_size(10)
        .without_plots();
    targets = peaks, products, attentions, few_keys, elementwise
}
criterion_main!(ops);
