//! One batch through the stages of a model on a device, each stage by itself: what the engine enqueues for it.

use std::sync::Arc;

use bidslate::catalog::{Catalog, Snapshot};
use bidslate::cuda::beam_attention::{Beams, CHUNK};
use bidslate::cuda::catalog::DeviceCatalog;
use bidslate::cuda::choice::Kernels;
use bidslate::cuda::creative::{CreativeState, Sources};
use bidslate::cuda::decode_step::Team;
use bidslate::cuda::decoder::{DecoderState, Step};
use bidslate::cuda::encoder::EncoderState;
use bidslate::cuda::launch::{Buffer, Stream};
use bidslate::cuda::list_slots::ListSlots;
use bidslate::cuda::lists::Lists;
use bidslate::cuda::model::DeviceModel;
use bidslate::cuda::payment::{MisreportInputs, PaymentInputs};
use bidslate::cuda::reward::RewardState;
use bidslate::cuda::reward_choice::{self, Choice, NO_WINNER, Values, multipliers};
use bidslate::cuda::reward_input::{Shown, Tables};
use bidslate::cuda::search::{Search, SearchLimits, SearchRequest};
use bidslate::decode::candidates::Ads;
use bidslate::error::DeviceError;
use bidslate::model::config::ModelConfig;
use bidslate::model::encoder::{History, HistoryEntry};
use bidslate::model::init::init_model;
use bidslate::model::weights::WeightType;
use bidslate::request::Objective;
use bidslate::{model, synthetic};

use crate::device::Device;
use crate::rules::rules;

/// A model with random weights and a made-up catalog, on a device.
pub struct Loaded {
    pub stream: Arc<dyn Stream>,
    pub model: DeviceModel,
    snapshot: Arc<Snapshot>,
    catalog: DeviceCatalog,
}

impl Loaded {
    pub fn new(device: &Device, config: &ModelConfig, kernels: Kernels) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        init_model(dir.path(), config, WeightType::BF16, 1).expect("a model");
        let (config, weights) = model::open(dir.path()).expect("the model");
        let columns = synthetic::catalog(&config, device.pick(20_000, 300), 1);
        let snapshot = Catalog::from_columns(columns, &config).expect("a catalog").snapshot();
        let stream = device.stream.clone();
        let choice = kernels.choose(&*stream, &config).expect("kernels that run here");
        let model = DeviceModel::load(&stream, &config, &weights, choice).expect("device memory");
        let catalog = DeviceCatalog::upload(&stream, &config, &snapshot).expect("device memory");
        Self { stream, model, snapshot, catalog }
    }
}

/// A batch of requests with full histories that ask for lists of ads alone, and the buffers that its stages work in.
pub struct Pass<'l> {
    loaded: &'l Loaded,
    beams: Beams,
    histories: Vec<History>,
    encoder: EncoderState,
    search: Search,
    decoder: DecoderState,
    slots: ListSlots,
    creative: CreativeState,
    reward: RewardState,
    rewards: Buffer<f64>,
    winner: Buffer<u32>,
    objectives: Buffer<f64>,
    rates: Buffer<f32>,
}

impl<'l> Pass<'l> {
    pub fn new(loaded: &'l Loaded, requests: usize) -> Result<Self, DeviceError> {
        let Loaded { stream, model, snapshot, .. } = loaded;
        let config = &model.config;
        let tokens = config.history_tokens(config.history_len);
        let beams = Beams {
            requests,
            beams: config.beam_width,
            heads: model.shape.heads,
            head_size: model.shape.head_size(),
            most_keys: tokens.next_multiple_of(CHUNK),
        };
        let slots = config.list_len;
        let lists = requests * beams.beams;
        let limits = SearchLimits { requests, beams: beams.beams, slots, candidates: 1 };
        let mut search = Search::new(stream, limits, config.poi_code_layers, config.codebook_size)?;
        search.hold_all(snapshot)?;
        let of_slots = Beams { beams: beams.beams * slots, ..beams };
        let objective = multipliers(&Objective::default());
        Ok(Self {
            loaded,
            beams,
            histories: (0..requests).map(|request| history(config, request)).collect(),
            encoder: model.encoder.state(stream, requests, tokens, features(config))?,
            decoder: model.decoder.state(stream, config, beams, search.positions())?,
            search,
            slots: ListSlots::new(stream, requests, beams.beams, slots)?,
            creative: model.creative.state(stream, config, of_slots)?,
            reward: model.reward.state(stream, lists * slots)?,
            rewards: Buffer::new(stream, lists)?,
            winner: Buffer::new(stream, requests)?,
            objectives: Buffer::from_slice(stream, &objective.repeat(requests))?,
            rates: Buffer::new(stream, requests * slots)?,
        })
    }

