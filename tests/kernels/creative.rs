//! Both ends of the creative decoder: its input rows, and the choice of a code.

use bidslate::cpu::norm::rms_norm;
use bidslate::cpu::{Exec, Isa};
use bidslate::cuda::creative_choose::{self, Choices, Layer};
use bidslate::cuda::creative_input::{self, NO_ROW, Norms, Rows};
use bidslate::cuda::launch::{Buffer, Stream};
use half::bf16;
use std::sync::Arc;

use crate::setup::Inputs;
use crate::streams::streams;

#[test]
fn input_rows_are_the_norms_of_the_cpu_rounded() {
    let exec = Exec { isa: Isa::Scalar, team: None };
    let mut inputs = Inputs::new();
    let (states, vocabulary) = (23, 40);
    for stream in streams() {
        for (rows, d) in [(0, 32), (1, 32), (7, 33), (8, 64), (9, 100), (17, 256)] {
            let hidden = inputs.numbers(states * d);
            let embed: Vec<bf16> = inputs.numbers(vocabulary * d).into_iter().map(bf16::from_f32).collect();
            let weights = [inputs.numbers(d), inputs.numbers(d)];
            let mut hidden_row = inputs.indices(rows, states);
            let token = inputs.indices(rows, vocabulary);
            if rows > 2 {
                hidden_row[1] = NO_ROW;
            }
            let mut want = Vec::new();
            for (&row, &token) in hidden_row.iter().zip(&token) {
                let mut line = vec![0.0; 2 * d];
                if row != NO_ROW {
                    let e: Vec<f32> = embed[token as usize * d..][..d].iter().map(|x| x.to_f32()).collect();
                    let h = &hidden[row as usize * d..][..d];
                    rms_norm(exec, h, 1, &weights[0], 1e-6, &mut line[..d]);
                    rms_norm(exec, &e, 1, &weights[1], 1e-6, &mut line[d..]);
                }
                want.extend(line.into_iter().map(bf16::from_f32));
            }

            let upload = |values: &[f32]| Buffer::from_slice(&stream, values).unwrap();
            let norms = Norms { hidden: upload(&weights[0]), embed: upload(&weights[1]), eps: 1e-6 };
            let from = Rows {
                hidden: &upload(&hidden),
                hidden_row: &Buffer::from_slice(&stream, &hidden_row).unwrap(),
                embed: &Buffer::from_slice(&stream, &embed).unwrap(),
                token: &Buffer::from_slice(&stream, &token).unwrap(),
            };
            let mut x = Buffer::new(&stream, rows * 2 * d).unwrap();
            creative_input::run(&*stream, from, &norms, rows, &mut x).unwrap();
            assert_eq!(x.to_vec().unwrap(), want, "{rows} rows of {d}");
        }
    }
}

/// Items with creatives: their codes, sorted inside each item.
struct Items {
    codes: Vec<u16>,
    /// Creatives of each item.
    ranges: Vec<[u32; 2]>,
}

const LAYERS: usize = 3;

impl Items {
    fn new(inputs: &mut Inputs, sizes: &[usize], codebook: usize) -> Self {
        let mut items = Self { codes: Vec::new(), ranges: Vec::new() };
        for &size in sizes {
            let start = (items.codes.len() / LAYERS) as u32;
            let codes = inputs.indices(size * LAYERS, codebook);
            let mut creatives: Vec<Vec<u16>> =
                codes.chunks(LAYERS).map(|c| c.iter().map(|&k| k as u16).collect()).collect();
            creatives.sort();
            items.codes.extend(creatives.concat());
            items.ranges.push([start, start + size as u32]);
        }
        items
    }

    fn codes(&self, creative: u32) -> &[u16] {
        &self.codes[creative as usize * LAYERS..][..LAYERS]
    }

    /// The definition: among the codes that extend the prefix the largest logit, ties to the lowest code. None where
    /// the creatives differ from `layer` on and a logit is not finite.
    fn choose(&self, [begin, end]: [u32; 2], layer: usize, logits: &[f32]) -> Option<([u32; 2], u16)> {
        let first = self.codes(begin);
        if (begin..end).all(|c| self.codes(c) == first) {
            return Some(([begin, end], first[layer]));
        }
        let logit = |c: u32| logits[self.codes(c)[layer] as usize];
        if (begin..end).any(|c| !logit(c).is_finite()) {
            return None;
        }
        let most = (begin..end).map(logit).fold(f32::NEG_INFINITY, f32::max);
        let code = (begin..end).filter(|&c| logit(c) == most).map(|c| self.codes(c)[layer]).min().unwrap();
        let left: Vec<u32> = (begin..end).filter(|&c| self.codes(c)[layer] == code).collect();
        Some(([left[0], left[left.len() - 1] + 1], code))
    }
}

