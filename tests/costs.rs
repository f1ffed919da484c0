//! What the benches hold a stage's time against: counts by hand, and the sizes of the paper.

#[path = "../benches/gpu/costs.rs"]
mod costs;

use bidslate::model::config::{ModelConfig, ModelSize};
use costs::{Stages, Work, auction, quantizer, regret, throughput};
use criterion::Throughput;

/// d 4, one block each, 5 tokens (of one behaviour: its separator, two codes and one of the creative), 3 beams of lists
/// of 2 slots.
fn small() -> ModelConfig {
    ModelConfig {
        history_len: 1,
        list_len: 2,
        poi_code_layers: 2,
        creative_code_layers: 1,
        codebook_size: 5,
        beam_width: 3,
        encoder_layers: 1,
        decoder_layers: 1,
        hidden_size: 4,
        num_heads: 1,
        ffn_size: 8,
        item_embedding_size: 6,
        reward_hidden_size: 2,
        reward_layers: 1,
        ..ModelConfig::of_size(ModelSize::Tiny)
    }
}

#[test]
fn an_encoder_counts_its_products_and_attention() {
    // Weights: q, k, v, o 64, three of the feed-forward layer 96, keys and values of two decoder blocks 64.
    // Attention: 5 queries over 5 keys of width 4, two products each.
    let flops = 2 * 5 * (64 + 96 + 64) + 2 * 2 * 5 * 5 * 4;
    // A token is an id, an embedding of 4 and 16 keys and values; the mean is 4 floats.
    let bytes = 2 * 224 + 5 * (4 + 8 + 32) + 16;
    assert_eq!(Stages::new(&small(), 1).encoder(), Work { flops, bytes });
}

#[test]
fn a_batch_shares_the_weights_and_nothing_else() {
    let weights = Work { flops: 0, bytes: 2 * 224 };
    let (one, eight) = (Stages::new(&small(), 1).encoder(), Stages::new(&small(), 8).encoder());
    assert_eq!(eight + weights * 7, one * 8);
}

#[test]
fn a_decode_step_counts_all_beams_over_one_request() {
    // Weights: q, k, v, o of itself, q and o of the history 96, the feed-forward layer 96; a head of 4 x 5.
    // Two positions behind: 3 beams over 3 keys of their own, and over 5 of the history.
    let flops = 2 * 3 * (96 + 96 + 20) + 4 * 3 * (3 + 5) * 4;
    // Keys and values: bf16 of the history, floats of two shared rows and of three new ones; then of each beam a token,
    // its hidden state and its logits.
    let bytes = 2 * (192 + 20) + 2 * 2 * 5 * 4 + 4 * 2 * 4 * (2 + 3) + 3 * (4 + 16 + 20);
    assert_eq!(Stages::new(&small(), 1).decode_step(2), Work { flops, bytes });
    assert_eq!(Stages::new(&small(), 1).select(), Work { flops: 0, bytes: 4 * 3 * 5 });
    // The head, and the rows before and behind their norm.
    let (flops, bytes) = (2 * 3 * 20, 2 * 20 + 2 * 4 * 3 * 4);
    assert_eq!(Stages::new(&small(), 1).search_step(), Work { flops, bytes });
}

#[test]
fn creatives_are_counted_by_slot() {
    // 6 slots, one layer: the projection of two states 32, the block 192, the head 20; one own key, 5 of the history.
    let flops = 2 * 6 * (32 + 192 + 20) + 4 * 6 * (1 + 5) * 4;
    let bytes = 2 * (32 + 192 + 20) + 2 * 2 * 5 * 4 + 4 * 2 * 4 + 6 * 4;
    assert_eq!(Stages::new(&small(), 1).creative(), Work { flops, bytes });
}

#[test]
fn rewards_and_payments_count_their_networks() {
    // From 128 on: 128 x 32 + 32 x 10 + 10.
    let tail = 4426;
    // Input 18 x 2, block 13 x 4 (q, k, v, o, gate, up of 6, down), towers on 4 inputs.
    let weights = 36 + 52 + 3 * (4 * 128 + tail);
    let flops = 2 * 6 * weights + 4 * 6 * 2 * 2;
    let bytes = 4 * weights + 6 * (4 + 4 + 8 + 12) + 16;
    assert_eq!(Stages::new(&small(), 1).reward(), Work { flops, bytes });
    // Features of 2 and two bids.
    let weights = 4 * 128 + tail;
    let payment = Work { flops: 2 * 2 * weights, bytes: 4 * (weights + 2 * 2 + 2) };
    assert_eq!(Stages::new(&small(), 1).payment(), payment);
}

#[test]
fn misreports_of_a_slot_share_all_but_one_input() {
    // Two ads, three misreports each: features of 2 and the other's bid once, the last input and the tail each time.
    let flops = 2 * (2 * 3 * 128 + 6 * (128 + 4426));
    let bytes = 4 * (4 * 128 + 4426 + 2 * 3) + 6 * (8 + 4);
    assert_eq!(Stages::new(&small(), 1).misreports(2, 3), Work { flops, bytes });
}

#[test]
fn an_allocation_is_the_sum_of_its_stages() {
    let config = small();
    let stages = Stages::new(&config, 3);
    let head = Work { flops: 2 * 9 * 4 * 5, bytes: 2 * 4 * 5 + 4 * 9 * 5 };
    // Four positions with a head, and one without.
    let search = (0..=4).map(|past| stages.decode_step(past)).sum::<Work>() + stages.select() * 4;
    let rest = stages.encoder() + stages.creative() + stages.reward() + stages.payment();
    assert_eq!(stages.allocate() + head, search + rest);
}

#[test]
fn a_request_of_the_papers_sizes_takes_what_the_papers_sizes_ask() {
    for (size, gflops) in [(ModelSize::Small, 52.0), (ModelSize::Base, 156.0), (ModelSize::Large, 519.0)] {
        let flops = Stages::new(&ModelConfig::of_size(size), 1).allocate().flops as f64 / 1e9;
        assert!((flops / gflops - 1.0).abs() < 0.06, "{size:?}: {flops} GFLOP, expected about {gflops}");
    }
}

#[test]
fn auctions_and_codes_are_counted_by_hand() {
    // Three bidders of 24 bytes; two slots of 8 bytes read, and 12 written.
    assert_eq!(auction(7, 3, 2).bytes, 7 * (72 + 40));
    // 4 misreports of each bidder are a double each.
    assert_eq!(regret(7, 3, 2, 4).bytes, 7 * (72 + 16 + 96));
    let found = Work { flops: 2 * 10 * 24, bytes: 4 * 24 + 4 * 10 * 4 + 4 * 10 * 2 };
    assert_eq!(quantizer(10, [2, 3, 4]), found);
}

#[test]
fn work_without_arithmetic_counts_bytes() {
    let bytes = |flops| throughput(Work { flops, bytes: 3 });
    assert!(matches!(bytes(0), Throughput::Bytes(3)));
    assert!(matches!(bytes(2), Throughput::ElementsAndBytes { elements: 2, bytes: 3 }));
}