    /// Steps of the search.
    pub fn steps(&self) -> usize {
        let config = &self.loaded.model.config;
        config.list_len * config.poi_code_layers
    }

    pub fn encode(&mut self) -> Result<(), DeviceError> {
        let Loaded { stream, model, .. } = self.loaded;
        let (table, angles) = (model.table.ptr(), model.angles.ptr());
        let histories: Vec<&History> = self.histories.iter().collect();
        model.encoder.run(&**stream, &model.config, table, angles, &histories, &mut self.encoder)
    }

    /// Begins the search.
    pub fn begin(&mut self) -> Result<(), DeviceError> {
        let Loaded { model, snapshot, .. } = self.loaded;
        let (ads, rules) = (Ads::all(snapshot), rules(&model.config));
        let request = SearchRequest { rules: &rules, snapshot, ads: &ads, organic: &[], excluded: None };
        self.search.begin(&vec![request; self.beams.requests], self.beams.beams)
    }

    /// A position of the decoder, with the logits of the code that follows unless it is the last.
    pub fn decode(&mut self, position: usize) -> Result<(), DeviceError> {
        let Loaded { stream, model, .. } = self.loaded;
        let step = Step {
            beams: self.beams,
            position,
            newest: self.search.position(),
            tokens: self.search.tokens(),
            ancestors: self.search.ancestors(),
        };
        let head = (position < self.steps()).then_some(position % model.config.poi_code_layers);
        let (table, angles) = (model.table.ptr(), model.angles.ptr());
        let encoder = (&model.encoder, &self.encoder);
        model.decoder.step(&**stream, &model.config, table, angles, encoder, step, head, &mut self.decoder)
    }

    /// The team that runs the search from here on; none launches each operation.
    pub fn set_team(&mut self, team: Option<Team>) {
        self.decoder.team = team;
    }

    /// The whole search after [`Pass::begin`], up to its lists.
    pub fn search(&mut self) -> Result<(), DeviceError> {
        let steps = self.steps();
        if !self.search_in_one(steps)? {
            for position in 0..steps {
                self.decode(position)?;
                self.select()?;
            }
            self.decode(steps)?;
        }
        self.finish()
    }

    /// False where there is no team.
    fn search_in_one(&mut self, steps: usize) -> Result<bool, DeviceError> {
        let Loaded { stream, model, .. } = self.loaded;
        let (table, angles) = (model.table.ptr(), model.angles.ptr());
        let encoder = (&model.encoder, &self.encoder);
        let (search, state) = (&mut self.search, &mut self.decoder);
        let (config, decoder) = (&model.config, &model.decoder);
        decoder.search(&**stream, config, table, angles, encoder, self.beams, steps, search, state)
    }

    /// A step of the search, from the newest logits.
    pub fn select(&mut self) -> Result<(), DeviceError> {
        self.search.advance(self.decoder.logits.ptr())
    }

    /// Writes the lists.
    pub fn finish(&mut self) -> Result<(), DeviceError> {
        self.search.finish()
    }

    /// The creative of every slot of every list.
    pub fn choose_creatives(&mut self) -> Result<(), DeviceError> {
        let Loaded { stream, model, catalog, .. } = self.loaded;
        let config = &model.config;
        self.slots.open(&**stream, self.search.searched(), &catalog.creative_offsets)?;
        let sources = Sources {
            table: &model.table,
            angles: model.angles.ptr(),
            codes: &catalog.creative_codes,
            hidden: &self.decoder.hidden,
            cross: model.encoder.cross(&self.encoder, config.decoder_layers),
            longest: self.beams.most_keys,
        };
        let rows = (self.beams.requests, self.beams.beams * config.list_len);
        model.creative.choose(&**stream, config, sources, rows, &mut self.slots, &mut self.creative, None)
    }

