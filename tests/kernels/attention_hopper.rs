//! Self-attention of ragged requests by bulk copies and wgmma.

use bidslate::cuda::attention_hopper::{HEAD_SIZE, attention_hopper};
use half::bf16;

use crate::attention::{Batch, Case, Code};
use crate::numbers::*;
use crate::setup::*;
use crate::streams::hopper_streams;

const HOPPER: Code = |stream, &Batch { qkv, rows, offsets, requests, longest, heads, head_size, out }| {
    assert_eq!(head_size, HEAD_SIZE);
    attention_hopper(stream, qkv, rows, offsets, requests, longest, heads, out)
};

/// Rows of each request of a batch, and heads: none, one, on both sides of a warpgroup's rows and of a tile.
const BATCHES: [(&[usize], usize); 7] = [
    (&[], 2),
    (&[1], 1),
    (&[63, 1, 64], 2),
    (&[65, 0, 127], 1),
    (&[128], 3),
    (&[129, 2], 1),
    (&[5, 256, 60], 1),
];

#[test]
fn attention_is_near_the_reference() {
    let mut inputs = Inputs::new();
    for (rows, heads) in BATCHES {
        for spread in [1.0, 4.0] {
            let case = Case::new(&mut inputs, (rows, heads, HEAD_SIZE), spread);
            hopper_streams().iter().for_each(|stream| case.check(stream, HOPPER));
        }
    }
}

/// So many tiles that every stage of the ring is filled again.
#[test]
fn a_long_request_is_near_the_reference() {
    let mut inputs = Inputs::new();
    let case = Case::new(&mut inputs, (&[1100], 1, HEAD_SIZE), 2.0);
    hopper_streams().iter().for_each(|stream| case.check(stream, HOPPER));
}

#[test]
fn a_request_gives_the_same_bits_alone() {
    let mut inputs = Inputs::new();
    let case = Case::new(&mut inputs, (&[70, 3, 130, 257, 66], 2, HEAD_SIZE), 2.0);
    hopper_streams().iter().for_each(|stream| case.check_alone(stream, HOPPER));
}

#[test]
fn large_scores_neither_overflow_nor_vanish() {
    let mut inputs = Inputs::new();
    let case = Case::new(&mut inputs, (&[131], 1, HEAD_SIZE), 1e4);
    for stream in hopper_streams() {
        let out = case.run(&stream, HOPPER);
        assert!(out.iter().all(|x| x.to_f32().abs() <= 1.01), "{}", stream.describe());
    }
}

/// The copies of a request's last keys and values bring those of the next one too: not even a NaN comes through.
#[test]
fn what_is_not_a_number_stays_in_its_row_or_request() {
    let mut inputs = Inputs::new();
    let mut case = Case::new(&mut inputs, (&[60, 5, 140], 1, HEAD_SIZE), 1.0);
    let (d, width) = (HEAD_SIZE, 3 * HEAD_SIZE);
    let before: Vec<_> = hopper_streams().iter().map(|stream| plain(&case.run(stream, HOPPER))).collect();
    case.qkv[60 * width..65 * width].fill(bf16::NAN);
    case.qkv[70 * width + 3] = bf16::NAN; // a query of the third request
    for (stream, before) in hopper_streams().iter().zip(before) {
        let found = plain(&case.run(stream, HOPPER));
        for (row, out) in found.chunks(d).enumerate() {
            if (60..65).contains(&row) || row == 70 {
                assert!(out.iter().all(|x| x.is_nan()), "row {row}, {}", stream.describe());
            } else {
                assert_same(out, &before[row * d..(row + 1) * d], &format!("row {row}"));
            }
        }
    }
}