/// The begins and the ends of ranges, on a device.
fn ends(stream: &Arc<dyn Stream>, ranges: &[[u32; 2]]) -> [Buffer<u32>; 2] {
    [0, 1].map(|end| {
        let values: Vec<u32> = ranges.iter().map(|range| range[end]).collect();
        Buffer::from_slice(stream, &values).unwrap()
    })
}

/// The ranges that are left.
fn left(choices: &Choices) -> Vec<[u32; 2]> {
    let (begin, end) = (choices.begin.to_vec().unwrap(), choices.end.to_vec().unwrap());
    begin.into_iter().zip(end).map(|(begin, end)| [begin, end]).collect()
}

#[test]
fn chooses_by_the_definition_layer_after_layer() {
    let mut inputs = Inputs::new();
    let sizes = [1, 0, 2, 3, 31, 32, 33, 40, 100, 5, 5, 7];
    let rows = sizes.len();
    for stream in streams() {
        for codebook in [2, 7, 65_536] {
            let items = Items::new(&mut inputs, &sizes, codebook);
            let codes = Buffer::from_slice(&stream, &items.codes).unwrap();
            let [mut begin, mut end] = ends(&stream, &items.ranges);
            let mut token = Buffer::from_slice(&stream, &vec![u32::MAX; rows]).unwrap();
            let mut fault = Buffer::from_slice(&stream, &[0; 3]).unwrap();
            let mut choices = Choices {
                codes: &codes,
                per_request: rows / 3,
                begin: &mut begin,
                end: &mut end,
                token: &mut token,
                fault: &mut fault,
            };
            let mut ranges = items.ranges.clone();
            for index in 0..LAYERS {
                // Few distinct logits, so that there are ties; some below zero, some zeros of either sign.
                let logits: Vec<f32> = inputs
                    .indices(rows * codebook, 5)
                    .iter()
                    .map(|&i| [-1.5, -0.0, 0.0, 2.0, 2.5][i as usize])
                    .collect();
                let first_token = 100 * (index + 1);
                let layer = Layer { index, count: LAYERS, codebook, first_token };
                let device_logits = Buffer::from_slice(&stream, &logits).unwrap();
                creative_choose::run(&*stream, &device_logits, layer, rows, &mut choices).unwrap();
                let mut tokens = Vec::new();
                for (row, range) in ranges.iter_mut().enumerate() {
                    tokens.push(u32::MAX);
                    if range[0] < range[1] {
                        let logits = &logits[row * codebook..][..codebook];
                        let (left, code) = items.choose(*range, index, logits).unwrap();
                        *range = left;
                        tokens[row] = (first_token + usize::from(code)) as u32;
                    }
                }
                assert_eq!(choices.token.to_vec().unwrap(), tokens, "layer {index}, codebook {codebook}");
                assert_eq!(left(&choices), ranges, "layer {index}");
            }
            assert_eq!(choices.fault.to_vec().unwrap(), [0; 3]);
        }
    }
}

#[test]
fn a_logit_that_is_not_finite_faults_its_request_alone() {
    for stream in streams() {
        // Items of request 0, 1, 2 and 3: one creative; two whose codes differ; two alike; two with code 3 unused.
        let codes: [u16; 21] = [0, 0, 0, 0, 1, 0, 1, 0, 0, 2, 2, 2, 2, 2, 2, 0, 0, 0, 1, 1, 1];
        let logits =
            [[f32::NAN; 4], [0.0, f32::INFINITY, 0.0, 0.0], [f32::NAN; 4], [0.0, 1.0, 0.0, f32::NAN]];
        let codes = Buffer::from_slice(&stream, &codes).unwrap();
        let [mut begin, mut end] = ends(&stream, &[[0, 1], [1, 3], [3, 5], [5, 7]]);
        let mut token = Buffer::from_slice(&stream, &[9; 4]).unwrap();
        let mut fault = Buffer::from_slice(&stream, &[0; 4]).unwrap();
        let mut choices = Choices {
            codes: &codes,
            per_request: 1,
            begin: &mut begin,
            end: &mut end,
            token: &mut token,
            fault: &mut fault,
        };
        let logits = Buffer::from_slice(&stream, logits.as_flattened()).unwrap();
        let layer = Layer { index: 0, count: LAYERS, codebook: 4, first_token: 50 };
        creative_choose::run(&*stream, &logits, layer, 4, &mut choices).unwrap();
        assert_eq!(left(&choices), [[0, 1], [1, 3], [3, 5], [6, 7]]);
        assert_eq!(fault.to_vec().unwrap(), [0, 1, 0, 0]);
        assert_eq!(token.to_vec().unwrap(), [50, 50, 52, 51]);
    }
}
