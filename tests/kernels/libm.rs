//! The functions that the search shares with the CPU's.

use std::sync::Arc;

use bidslate::cuda::launch::{Buffer, LaunchShape, Stream};
use rand::RngExt;

use crate::search::{Rng, rng};
use crate::streams::streams;

bidslate::kernels! {
    in "libm_check";

    /// exp, log and log1p of each value.
    fn libm_check(x: Ptr<f64>, exps: PtrMut<f64>, logs: PtrMut<f64>, log1ps: PtrMut<f64>, n: u32);

    /// The sum of bids behind each node.
    fn bid_sum_check(bids: Ptr<u64>, totals: PtrMut<f64>, m: u32);
}

/// exp, log and log1p of the kernels are those of the CPU, to the bit, and sums of bids round as 128 bits do.
#[test]
fn functions_are_those_of_the_cpu_to_the_bit() {
    let mut rng = rng("functions_are_those_of_the_cpu_to_the_bit");
    for (stream, count) in streams().into_iter().zip([200_000, 4_000]) {
        let mut x =
            vec![0.0, -0.0, 1.0, -1.0, 5e-324, -745.2, -745.1, -708.4, 709.7, 0.5, 1e300, f64::INFINITY];
        x.extend((0..count).map(|i| match i % 4 {
            0 => f64::from_bits(rng.random()),
            1 => rng.random_range(-750.0..710.0),
            2 => rng.random_range(-3.0..3.0),
            _ => 1.0 + rng.random_range(-1e-3..1e-3),
        }));
        x.retain(|x| !x.is_nan());
        let n = x.len();
        let device_x = Buffer::from_slice(&stream, &x).unwrap();
        let mut out: Vec<Buffer<f64>> = (0..3).map(|_| Buffer::new(&stream, n).unwrap()).collect();
        let shape = LaunchShape::new([n.div_ceil(256) as u32, 1, 1], 256);
        let [exps, logs, log1ps] = &mut out[..] else { unreachable!() };
        libm_check(
            &*stream,
            shape,
            device_x.ptr(),
            exps.ptr_mut(),
            logs.ptr_mut(),
            log1ps.ptr_mut(),
            n as u32,
        )
        .unwrap();
        let out: Vec<Vec<f64>> = out.iter().map(|values| values.to_vec().unwrap()).collect();
        for (i, &x) in x.iter().enumerate() {
            let expected = [libm::exp(x), libm::log(x.abs()), libm::log1p(x.abs())];
            for (function, (out, expected)) in ["exp", "log", "log1p"].iter().zip(out.iter().zip(expected)) {
                assert_eq!(
                    out[i].to_bits(),
                    expected.to_bits(),
                    "{function} of {x:e}: {} {expected}",
                    out[i]
                );
            }
        }
        check_sums(&stream, &mut rng);
    }
}

fn check_sums(stream: &Arc<dyn Stream>, rng: &mut Rng) {
    let sums: Vec<[u64; 2]> = (0..2000)
        .map(|_| {
            [rng.random::<u64>() >> rng.random_range(0..64), rng.random::<u64>() >> rng.random_range(0..64)]
        })
        .collect();
    let words: Vec<u64> = sums.iter().flat_map(|&[low, high]| [0, low, high, 0]).collect();
    let bids = Buffer::from_slice(stream, &words).unwrap();
    let mut totals = Buffer::<f64>::new(stream, sums.len()).unwrap();
    let shape = LaunchShape::new([sums.len().div_ceil(256) as u32, 1, 1], 256);
    bid_sum_check(&**stream, shape, bids.ptr(), totals.ptr_mut(), sums.len() as u32).unwrap();
    for (&[low, high], total) in sums.iter().zip(totals.to_vec().unwrap()) {
        let exact = (u128::from(high) << 32) + u128::from(low);
        assert_eq!(total, exact as f64, "{low} {high}");
    }
}
