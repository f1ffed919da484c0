//! A position of the decoder by a team of blocks in one launch, against a launch for each operation: bit for bit, in
//! teams of every kind and size.

use std::sync::Arc;

use bidslate::cuda::beam_attention::{Beams, CHUNK};
use bidslate::cuda::choice::Kernels;
use bidslate::cuda::decode_step::Team;
use bidslate::cuda::decoder::Step;
use bidslate::cuda::encoder::EncoderState;
use bidslate::cuda::launch::{Buffer, Stream};
use bidslate::cuda::model::DeviceModel;
use bidslate::model;
use bidslate::model::config::{ModelConfig, ModelSize};
use bidslate::model::encoder::{History, HistoryEntry};
use bidslate::model::init::init_model;
use bidslate::model::weights::WeightType;

use crate::setup::Inputs;
use crate::streams::{hopper_streams, streams};

/// One block and several.
const TEAMS: [Team; 9] = [
    Team::Grid(3),
    Team::Cluster(2),
    Team::Grid(1),
    Team::Grid(4),
    Team::Grid(16),
    Team::Cluster(1),
    Team::Cluster(4),
    Team::Cluster(8),
    Team::Cluster(16),
];

/// The build of the emulator that checks every access takes its time, and runs no more than four of these blocks at once.
fn teams(stream: &dyn Stream) -> &'static [Team] {
    if stream.describe().contains("Check") { &TEAMS[..2] } else { &TEAMS }
}

/// Sizes of a decoder and of what it decodes.
#[derive(Debug, Clone, Copy)]
struct Case {
    d: usize,
    heads: usize,
    ffn: usize,
    layers: usize,
    codes: usize,
    beams: usize,
    /// Behaviours of each request's history.
    histories: &'static [usize],
    positions: usize,
}

const fn case(
    [d, heads, ffn, layers]: [usize; 4],
    codes: usize,
    beams: usize,
    histories: &'static [usize],
    positions: usize,
) -> Case {
    Case { d, heads, ffn, layers, codes, beams, histories, positions }
}

/// Rows of no whole tile, one row, more than a tile; columns of no whole tile; keys of more than one chunk, which are
/// joined; heads of 32 and 64; a feed-forward layer that is narrower than a tile.
const CASES: [Case; 5] = [
    case([32, 1, 16, 1], 5, 7, &[2, 0], 3),
    case([64, 1, 96, 2], 70, 1, &[3, 1, 2, 0, 1], 2),
    case([64, 2, 48, 1], 64, 65, &[1, 2], 2),
    case([128, 2, 80, 1], 33, 17, &[60, 2], 1),
    case([192, 3, 64, 1], 9, 64, &[2], 1),
];

fn history(config: &ModelConfig, behaviors: usize, inputs: &mut Inputs) -> History {
    let mut codes = |count| -> Vec<u16> {
        inputs.indices(count, config.codebook_size).into_iter().map(|code| code as u16).collect()
    };
    let entry = |_| HistoryEntry {
        codes: codes(config.poi_code_layers),
        creative_codes: codes(config.creative_code_layers),
        features: Vec::new(),
    };
    History { context: Vec::new(), behaviors: (0..behaviors).map(entry).collect() }
}

/// A decoder with random weights, and the encoded histories of some requests.
struct Loaded {
    stream: Arc<dyn Stream>,
    model: DeviceModel,
    encoder: EncoderState,
    beams: Beams,
    positions: usize,
}

