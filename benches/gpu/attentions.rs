//! Attention over a history: of its own rows, and of 64 beams.

use bidslate::cuda::attention::attention;
use bidslate::cuda::attention_hopper::attention_hopper;
use bidslate::cuda::beam_attention::{BeamScratch, Beams, CrossKeys, beam_attention};
use bidslate::cuda::beam_attention_hopper::{Cluster, beam_attention_hopper};
use bidslate::cuda::launch::{Buffer, Ptr, PtrMut};
use bidslate::error::DeviceError;
use criterion::{Criterion, Throughput};
use half::bf16;

use crate::device::{Cache, Device};

const HEAD_SIZE: usize = 64;

pub fn bench(criterion: &mut Criterion, device: &Device) {
    for d in device.hidden_sizes() {
        for requests in device.pick(vec![1, 8, 32], vec![2]) {
            of_histories(criterion, device, requests, d);
            of_beams(criterion, device, requests, d);
        }
    }
}

fn offsets(requests: usize, rows: usize) -> Vec<u32> {
    (0..=requests).map(|request| (request * rows) as u32).collect()
}

fn of_histories(criterion: &mut Criterion, device: &Device, requests: usize, d: usize) {
    let (n, heads, stream) = (device.tokens(), d / HEAD_SIZE, &*device.stream);
    let rows = requests * n;
    let bytes = 2 * rows * 4 * d;
    let (qkv, mut out) = (device.rotated(rows * 3 * d, bytes), device.rotated(rows * d, bytes));
    let offsets = device.upload(&offsets(requests, n));
    let flops = (4 * rows * n * d) as u64;
    let mut bench = |name: &str, code: &Histories| {
        let name = format!("{name} {requests}x{n}, {heads} heads");
        device.bench(criterion, &name, Throughput::Elements(flops), Cache::Warm, |run| {
            let at = run % qkv.len();
            code(qkv[at].ptr(), offsets.ptr(), out[at].ptr_mut())
        });
    };
    bench("attention", &|qkv, offsets, out| {
        attention(stream, qkv, offsets, requests, n, heads, HEAD_SIZE, out)
    });
    if stream.hopper().is_ok() {
        bench("attention_hopper", &|qkv, offsets, out| {
            attention_hopper(stream, qkv, rows, offsets, requests, n, heads, out)
        });
    }
}

/// Attention of queries, keys and values side by side, offsets and output given.
type Histories<'a> = dyn Fn(Ptr<bf16>, Ptr<u32>, PtrMut<bf16>) -> Result<(), DeviceError> + 'a;

fn of_beams(criterion: &mut Criterion, device: &Device, requests: usize, d: usize) {
    let (n, heads, beams, stream) = (device.tokens(), d / HEAD_SIZE, 64, &*device.stream);
    let sizes = Beams { requests, beams, heads, head_size: HEAD_SIZE, most_keys: n };
    let bytes = 2 * requests * (n * 2 * d + 2 * beams * d);
    let kv = device.rotated(requests * n * 2 * d, bytes);
    let (q, mut out) =
        (device.rotated(requests * beams * d, bytes), device.rotated(requests * beams * d, bytes));
    let offsets = device.upload(&offsets(requests, n));
    let mut scratch = BeamScratch::new(&device.stream, sizes).expect("device memory");
    let flops = (4 * requests * beams * n * d) as u64;
    let cross = |kv: &Buffer<bf16>| CrossKeys {
        keys: kv.ptr(),
        stride: 2 * d,
        rows: requests * n,
        offsets: offsets.ptr(),
    };
    let mut bench = |name: &str, code: &mut OfBeams| {
        let name = format!("{name} {requests}x{beams} over {n}, {heads} heads");
        device.bench(criterion, &name, Throughput::Elements(flops), Cache::Warm, |run| {
            let at = run % kv.len();
            code(q[at].ptr(), cross(&kv[at]), out[at].ptr_mut())
        });
    };
    bench("beam_attention", &mut |q, cross, out| beam_attention(stream, sizes, q, cross, &mut scratch, out));
    if stream.hopper().is_ok() {
        bench("beam_attention_hopper", &mut |q, cross, out| {
            beam_attention_hopper(stream, sizes, Cluster::Eight, q, cross, out)
        });
    }
}

/// Attention of queries to keys and values, output given.
type OfBeams<'a> = dyn FnMut(Ptr<bf16>, CrossKeys, PtrMut<bf16>) -> Result<(), DeviceError> + 'a;
