//! The encoder with Hopper's fused products beside the one of separate kernels.

use std::sync::Arc;

use bidslate::cuda::choice::{Choice, Code, Kernels};
use bidslate::cuda::launch::Stream;
use bidslate::cuda::model::DeviceModel;
use bidslate::model;
use bidslate::model::config::ModelConfig;
use bidslate::model::encoder::{History, HistoryEntry};
use bidslate::model::weights::WeightType;
use rand::{Rng, RngExt};

use crate::setup::*;
use crate::streams::hopper_streams;
use crate::world::{self, World};

/// Behaviours of each request of a batch: none, one, and more rows than a tile has.
const BATCH: [usize; 4] = [3, 0, 11, 1];

/// Two blocks, so that one's last norm is the other's first, and rows of one tile and a half.
fn config() -> ModelConfig {
    let (num_heads, hidden_size, ffn_size) = (3, 192, 144);
    ModelConfig { num_heads, hidden_size, ffn_size, encoder_layers: 2, history_len: 11, ..world::config() }
}

fn history(config: &ModelConfig, behaviors: usize, rng: &mut impl Rng) -> History {
    let mut codes =
        |layers: usize| (0..layers).map(|_| rng.random_range(0..config.codebook_size as u16)).collect();
    let mut entry = || HistoryEntry {
        codes: codes(config.poi_code_layers),
        creative_codes: codes(config.creative_code_layers),
        features: vec![(1, 1)],
    };
    let behaviors = (0..behaviors).map(|_| entry()).collect();
    History { context: vec![(0, 3)], behaviors }
}

/// S_e of all rows and their means.
fn encode(stream: &Arc<dyn Stream>, model: &DeviceModel, histories: &[&History]) -> [Vec<f32>; 2] {
    let (encoder, config) = (&model.encoder, &model.config);
    let tokens = config.history_tokens(config.history_len);
    let mut state = encoder.state(stream, histories.len(), tokens, 1 + config.history_len).unwrap();
    let (table, angles) = (model.table.ptr(), model.angles.ptr());
    encoder.run(&**stream, config, table, angles, histories, &mut state).unwrap();
    let mut states = vec![0.0; *state.rows.last().unwrap() as usize * config.hidden_size];
    state.states.download(0, &mut states).unwrap();
    [states, state.mean.to_vec().unwrap()]
}

fn length(x: impl Iterator<Item = f32>) -> f64 {
    x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn fused_blocks_give_the_states_of_separate_ones_in_any_batch() {
    let mut rng = world::rng("fused_blocks_give_the_states_of_separate_ones_in_any_batch");
    let world = World::with_weights(config(), 5, rng.random(), WeightType::BF16);
    let (config, weights) = model::open(world.path()).unwrap();
    let histories = BATCH.map(|behaviors| history(&config, behaviors, &mut rng));
    let all: Vec<&History> = histories.iter().collect();
    for stream in hopper_streams() {
        let portable = Kernels::Portable.choose(&*stream, &config).unwrap();
        let load = |choice| DeviceModel::load(&stream, &config, &weights, choice).unwrap();
        let (separate, fused) = (load(portable), load(Choice { encoder_fusion: Code::Hopper, ..portable }));
        assert_eq!(separate.encoder.bytes(), fused.encoder.bytes());
        let found = encode(&stream, &fused, &all);
        for (expected, found) in encode(&stream, &separate, &all).iter().zip(&found) {
            assert_eq!(expected.len(), found.len());
            let difference = length(expected.iter().zip(found).map(|(a, b)| a - b));
            let whole = length(expected.iter().copied());
            assert!(difference <= 0.01 * whole, "off by {difference} of {whole}");
        }
        let alone = encode(&stream, &fused, &all[2..3]);
        let mean = 2 * config.hidden_size..3 * config.hidden_size;
        assert_same(&alone[1], &found[1][mean], "the mean of a request alone");
    }
}
