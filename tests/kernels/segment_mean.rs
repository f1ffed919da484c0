//! The mean of each request's states.

use bidslate::cuda::launch::Buffer;
use bidslate::cuda::segment_mean;

use crate::setup::{Inputs, assert_near, wide};
use crate::streams::streams;

#[test]
fn is_the_mean_of_the_rows_of_each_request() {
    let mut inputs = Inputs::new();
    for stream in streams() {
        for (d, offsets) in [(1, vec![0, 1]), (33, vec![0, 17, 17, 18, 51]), (64, vec![3, 19, 2 + 19])] {
            let requests = offsets.len() - 1;
            let x = inputs.numbers(offsets[requests] as usize * d);
            let mut mean = Buffer::new(&stream, requests * d).unwrap();
            let device_offsets = Buffer::from_slice(&stream, &offsets).unwrap();
            let device_x = Buffer::from_slice(&stream, &x).unwrap();
            segment_mean::run(&*stream, &device_x, &device_offsets, requests, d, &mut mean).unwrap();
            let mut want = vec![0.0; requests * d];
            for (want, range) in want.chunks_mut(d).zip(offsets.windows(2)) {
                let rows = wide(&x[range[0] as usize * d..range[1] as usize * d]);
                for row in rows.chunks(d) {
                    want.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
                }
                want.iter_mut().for_each(|sum| *sum /= f64::from((range[1] - range[0]).max(1)));
            }
            assert_near(&mean.to_vec().unwrap(), &want, |_| 1.0, 1e-6, &format!("width {d}"));
        }
    }
}
