//! Attention over a history: of its own rows, and of 64 beams.

use bidslate::cuda::attention::attention;
use bidslate::cuda::beam_attention::{BeamScratch, Beams, CrossKeys, beam_attention};
use criterion::{Criterion, Throughput};

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
    let (n, heads) = (device.tokens(), d / HEAD_SIZE);
    let rows = requests * n;
    let bytes = 2 * rows * 4 * d;
    let (qkv, mut out) = (device.rotated(rows * 3 * d, bytes), device.rotated(rows * d, bytes));
    let offsets = device.upload(&offsets(requests, n));
    let flops = Throughput::Elements((4 * rows * n * d) as u64);
    device.bench(criterion, &format!("attention {requests}x{n}, {heads} heads"), flops, Cache::Warm, |run| {
        let at = run % qkv.len();
        let (qkv, out) = (qkv[at].ptr(), out[at].ptr_mut());
        attention(&*device.stream, qkv, offsets.ptr(), requests, n, heads, HEAD_SIZE, out)
    });
}

fn of_beams(criterion: &mut Criterion, device: &Device, requests: usize, d: usize) {
    let (n, heads, beams) = (device.tokens(), d / HEAD_SIZE, 64);
    let sizes = Beams { requests, beams, heads, head_size: HEAD_SIZE, most_keys: n };
    let bytes = 2 * requests * (n * 2 * d + 2 * beams * d);
    let kv = device.rotated(requests * n * 2 * d, bytes);
    let (q, mut out) =
        (device.rotated(requests * beams * d, bytes), device.rotated(requests * beams * d, bytes));
    let offsets = device.upload(&offsets(requests, n));
    let mut scratch = BeamScratch::new(&device.stream, sizes).expect("device memory");
    let flops = Throughput::Elements((4 * requests * beams * n * d) as u64);
    device.bench(
        criterion,
        &format!("beam_attention {requests}x{beams} over {n}, {heads} heads"),
        flops,
        Cache::Warm,
        |run| {
            let at = run % kv.len();
            let cross = CrossKeys { keys: kv[at].ptr(), stride: 2 * d, offsets: offsets.ptr() };
            beam_attention(&*device.stream, sizes, q[at].ptr(), cross, &mut scratch, out[at].ptr_mut())
        },
    );
}
