//! The residual quantizer against the CPU's: the same codes, ties included.

use bidslate::catalog::Quantizer;
use bidslate::cuda::launch::Buffer;
use bidslate::cuda::quantize::Codebook;

use crate::setup::Inputs;
use crate::streams::streams;

#[test]
fn gives_the_codes_of_the_cpu() {
    let mut inputs = Inputs::new();
    for stream in streams() {
        for (rows, [layers, codes, width]) in [
            (0, [1, 4, 3]),
            (1, [1, 1, 1]),
            (7, [3, 5, 4]),
            (9, [2, 257, 32]),
            (17, [3, 600, 9]),
            (2, [1, 65_536, 2]),
        ] {
            let mut codebook = inputs.numbers(layers * codes * width);
            // Every code twice, so that there are ties to break, and vectors that lie on codes.
            let half = codes / 2 * width;
            for book in codebook.chunks_mut(codes * width) {
                book.copy_within(..half, codes * width - half);
            }
            let mut y = inputs.numbers(rows * width);
            let whole = y.len().min(width);
            y[..whole].copy_from_slice(&codebook[..whole]);
            let shape = [layers, codes, width];
            let want =
                Quantizer::new(width, Vec::new(), codebook.clone(), shape).unwrap().encode(&y).unwrap();

            let book = Codebook::new(&stream, &codebook, shape).unwrap();
            let y = Buffer::from_slice(&stream, &y).unwrap();
            let mut got = Buffer::new(&stream, rows * layers).unwrap();
            let mut fault = Buffer::new(&stream, rows).unwrap();
            book.quantize(&*stream, &y, rows, &mut got, &mut fault).unwrap();
            assert_eq!(got.to_vec().unwrap(), want, "{rows} rows, codebook {shape:?}");
            assert_eq!(fault.to_vec().unwrap(), vec![0; rows]);
        }
    }
}

/// Codes that are the same numbers in another order and with other signs are all as far from zero, but for the rounding
/// of the sums: a fused multiply-add or another order of the sum finds another code.
#[test]
fn rounds_as_the_cpu_does() {
    let mut inputs = Inputs::new();
    let (codes, width) = (500, 16);
    let shape = [1, codes, width];
    for stream in streams() {
        for _ in 0..8 {
            let numbers = inputs.numbers(width);
            let codebook: Vec<f32> = (0..codes)
                .flat_map(|_| {
                    let mut entry = numbers.clone();
                    for (i, j) in inputs.indices(width, width).into_iter().enumerate() {
                        entry.swap(i, j as usize);
                        entry[i] = -entry[i];
                    }
                    entry
                })
                .collect();
            let y = vec![0.0; width];
            let want =
                Quantizer::new(width, Vec::new(), codebook.clone(), shape).unwrap().encode(&y).unwrap();
            let book = Codebook::new(&stream, &codebook, shape).unwrap();
            let mut got = Buffer::new(&stream, 1).unwrap();
            let mut fault = Buffer::new(&stream, 1).unwrap();
            let y = Buffer::from_slice(&stream, &y).unwrap();
            book.quantize(&*stream, &y, 1, &mut got, &mut fault).unwrap();
            assert_eq!(got.to_vec().unwrap(), want);
        }
    }
}

#[test]
fn a_vector_without_a_nearest_code_is_named() {
    for stream in streams() {
        let shape = [2, 2, 2];
        let codebook = [0.0, 0.0, 1.0, 1.0, 0.0, 0.5, -0.5, 0.0];
        let y = [1.0, 1.0, f32::NAN, 0.0, 3e30, 0.0, 0.25, f32::INFINITY, 0.0, 0.0];
        let book = Codebook::new(&stream, &codebook, shape).unwrap();
        let y = Buffer::from_slice(&stream, &y).unwrap();
        let mut codes = Buffer::new(&stream, 10).unwrap();
        let mut fault = Buffer::new(&stream, 5).unwrap();
        book.quantize(&*stream, &y, 5, &mut codes, &mut fault).unwrap();
        assert_eq!(fault.to_vec().unwrap(), [0, 1, 1, 1, 0]);
        assert_eq!(codes.to_vec().unwrap(), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
