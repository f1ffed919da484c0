//! The least that each stage of a batch must do: floating point operations, and bytes to and from device memory.
//!
//! An input counts once however often it is read, an output once, and what stays between two launches not at all. What
//! the beams of a request may share (their past keys and values) counts as if they did. Weights of norms, biases and the
//! bookkeeping of the search are left out. So the time that a card's limits give for this is one that nothing beats.

use std::iter::Sum;
use std::ops::{Add, Mul};

use bidslate::model::config::ModelConfig;
use bidslate::model::mlp::HIDDEN;
use criterion::Throughput;

/// Sizes of a bf16, of a float, and of an id.
const BF16: usize = 2;
const F32: usize = 4;
const ID: usize = 4;
const MICROS: usize = 8;
/// Towers of the reward model.
const TOWERS: usize = 3;

/// An amount of work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Floating point operations: a product and its sum are two.
    pub flops: usize,
    /// Bytes read and written.
    pub bytes: usize,
}

impl Add for Work {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { flops: self.flops + other.flops, bytes: self.bytes + other.bytes }
    }
}

impl Mul<usize> for Work {
    type Output = Self;

    fn mul(self, times: usize) -> Self {
        Self { flops: self.flops * times, bytes: self.bytes * times }
    }
}

impl Sum for Work {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

/// The throughput column of some work: FLOPs and bytes, or bytes where it only moves them.
pub fn throughput(work: Work) -> Throughput {
    let (elements, bytes) = (work.flops as u64, work.bytes as u64);
    if elements == 0 { Throughput::Bytes(bytes) } else { Throughput::ElementsAndBytes { elements, bytes } }
}

/// The stages of a batch of `requests` with full histories and all beams.
pub struct Stages<'c> {
    config: &'c ModelConfig,
    requests: usize,
    /// n: encoder rows of a request.
    tokens: usize,
    /// Rows of a decode step.
    beams: usize,
    /// Slots of all lists.
    slots: usize,
}

impl<'c> Stages<'c> {
    pub fn new(config: &'c ModelConfig, requests: usize) -> Self {
        let beams = requests * config.beam_width;
        let tokens = config.history_tokens(config.history_len);
        Self { config, requests, tokens, beams, slots: beams * config.list_len }
    }

    /// Positions of the search that choose a code.
    pub fn steps(&self) -> usize {
        self.config.list_len * self.config.poi_code_layers
    }

    /// Histories to the keys and values of all decoder blocks, and the means of the states.
    pub fn encoder(&self) -> Work {
        let ModelConfig { hidden_size: d, ffn_size, encoder_layers, decoder_layers, .. } = *self.config;
        let rows = self.requests * self.tokens;
        // Keys and values of the POI decoder's blocks and of the creative decoder's.
        let cross = 2 * d * (decoder_layers + 1);
        let weights = encoder_layers * (4 * d * d + 3 * d * ffn_size) + cross * d;
        Work {
            flops: 2 * rows * weights + encoder_layers * attention(rows, self.tokens, d),
            bytes: BF16 * weights + rows * (ID + BF16 * d + BF16 * cross) + F32 * self.requests * d,
        }
    }

    /// A position of the POI decoder that `past` positions are behind, with the logits of a code layer.
    pub fn decode_step(&self, past: usize) -> Work {
        let ModelConfig { hidden_size: d, codebook_size, .. } = *self.config;
        let head = Work {
            flops: 2 * self.beams * d * codebook_size,
            bytes: BF16 * d * codebook_size + F32 * self.beams * codebook_size,
        };
        self.position(past) + head
    }

    /// A position of the POI decoder without a head.
    fn position(&self, past: usize) -> Work {
        let ModelConfig { hidden_size: d, decoder_layers, .. } = *self.config;
        let weights = decoder_layers * self.decoder_block();
        let attended = attention(self.beams, past + 1, d) + attention(self.beams, self.tokens, d);
        let cross = BF16 * 2 * self.requests * self.tokens * d;
        let cache = F32 * 2 * d * (self.requests * past + self.beams);
        Work {
            flops: 2 * self.beams * weights + decoder_layers * attended,
            bytes: BF16 * weights + decoder_layers * (cross + cache) + self.beams * (ID + F32 * d),
        }
    }

    /// Weights of a block with self- and cross-attention, without the latter's keys and values.
    fn decoder_block(&self) -> usize {
        let ModelConfig { hidden_size: d, ffn_size, .. } = *self.config;
        6 * d * d + 3 * d * ffn_size
    }

    /// A step of the search from its logits: what it moves is the logits, and what it computes is not counted.
    pub fn select(&self) -> Work {
        Work { flops: 0, bytes: F32 * self.beams * self.config.codebook_size }
    }

