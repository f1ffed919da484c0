//! Input vectors.

use bidslate::cuda::embed::{Features, embeddings};
use bidslate::cuda::launch::Buffer;

use crate::numbers::*;
use crate::setup::*;
use crate::streams::streams;

const ROWS: usize = 11;

#[test]
fn input_vectors_are_sums_of_rows_in_their_order() {
    let mut inputs = Inputs::new();
    for (tokens, d, most_features) in
        [(0, 64, 0), (1, 32, 2), (7, 96, 3), (8, 2, 0), (9, 1024, 1), (20, 160, 5)]
    {
        let table = narrow(&inputs.numbers(ROWS * d));
        let features = narrow(&inputs.numbers(ROWS * d));
        let token = inputs.indices(tokens, ROWS);
        let mut start = vec![0];
        for count in inputs.indices(tokens, most_features + 1) {
            start.push(start[start.len() - 1] + count);
        }
        let feature_row = inputs.indices(start[tokens] as usize, ROWS);
        let row = |table: &[half::bf16], row: u32| plain(&table[row as usize * d..][..d]);
        let plain_rows: Vec<f32> = token.iter().flat_map(|&token| row(&table, token)).collect();
        let mut sums = plain_rows.clone();
        for t in 0..tokens {
            for &feature in &feature_row[start[t] as usize..start[t + 1] as usize] {
                for (sum, feature) in sums[t * d..(t + 1) * d].iter_mut().zip(row(&features, feature)) {
                    *sum += feature;
                }
            }
        }
        for stream in streams() {
            let what = format!("{tokens} tokens of {d}, {}", stream.describe());
            let table = Buffer::from_slice(&stream, &table).unwrap();
            let token = Buffer::from_slice(&stream, &token).unwrap();
            let features = Buffer::from_slice(&stream, &features).unwrap();
            let start = Buffer::from_slice(&stream, &start).unwrap();
            let feature_row = Buffer::from_slice(&stream, &feature_row).unwrap();
            let added = Features { table: features.ptr(), start: start.ptr(), row: feature_row.ptr() };
            for (features, want) in [(None, &plain_rows), (Some(added), &sums)] {
                let mut x = Buffer::new(&stream, tokens * d).unwrap();
                embeddings(&*stream, table.ptr(), token.ptr(), features, tokens, d, x.ptr_mut()).unwrap();
                assert_same(&x.to_vec().unwrap(), want, &what);
            }
        }
    }
}