impl Loaded {
    fn new(stream: &Arc<dyn Stream>, case: Case, inputs: &mut Inputs) -> Self {
        let config = ModelConfig {
            hidden_size: case.d,
            num_heads: case.heads,
            ffn_size: case.ffn,
            decoder_layers: case.layers,
            encoder_layers: 1,
            codebook_size: case.codes,
            history_len: 60,
            beam_width: case.beams,
            ..ModelConfig::of_size(ModelSize::Tiny)
        };
        let dir = tempfile::tempdir().unwrap();
        init_model(dir.path(), &config, WeightType::BF16, inputs.seed()).unwrap();
        let (config, weights) = model::open(dir.path()).unwrap();
        let choice = Kernels::Portable.choose(&**stream, &config).unwrap();
        let model = DeviceModel::load(stream, &config, &weights, choice).unwrap();
        let histories: Vec<History> =
            case.histories.iter().map(|&behaviors| history(&config, behaviors, inputs)).collect();
        let most = case.histories.iter().map(|&behaviors| config.history_tokens(behaviors)).max().unwrap();
        let mut encoder = model.encoder.state(stream, histories.len(), most, 1).unwrap();
        let (table, angles) = (model.table.ptr(), model.angles.ptr());
        let histories: Vec<&History> = histories.iter().collect();
        model.encoder.run(&**stream, &config, table, angles, &histories, &mut encoder).unwrap();
        let beams = Beams {
            requests: histories.len(),
            beams: case.beams,
            heads: case.heads,
            head_size: case.d / case.heads,
            most_keys: most.next_multiple_of(CHUNK),
        };
        Self { stream: stream.clone(), model, encoder, beams, positions: case.positions }
    }

    /// Tokens and ancestors of every position.
    fn prefixes(&self, inputs: &mut Inputs) -> Vec<(Vec<u32>, Vec<u32>)> {
        let Beams { requests, beams, .. } = self.beams;
        let rows = requests * beams;
        let tokens = self.model.table.len() / self.model.shape.d;
        let position = |_| (inputs.indices(rows, tokens), inputs.indices(rows * self.positions, beams));
        (0..self.positions).map(position).collect()
    }

    /// Hidden states of all positions, and the logits of each that has some: all but the last, unless it is the only one.
    fn run(&self, team: Option<Team>, prefixes: &[(Vec<u32>, Vec<u32>)]) -> (Vec<f32>, Vec<Vec<f32>>) {
        let Self { stream, model, encoder, beams, positions } = self;
        let mut state = model.decoder.state(stream, &model.config, *beams, *positions).unwrap();
        assert_eq!(state.team, None);
        state.team = team;
        let mut logits = Vec::new();
        for (position, (tokens, ancestors)) in prefixes.iter().enumerate() {
            let newest = Buffer::from_slice(stream, &[position as u32]).unwrap();
            let tokens = Buffer::from_slice(stream, tokens).unwrap();
            let ancestors = Buffer::from_slice(stream, ancestors).unwrap();
            let step = Step {
                beams: *beams,
                position,
                newest: newest.ptr(),
                tokens: tokens.ptr(),
                ancestors: ancestors.ptr(),
            };
            let head = (*positions == 1 || position + 1 < *positions)
                .then_some(position % model.config.poi_code_layers);
            let (table, angles) = (model.table.ptr(), model.angles.ptr());
            let encoder = (&model.encoder, encoder);
            let config = &model.config;
            model.decoder.step(&**stream, config, table, angles, encoder, step, head, &mut state).unwrap();
            if head.is_some() {
                logits.push(state.logits.to_vec().unwrap());
            }
        }
        (state.hidden.to_vec().unwrap(), logits)
    }
}

fn assert_same_bits(got: &[f32], want: &[f32], what: &str) {
    assert!(want.iter().all(|x| x.is_finite()), "{what}");
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert!(bits(got) == bits(want), "{what}: other bits");
}

#[test]
fn a_team_gives_the_bits_of_separate_launches() {
    for stream in hopper_streams() {
        for case in CASES {
            let mut inputs = Inputs::new();
            let loaded = Loaded::new(&stream, case, &mut inputs);
            let prefixes = loaded.prefixes(&mut inputs);
            let (hidden, logits) = loaded.run(None, &prefixes);
            for team in teams(&*stream) {
                let what = format!("{case:?}, {team:?}, {}", stream.describe());
                let got = loaded.run(Some(*team), &prefixes);
                assert_same_bits(&got.0, &hidden, &format!("hidden states, {what}"));
                assert_eq!(got.1.len(), logits.len());
                for (got, want) in got.1.iter().zip(&logits) {
                    assert_same_bits(got, want, &format!("logits, {what}"));
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "columns")]
fn heads_of_128_are_refused() {
    let case = Case { d: 128, heads: 1, ..CASES[0] };
    let mut inputs = Inputs::new();
    let loaded = Loaded::new(&streams()[0], case, &mut inputs);
    let prefixes = loaded.prefixes(&mut inputs);
    loaded.run(Some(Team::Cluster(1)), &prefixes);
}