    /// Probabilities of all slots, rewards of all lists, the winners.
    pub fn score(&mut self) -> Result<(), DeviceError> {
        let Loaded { stream, model, catalog, .. } = self.loaded;
        let searched = self.search.searched();
        let lists = lists(&self.slots, self.beams, searched.slots);
        let shown = Shown {
            items: searched.items,
            creatives: &self.slots.creative,
            requests: &self.slots.list_request,
        };
        let tables = Tables {
            embed: &model.table,
            poi_codes: &catalog.item_codes,
            creative_codes: &catalog.creative_codes,
            embedding: &catalog.embeddings,
        };
        model.reward.run(&**stream, lists, shown, tables, &self.encoder.mean, &mut self.reward)?;
        let values = Values {
            probabilities: &self.reward.probabilities,
            bids: &self.slots.bids,
            bid_unit: model.config.bid_unit_micros,
            scores: searched.scores,
            objectives: &self.objectives,
            offsets: &self.slots.offsets,
        };
        let mut choice = Choice { rewards: &mut self.rewards, winner: &mut self.winner };
        reward_choice::run(&**stream, lists, values, self.beams.requests, &mut choice)
    }

    /// The rates of the winning lists.
    pub fn pay(&mut self) -> Result<(), DeviceError> {
        let Loaded { stream, model, .. } = self.loaded;
        let searched = self.search.searched();
        let lists = lists(&self.slots, self.beams, searched.slots);
        let inputs = PaymentInputs {
            winner: &self.winner,
            features: &self.reward.features,
            pctr_poi: &self.reward.probabilities,
            ln_z: searched.ln_z,
            bids: &self.slots.bids,
        };
        model.payment.rates(&**stream, lists, inputs, self.beams.requests, &mut self.rates)
    }

    /// Misreports of every slot of the first request's winning list, `each` of a slot.
    pub fn misreported(&self, each: usize) -> Result<Misreported, DeviceError> {
        let stream = &self.loaded.stream;
        let (winner, slots) = (self.winner.to_vec()?[0] as usize, self.search.searched().slots);
        let rows: Vec<u32> = (0..slots).map(|slot| (winner * slots + slot) as u32).collect();
        let offsets: Vec<u32> = (0..=slots).map(|group| (group * each) as u32).collect();
        let ln_z: Vec<f64> = (0..slots * each).map(|misreport| -(misreport as f64) / 10.0).collect();
        Ok(Misreported {
            rows: Buffer::from_slice(stream, &rows)?,
            offsets: Buffer::from_slice(stream, &offsets)?,
            ln_z: Buffer::from_slice(stream, &ln_z)?,
            rates: Buffer::new(stream, ln_z.len())?,
        })
    }

    /// The rates of misreports.
    pub fn pay_misreports(&self, misreported: &mut Misreported) -> Result<(), DeviceError> {
        let Loaded { stream, model, .. } = self.loaded;
        let Misreported { rows, offsets, ln_z, rates } = misreported;
        let inputs = MisreportInputs {
            rows,
            offsets,
            ln_z,
            features: &self.reward.features,
            pctr_poi: &self.reward.probabilities,
            bids: &self.slots.bids,
        };
        let lists = lists(&self.slots, self.beams, self.search.searched().slots);
        model.payment.misreports(&**stream, lists, inputs, rows.len(), rates)
    }

    /// Whether a list was found for every request: without any the stages behind the search have nothing to do.
    pub fn found_lists(&self) -> Result<bool, DeviceError> {
        Ok(self.winner.to_vec()?.iter().all(|&winner| winner != NO_WINNER))
    }
}

/// Misreports in device memory, and room for their rates.
pub struct Misreported {
    rows: Buffer<u32>,
    offsets: Buffer<u32>,
    ln_z: Buffer<f64>,
    rates: Buffer<f32>,
}

fn lists(slots: &ListSlots, beams: Beams, room: usize) -> Lists<'_> {
    Lists::new(beams.requests * beams.beams, room, &slots.lengths)
}

/// Feature values of a full history.
fn features(config: &ModelConfig) -> usize {
    config.context_features.len() + config.history_len * config.behavior_features.len()
}

/// A full history of codes that differ from request to request.
fn history(config: &ModelConfig, request: usize) -> History {
    let code = |at: usize| ((at * 7919 + request * 104_729) % config.codebook_size) as u16;
    let entry = |behavior: usize| HistoryEntry {
        codes: (0..config.poi_code_layers).map(|layer| code(8 * behavior + layer)).collect(),
        creative_codes: (0..config.creative_code_layers)
            .map(|layer| code(8 * behavior + 4 + layer))
            .collect(),
        features: (0..config.behavior_features.len()).map(|feature| (feature, 0)).collect(),
    };
    History {
        context: (0..config.context_features.len()).map(|feature| (feature, 0)).collect(),
        behaviors: (0..config.history_len).map(entry).collect(),
    }
}
