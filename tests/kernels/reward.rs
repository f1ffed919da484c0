//! The reward model, the choice of the winning list and the payment network against the CPU's, bit for bit.

use bidslate::auction::choice::{SlotValue, list_reward, winner};
use bidslate::catalog::{Catalog, Snapshot};
use bidslate::cpu::{Exec, Isa, Precision};
use bidslate::cuda::launch::{Buffer, Stream};
use bidslate::cuda::lists::{Lists, NO_LIST};
use bidslate::cuda::payment::{PaymentInputs, PaymentNetwork};
use bidslate::cuda::reward::RewardModel;
use bidslate::cuda::reward_choice::{self, Choice, NO_WINNER, Values, multipliers};
use bidslate::cuda::reward_input::{Shown as DeviceShown, Tables};
use bidslate::model::Model;
use bidslate::model::config::{ModelConfig, ModelSize};
use bidslate::model::payment::PaymentInput;
use bidslate::model::reward::{RewardModel as CpuRewardModel, Shown};
use bidslate::model::weights::{WeightType, Weights};
use bidslate::request::Objective;
use bidslate::synthetic;
use half::bf16;
use std::sync::Arc;

use crate::setup::{Inputs, assert_same};
use crate::streams::streams;
use crate::support::model_dir;

const EXEC: Exec = Exec { isa: Isa::Scalar, team: None };

/// A model and a catalog, on the host.
pub struct World {
    pub model: Model,
    pub weights: Weights,
    snapshot: Arc<Snapshot>,
    _dir: tempfile::TempDir,
}

impl World {
    /// Weights in bf16: the GPU holds the embeddings so, and the CPU reads the same numbers.
    pub fn new(config: &ModelConfig) -> Self {
        let dir = model_dir(config, WeightType::BF16);
        let catalog = Catalog::from_columns(synthetic::catalog(config, 60, 3), config).unwrap();
        let weights = Weights::open(dir.path(), config).unwrap();
        Self {
            model: Model::pack(config.clone(), &weights, Precision::F32),
            weights,
            snapshot: catalog.snapshot(),
            _dir: dir,
        }
    }

    fn items(&self) -> std::ops::Range<u32> {
        0..self.snapshot.len() as u32
    }
}

pub fn config() -> ModelConfig {
    ModelConfig {
        hidden_size: 32,
        num_heads: 1,
        ffn_size: 64,
        codebook_size: 9,
        encoder_layers: 1,
        decoder_layers: 1,
        item_embedding_size: 5,
        reward_hidden_size: 48,
        reward_heads: 3,
        reward_layers: 2,
        list_len: 11,
        bid_unit_micros: 300_000,
        ..ModelConfig::of_size(ModelSize::Tiny)
    }
}

/// What the searches of several requests left behind.
struct Searched {
    /// Lists of each request, `[requests + 1]`.
    offsets: Vec<u32>,
    /// [`NO_LIST`] or filled slots.
    lengths: Vec<i32>,
    shown: Vec<Vec<Shown>>,
    ln_z: Vec<Vec<f64>>,
    scores: Vec<f64>,
    means: Vec<Vec<f32>>,
    objectives: Vec<Objective>,
}

impl Searched {
    fn new(world: &World, slots: usize, lists: &[usize], inputs: &mut Inputs) -> Self {
        let mut offsets = vec![0];
        offsets.extend(lists.iter().scan(0, |sum, &n| {
            *sum += n as u32;
            Some(*sum)
        }));
        let count: usize = lists.iter().sum();
        let mut lengths: Vec<i32> = inputs.indices(count, slots + 2).iter().map(|&n| n as i32 - 1).collect();
        // At least one full list, and in every request a list.
        offsets.windows(2).filter(|w| w[0] < w[1]).for_each(|w| lengths[w[0] as usize] = slots as i32);
        let mut draw = |items: std::ops::Range<u32>| items.start + inputs.indices(1, items.len())[0];
        let shown = lengths
            .iter()
            .map(|&n| {
                let slot = |_| {
                    let item = draw(world.items());
                    Shown { item, creative: draw(world.snapshot.creatives(item)) }
                };
                (0..n).map(slot).collect()
            })
            .collect();
        let numbers = |inputs: &mut Inputs, n: usize| -> Vec<f64> {
            inputs.numbers(n).iter().map(|&x| f64::from(x) * 3.0 - 3.0).collect()
        };
        let d = world.model.config.hidden_size;
        let objective = |inputs: &mut Inputs| {
            let [revenue, ctr_poi, ctr_creative, cvr] =
                inputs.numbers(4).try_into().map(|m: [f32; 4]| m.map(|m| f64::from(m.abs()))).unwrap();
            Objective { revenue, ctr_poi, ctr_creative, cvr }
        };
        Self {
            ln_z: lengths.iter().map(|&n| numbers(inputs, n.max(0) as usize)).collect(),
            scores: numbers(inputs, count),
            means: lists.iter().map(|_| inputs.numbers(d)).collect(),
            objectives: lists.iter().map(|_| objective(inputs)).collect(),
            offsets,
            lengths,
            shown,
        }
    }