    /// A step of the search from the decoder's rows, which it norms and keeps.
    pub fn search_step(&self) -> Work {
        let ModelConfig { hidden_size: d, codebook_size, .. } = *self.config;
        Work {
            flops: 2 * self.beams * d * codebook_size,
            bytes: BF16 * d * codebook_size + 2 * F32 * self.beams * d,
        }
    }

    /// The creative of every slot of every list.
    pub fn creative(&self) -> Work {
        let ModelConfig { hidden_size: d, codebook_size, creative_code_layers: layers, .. } = *self.config;
        let block = 2 * d * d + self.decoder_block();
        let own: usize = (1..=layers).map(|keys| attention(self.slots, keys, d)).sum();
        let products = 2 * self.slots * (block + d * codebook_size);
        let cross = BF16 * 2 * self.requests * self.tokens * d;
        let hidden = F32 * self.requests * self.config.list_len * d;
        Work {
            flops: layers * (products + attention(self.slots, self.tokens, d)) + own,
            bytes: BF16 * (block + layers * d * codebook_size) + cross + hidden + self.slots * ID,
        }
    }

    /// Probabilities of every slot, rewards of every list, the winners.
    pub fn reward(&self) -> Work {
        let ModelConfig { hidden_size: d, reward_hidden_size: r, reward_layers, list_len, .. } = *self.config;
        let width = 3 * d + self.config.item_embedding_size;
        let weights = width * r + reward_layers * 13 * r * r + TOWERS * mlp_weights(2 * r);
        // An item, a creative and a bid of each slot; a float of each tower.
        let slot = 2 * ID + MICROS + TOWERS * F32;
        Work {
            flops: 2 * self.slots * weights + reward_layers * attention(self.slots, list_len, r),
            bytes: F32 * weights + self.slots * slot + F32 * self.requests * d,
        }
    }

    /// The payment network on the winning lists.
    pub fn payment(&self) -> Work {
        let ModelConfig { reward_hidden_size: r, list_len, .. } = *self.config;
        let (rows, weights) = (self.requests * list_len, mlp_weights(r + list_len));
        Work { flops: 2 * rows * weights, bytes: F32 * (weights + rows * r + rows) }
    }

    /// The payment network on `ads` slots, each under `each` misreports that change one of its inputs.
    pub fn misreports(&self, ads: usize, each: usize) -> Work {
        let ModelConfig { reward_hidden_size: r, list_len, .. } = *self.config;
        let (others, count) = (r + list_len - 1, ads * each);
        let weights = mlp_weights(others + 1);
        let own = weights - others * HIDDEN[0];
        // Features and bids of each slot; ln z and a rate of each misreport.
        let bytes = F32 * (weights + ads * others) + count * (MICROS + F32);
        Work { flops: 2 * (ads * others * HIDDEN[0] + count * own), bytes }
    }

    /// All positions of the POI decoder and the steps of the search between: the one after the last code has no head.
    pub fn search(&self) -> Work {
        let steps = self.steps();
        let chosen = (0..steps).map(|past| self.decode_step(past) + self.select()).sum::<Work>();
        chosen + self.position(steps)
    }

    /// Everything, stage after stage.
    pub fn allocate(&self) -> Work {
        self.encoder() + self.search() + self.creative() + self.reward() + self.payment()
    }
}

/// FLOPs of `rows` queries of width `d` over `keys` keys and values each, all heads together.
fn attention(rows: usize, keys: usize, d: usize) -> usize {
    4 * rows * keys * d
}

/// Weights of a small MLP with one output, without biases.
fn mlp_weights(inputs: usize) -> usize {
    let widths = [inputs, HIDDEN[0], HIDDEN[1], HIDDEN[2], 1];
    widths.windows(2).map(|pair| pair[0] * pair[1]).sum()
}

/// Stand-alone auctions of `bidders` for `slots`. Read: bid, reserve and weight of a bidder, effect of a slot. Written:
/// winner and payment of a slot.
pub fn auction(auctions: usize, bidders: usize, slots: usize) -> Work {
    Work { flops: 0, bytes: auctions * (bidders * 3 * 8 + slots * (8 + ID + MICROS)) }
}

/// Utilities of all bidders of such auctions under `gammas` misreports each.
pub fn regret(auctions: usize, bidders: usize, slots: usize, gammas: usize) -> Work {
    Work { flops: 0, bytes: auctions * (bidders * 3 * 8 + slots * 8 + bidders * gammas * 8) }
}

/// Codes of `rows` vectors in `layers` codebooks of `codes` vectors: the distance to a code as a product.
pub fn quantizer(rows: usize, [layers, codes, width]: [usize; 3]) -> Work {
    let books = layers * codes * width;
    Work { flops: 2 * rows * books, bytes: F32 * (books + rows * width) + ID * rows * layers }
}
