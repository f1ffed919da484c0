//! The payment network on ads that misreport, against the CPU's answer to each misreport, bit for bit. (Winning lists are
//! priced in `reward.rs`.)

use std::sync::Arc;

use bidslate::cpu::{Exec, Isa};
use bidslate::cuda::launch::{Buffer, Stream};
use bidslate::cuda::lists::{Lists, NO_LIST};
use bidslate::cuda::payment::{MisreportInputs, PaymentNetwork};
use bidslate::model::config::ModelConfig;
use bidslate::model::payment::{PaymentInput, PaymentNetwork as CpuPaymentNetwork};
use bidslate::money::Micros;

use crate::reward::{World, config};
use crate::setup::{Inputs, assert_same};
use crate::streams::streams;

const EXEC: Exec = Exec { isa: Isa::Scalar, team: None };

/// Lists of `slots` slots with random values, and misreports of the ads in some of them.
struct Misreported {
    slots: usize,
    lengths: Vec<i32>,
    /// [rows, d_r]
    features: Vec<f32>,
    /// `[rows]`
    pctr_poi: Vec<f32>,
    /// `[rows]`
    bids: Vec<u64>,
    /// The row of each group, and ln z under each of its misreports.
    groups: Vec<(usize, Vec<f64>)>,
}

impl Misreported {
    /// `groups` are rows of filled slots, and how many misreports of each.
    fn new(
        config: &ModelConfig,
        slots: usize,
        lengths: &[i32],
        groups: &[(usize, usize)],
        inputs: &mut Inputs,
    ) -> Self {
        let rows = lengths.len() * slots;
        let mut ln_z =
            |count: usize| inputs.numbers(count).iter().map(|&x| f64::from(x) * 3.0 - 3.0).collect();
        let groups = groups.iter().map(|&(row, count)| (row, ln_z(count))).collect();
        // An organic item in every fourth slot.
        let bid = |(row, &x): (usize, &f32)| if row % 4 == 3 { 0 } else { (x.abs() * 5e6) as u64 };
        Self {
            slots,
            lengths: lengths.to_vec(),
            features: inputs.numbers(rows * config.reward_hidden_size),
            pctr_poi: inputs.numbers(rows).iter().map(|x| x.abs()).collect(),
            bids: inputs.numbers(rows).iter().enumerate().map(bid).collect(),
            groups,
        }
    }

    /// Every misreport by itself.
    fn on_the_cpu(&self, world: &World) -> Vec<f32> {
        let config = &world.model.config;
        let d_r = config.reward_hidden_size;
        let mut state = CpuPaymentNetwork::state(config);
        let mut rates = Vec::new();
        for (row, misreports) in &self.groups {
            let (list, slot) = (row / self.slots, row % self.slots);
            let first = list * self.slots;
            for &ln_z in misreports {
                let input = |row: usize| PaymentInput {
                    features: &self.features[row * d_r..(row + 1) * d_r],
                    bid: Micros(self.bids[row]).in_units(config.bid_unit_micros),
                    z_pctr: libm::exp(ln_z) * f64::from(self.pctr_poi[row]),
                };
                let slots: Vec<_> = (first..first + self.lengths[list] as usize).map(input).collect();
                rates.extend_from_slice(world.model.payment.rates(EXEC, &slots, slot..slot + 1, &mut state));
            }
        }
        rates
    }

    fn on_the_device(&self, stream: &Arc<dyn Stream>, world: &World) -> Vec<f32> {
        let payment = PaymentNetwork::load(stream, &world.model.config, &world.weights).unwrap();
        let rows: Vec<u32> = self.groups.iter().map(|&(row, _)| row as u32).collect();
        let ln_z: Vec<f64> = self.groups.iter().flat_map(|(_, ln_z)| ln_z).copied().collect();
        let mut offsets = vec![0];
        for (_, ln_z) in &self.groups {
            offsets.push(offsets[offsets.len() - 1] + ln_z.len() as u32);
        }
        let inputs = MisreportInputs {
            rows: &Buffer::from_slice(stream, &rows).unwrap(),
            offsets: &Buffer::from_slice(stream, &offsets).unwrap(),
            ln_z: &Buffer::from_slice(stream, &ln_z).unwrap(),
            features: &Buffer::from_slice(stream, &self.features).unwrap(),
            pctr_poi: &Buffer::from_slice(stream, &self.pctr_poi).unwrap(),
            bids: &Buffer::from_slice(stream, &self.bids).unwrap(),
        };
        let lengths = Buffer::from_slice(stream, &self.lengths).unwrap();
        let lists = Lists::new(self.lengths.len(), self.slots, &lengths);
        let mut rates = Buffer::new(stream, ln_z.len()).unwrap();
        payment.misreports(&**stream, lists, inputs, rows.len(), &mut rates).unwrap();
        rates.to_vec().unwrap()
    }
}

#[test]
fn misreports_are_priced_as_the_cpu_prices_each() {
    let mut inputs = Inputs::new();
    let world = World::new(&config());
    // Ends, the middle and all of a list; none of them, one, a round of eight, one more, several rounds.
    let groups = [(0, 1), (10, 8), (4, 9), (22, 30), (11, 0), (24, 2), (46, 17), (4, 3)];
    let lengths = [11, 1, 3, NO_LIST, 7];
    for stream in streams() {
        let asked = Misreported::new(&world.model.config, 11, &lengths, &groups, &mut inputs);
        let want = asked.on_the_cpu(&world);
        assert!(want[1..9].windows(2).all(|pair| pair[0] != pair[1]), "z tells misreports apart: {want:?}");
        assert_same(&asked.on_the_device(&stream, &world), &want, "rates of misreports");
    }
}

#[test]
fn misreports_in_lists_of_thirty_two_slots_of_a_wide_model() {
    let mut inputs = Inputs::new();
    let wide = ModelConfig { list_len: 32, reward_hidden_size: 256, reward_heads: 4, ..config() };
    let world = World::new(&wide);
    let groups: Vec<_> = (0..10).map(|ad| (3 * ad, 10)).collect();
    for stream in streams() {
        let asked = Misreported::new(&wide, 32, &[32], &groups, &mut inputs);
        let want = asked.on_the_cpu(&world);
        assert_same(&asked.on_the_device(&stream, &world), &want, "rates of misreports");
    }
}