    fn requests(&self) -> usize {
        self.means.len()
    }

    /// Values of the slots in the rows of the device, `other` in slots that are not filled.
    fn rows<T: Copy>(&self, slots: usize, other: T, value: impl Fn(usize, usize) -> T) -> Vec<T> {
        let row = |list: usize, slot: usize| {
            if (slot as i32) < self.lengths[list] { value(list, slot) } else { other }
        };
        (0..self.lengths.len())
            .flat_map(|list| (0..slots).map(move |slot| (list, slot)))
            .map(|(l, s)| row(l, s))
            .collect()
    }
}

/// Results in the layout of the device, NaN and 0 in slots that are not filled.
#[derive(Default)]
struct Results {
    features: Vec<Vec<f32>>,
    probabilities: [Vec<Vec<f32>>; 3],
    rewards: Vec<f64>,
    winners: Vec<u32>,
    rates: Vec<f32>,
}

fn on_the_cpu(world: &World, searched: &Searched, slots: usize) -> Results {
    let Model { config, embeddings, reward, payment, .. } = &world.model;
    let d_r = config.reward_hidden_size;
    let mut results = Results::default();
    for request in 0..searched.requests() {
        let first = searched.offsets[request] as usize;
        let lists = first..searched.offsets[request + 1] as usize;
        let shown = &searched.shown[lists.clone()];
        let mut state = CpuRewardModel::state(config, shown.iter().map(Vec::len).sum(), 1);
        reward.run(EXEC, config, embeddings, &world.snapshot, &searched.means[request], shown, &mut state);
        let mut contenders = Vec::new();
        let mut values = Vec::new();
        for list in lists {
            let rows = state.rows(list - first);
            results.features.push(state.features[rows.start * d_r..rows.end * d_r].to_vec());
            for (to, from) in results.probabilities.iter_mut().zip(&state.probabilities) {
                to.push(from[rows.clone()].to_vec());
            }
            let value = |(row, shown): (usize, &Shown)| SlotValue {
                bid: world.snapshot.bid(shown.item).in_units(config.bid_unit_micros),
                pctr_poi: f64::from(state.probabilities[0][row]),
                pctr_creative: f64::from(state.probabilities[1][row]),
                pcvr: f64::from(state.probabilities[2][row]),
            };
            let of_list: Vec<SlotValue> = rows.zip(&searched.shown[list]).map(value).collect();
            results.rewards.push(list_reward(&searched.objectives[request], &of_list));
            values.push(of_list);
            if searched.lengths[list] != NO_LIST {
                contenders.push((list, (results.rewards[list], searched.scores[list])));
            }
        }
        let best = winner(contenders.iter().map(|&(_, values)| values)).map(|i| contenders[i].0);
        results.winners.push(best.map_or(NO_WINNER, |list| list as u32));
        let mut rates = Vec::new();
        if let Some(list) = best {
            let input = |(slot, value): (usize, &SlotValue)| PaymentInput {
                features: &results.features[list][slot * d_r..(slot + 1) * d_r],
                bid: value.bid,
                z_pctr: libm::exp(searched.ln_z[list][slot]) * value.pctr_poi,
            };
            let slots: Vec<PaymentInput> = values[list - first].iter().enumerate().map(input).collect();
            let mut state = bidslate::model::payment::PaymentNetwork::state(config);
            rates = payment.rates(EXEC, &slots, 0..slots.len(), &mut state).to_vec();
        }
        rates.resize(slots, 0.0);
        results.rates.extend(rates);
    }
    results
}

/// The catalog's tables on the device.
struct DeviceTables {
    embed: Buffer<bf16>,
    poi_codes: Buffer<u16>,
    creative_codes: Buffer<u16>,
    embedding: Buffer<f32>,
}

impl DeviceTables {
    fn new(stream: &Arc<dyn Stream>, world: &World) -> Self {
        let Model { config, embeddings, .. } = &world.model;
        let snapshot = &world.snapshot;
        let embed: Vec<bf16> = embeddings.tokens.iter().map(|&x| bf16::from_f32(x)).collect();
        let mut embedding = vec![0.0; snapshot.len() * config.item_embedding_size];
        for (item, row) in world.items().zip(embedding.chunks_mut(config.item_embedding_size)) {
            snapshot.embedding(item, row);
        }
        let poi_codes: Vec<u16> = world.items().flat_map(|item| snapshot.codes(item)).copied().collect();
        let creatives = 0..snapshot.creatives_len() as u32;
        let creative_codes: Vec<u16> = creatives.flat_map(|c| snapshot.creative_codes(c)).copied().collect();
        Self {
            embed: Buffer::from_slice(stream, &embed).unwrap(),
            poi_codes: Buffer::from_slice(stream, &poi_codes).unwrap(),
            creative_codes: Buffer::from_slice(stream, &creative_codes).unwrap(),
            embedding: Buffer::from_slice(stream, &embedding).unwrap(),
        }
    }

    fn tables(&self) -> Tables<'_> {
        let Self { embed, poi_codes, creative_codes, embedding } = self;
        Tables { embed, poi_codes, creative_codes, embedding }
    }
}

/// Asserts that the device finds what the CPU found.
fn check(stream: &Arc<dyn Stream>, world: &World, searched: &Searched, slots: usize) {
    let want = on_the_cpu(world, searched, slots);
    let Model { config, .. } = &world.model;
    let (count, requests, d_r) = (searched.lengths.len(), searched.requests(), config.reward_hidden_size);
    let rows = count * slots;
    let what = format!("{count} lists of {slots} slots");
    let tables = DeviceTables::new(stream, world);
    let lengths = Buffer::from_slice(stream, &searched.lengths).unwrap();
    let lists = Lists::new(count, slots, &lengths);
    // Rows that hold nothing name things that do not exist.
    let items = searched.rows(slots, u32::MAX, |list, slot| searched.shown[list][slot].item);
    let creatives = searched.rows(slots, u32::MAX, |list, slot| searched.shown[list][slot].creative);
    let list_requests: Vec<u32> = searched
        .offsets
        .windows(2)
        .enumerate()
        .flat_map(|(request, w)| vec![request as u32; (w[1] - w[0]) as usize])
        .collect();
    let bid = |list: usize, slot: usize| world.snapshot.bid(searched.shown[list][slot].item).0;
    let bids = Buffer::from_slice(stream, &searched.rows(slots, u64::MAX, bid)).unwrap();
    let items = Buffer::from_slice(stream, &items).unwrap();
    let shown = DeviceShown {
        items: &items,
        creatives: &Buffer::from_slice(stream, &creatives).unwrap(),
        requests: &Buffer::from_slice(stream, &list_requests).unwrap(),
    };
    let means = Buffer::from_slice(stream, &searched.means.concat()).unwrap();
    let model = RewardModel::load(stream, config, &world.weights).unwrap();
    let mut state = model.state(stream, rows).unwrap();
    model.run(&**stream, lists, shown, tables.tables(), &means, &mut state).unwrap();

    let features = state.features.to_vec().unwrap();
    let probabilities = state.probabilities.to_vec().unwrap();
    for list in 0..count {
        let filled = searched.lengths[list].max(0) as usize;
        let start = list * slots;
        let got = &features[start * d_r..(start + filled) * d_r];
        assert_same(got, &want.features[list], &format!("features of list {list}, {what}"));
        for (tower, want) in want.probabilities.iter().enumerate() {
            let got = &probabilities[tower * rows + start..][..filled];
            assert_same(got, &want[list], &format!("tower {tower} of list {list}, {what}"));
        }
    }

    let objectives: Vec<f64> = searched.objectives.iter().flat_map(multipliers).collect();
    let mut rewards = Buffer::new(stream, count).unwrap();
    let mut winner = Buffer::new(stream, requests).unwrap();
    let values = Values {
        probabilities: &state.probabilities,
        bids: &bids,
        bid_unit: config.bid_unit_micros,
        scores: &Buffer::from_slice(stream, &searched.scores).unwrap(),
        objectives: &Buffer::from_slice(stream, &objectives).unwrap(),
        offsets: &Buffer::from_slice(stream, &searched.offsets).unwrap(),
    };
    let mut choice = Choice { rewards: &mut rewards, winner: &mut winner };
    reward_choice::run(&**stream, lists, values, requests, &mut choice).unwrap();
    assert_eq!(rewards.to_vec().unwrap(), want.rewards, "{what}");
    assert_eq!(winner.to_vec().unwrap(), want.winners, "{what}");

    let ln_z = searched.rows(slots, f64::NAN, |list, slot| searched.ln_z[list][slot]);
    let payment = PaymentNetwork::load(stream, config, &world.weights).unwrap();
    let mut rates = Buffer::new(stream, requests * slots).unwrap();
    let inputs = PaymentInputs {
        winner: &winner,
        features: &state.features,
        pctr_poi: &state.probabilities,
        ln_z: &Buffer::from_slice(stream, &ln_z).unwrap(),
        bids: &bids,
    };
    payment.rates(&**stream, lists, inputs, requests, &mut rates).unwrap();
    assert_same(&rates.to_vec().unwrap(), &want.rates, &format!("rates, {what}"));
}

#[test]
fn scores_chooses_and_prices_as_the_cpu_does() {
    let mut inputs = Inputs::new();
    let world = World::new(&config());
    for stream in streams() {
        // Lists of one request after another's: a request without any, one with a single list.
        for (slots, lists) in [(1, vec![3]), (5, vec![4, 0, 1, 7]), (11, vec![9, 2])] {
            let searched = Searched::new(&world, slots, &lists, &mut inputs);
            check(&stream, &world, &searched, slots);
        }
    }
}

#[test]
fn thirty_two_slots_of_a_wide_model() {
    let mut inputs = Inputs::new();
    let wide = ModelConfig { list_len: 32, reward_hidden_size: 256, reward_heads: 4, ..config() };
    let world = World::new(&wide);
    for stream in streams() {
        let searched = Searched::new(&world, 32, &[2, 1], &mut inputs);
        check(&stream, &world, &searched, 32);
    }
}
