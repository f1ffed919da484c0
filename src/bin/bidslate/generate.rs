//! `bidslate generate`: winning lists in bulk, as the tensors that a policy gradient needs (Eq. 31-32).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use bidslate::catalog::{ItemKind, Snapshot};
use bidslate::engine::Report;
use bidslate::model::config::ModelConfig;
use bidslate::request::{Counterfactual, Request};
use bidslate::response::{Response, Slot, Trace};

use crate::engine_args::EngineArgs;
use crate::lines::Refusals;
use crate::progress::Progress;
use crate::request_file::{Answer, Answered, answers, batches, requests};
use crate::tensor_file::TensorFile;

/// Micros in a currency unit.
const MICROS: f64 = 1e6;

/// Writes the winning lists of a file of requests as tensors: items and their codes, the weights of all codes along the
/// way, probabilities, payments and marginal contributions. What the policy gradient is trained on.
#[derive(clap::Args)]
pub struct GenerateArgs {
    #[command(flatten)]
    engine: EngineArgs,
    /// The safetensors file to write.
    #[arg(long)]
    out: PathBuf,
    /// All candidate lists too, not only the winning one.
    #[arg(long)]
    lists: bool,
    /// Where a list without an item comes from, in place of what the requests say: the candidate lists, or a search.
    #[arg(long, value_enum)]
    counterfactual: Option<Without>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Without {
    Beams,
    Redecode,
}

impl From<Without> for Counterfactual {
    fn from(without: Without) -> Self {
        match without {
            Without::Beams => Self::Beams,
            Without::Redecode => Self::Redecode,
        }
    }
}

impl GenerateArgs {
    /// Runs the command; false where a request was refused. Errors of requests go to standard error.
    pub fn run(self) -> Result<bool> {
        self.engine.keep_apart(&[("--out", Some(&self.out))])?;
        let (engine, count) = self.engine.engine(usize::MAX, |builder| builder)?;
        let snapshot = engine.catalog().snapshot();
        let mut generated = Generated::new(engine.config(), self.lists);
        let mut progress = Progress::steps("generating");
        let mut refusals = Refusals::default();
        let report = Report { trace: true, ..Report::default() };
        for batch in batches(requests(&self.engine.requests)?, self.engine.batch) {
            let allocate = |requests: &[Request]| {
                let asked: Vec<Request> = requests.iter().map(|request| self.ask(request)).collect();
                Ok(engine.allocate_on(&snapshot, &asked, report))
            };
            for Answered { number, id, answer } in answers(batch?, allocate)? {
                if let Err(error) = &answer {
                    refusals.note(number);
                    eprintln!("{id}: {error}");
                }
                generated.add(id, answer, &snapshot);
                progress.at(generated.ids.len() as u64, count);
            }
        }
        drop(progress);
        generated.write(&self.out)?;
        refusals.tell(&self.engine.requests, count);
        Ok(refusals.none())
    }

    /// The request with its marginal contributions.
    fn ask(&self, request: &Request) -> Request {
        let counterfactual = self.counterfactual.map_or(request.counterfactual, Into::into);
        Request { marginal: true, counterfactual, ..request.clone() }
    }
}

/// Columns over requests; what a request or a slot does not fill holds the empty value of its column.
struct Generated {
    /// K.
    slots: usize,
    /// C_p.
    item_layers: usize,
    /// C_c.
    creative_layers: usize,
    /// W.
    width: usize,
    /// Micros in a bid unit.
    unit: f64,
    ids: Vec<serde_json::Value>,
    length: Vec<i64>,
    reward: Vec<f64>,
    log_prob: Vec<f64>,
    ln_w: Vec<f32>,
    item: Vec<i64>,
    creative: Vec<i64>,
    item_codes: Vec<i64>,
    creative_codes: Vec<i64>,
    is_ad: Vec<u8>,
    payment: Vec<f64>,
    /// Bid, pctr_poi, pctr_creative, pcvr, z, marginal contribution.
    numbers: [Vec<f32>; NUMBERS.len()],
    lists: Option<Vec<Lists>>,
}

/// The columns of [`Generated::numbers`], and what an empty slot holds.
const NUMBERS: [(&str, f32); 6] = [
    ("bid", 0.0),
    ("pctr_poi", 0.0),
    ("pctr_creative", 0.0),
    ("pcvr", 0.0),
    ("z", 0.0),
    ("marginal", f32::NAN),
];

/// The candidate lists of a request.
#[derive(Default)]
struct Lists {
    items: Vec<i64>,
    log_prob: Vec<f64>,
    reward: Vec<f64>,
}

impl Generated {
    fn new(config: &ModelConfig, lists: bool) -> Self {
        Self {
            slots: config.list_len,
            item_layers: config.poi_code_layers,
            creative_layers: config.creative_code_layers,
            width: config.codebook_size,
            unit: config.bid_unit_micros as f64,
            ids: Vec::new(),
            length: Vec::new(),
            reward: Vec::new(),
            log_prob: Vec::new(),
            ln_w: Vec::new(),
            item: Vec::new(),
            creative: Vec::new(),
            item_codes: Vec::new(),
            creative_codes: Vec::new(),
            is_ad: Vec::new(),
            payment: Vec::new(),
            numbers: Default::default(),
            lists: lists.then(Vec::new),
        }
    }

    /// Adds the answer to a request.
    fn add(&mut self, id: serde_json::Value, answer: Answer, snapshot: &Snapshot) {
        self.ids.push(id);
        let requests = self.ids.len();
        let mut lists = Lists::default();
        if let Ok(response) = &answer {
            response.slots.iter().for_each(|slot| self.add_slot(slot, snapshot));
            if let Some(trace) = &response.trace {
                self.ln_w.extend(&trace.ln_w);
                let Trace { items, log_prob, reward, .. } = &**trace;
                lists = Lists { items: items.clone(), log_prob: log_prob.clone(), reward: reward.clone() };
            }
        }
        let number = |number: fn(&Response) -> f64| answer.as_ref().map_or(f64::NAN, number);
        self.length.push(answer.as_ref().map_or(0, |response| response.slots.len() as i64));
        self.reward.push(number(|response| response.reward));
        self.log_prob.push(number(|response| response.log_prob));
        if let Some(all) = &mut self.lists {
            all.push(lists);
        }
        self.fill(requests * self.slots);
    }

    fn add_slot(&mut self, slot: &Slot, snapshot: &Snapshot) {
        self.item.push(slot.item.cast_signed());
        self.creative.push(slot.creative.cast_signed());
        self.is_ad.push(u8::from(slot.kind == ItemKind::Ad));
        self.payment.push(slot.payment_micros.0 as f64 / MICROS);
        let row = snapshot.find(slot.item);
        let item_codes = row.map_or(&[][..], |row| snapshot.codes(row));
        let creative =
            row.and_then(|row| snapshot.creatives(row).find(|&c| snapshot.creative_id(c) == slot.creative));
        let creative_codes = creative.map_or(&[][..], |creative| snapshot.creative_codes(creative));
        self.item_codes.extend(item_codes.iter().map(|&code| i64::from(code)));
        self.creative_codes.extend(creative_codes.iter().map(|&code| i64::from(code)));
        let bid = slot.bid_micros.0 as f64 / self.unit;
        let marginal = slot.marginal.unwrap_or(f64::NAN);
        let numbers = [bid, slot.pctr_poi, slot.pctr_creative, slot.pcvr, slot.z, marginal];
        self.numbers.iter_mut().zip(numbers).for_each(|(column, number)| column.push(number as f32));
    }

    /// Fills the columns of slots up to `slots` slots, and the weights.
    fn fill(&mut self, slots: usize) {
        self.item.resize(slots, -1);
        self.creative.resize(slots, -1);
        self.is_ad.resize(slots, 0);
        self.payment.resize(slots, 0.0);
        self.item_codes.resize(slots * self.item_layers, -1);
        self.creative_codes.resize(slots * self.creative_layers, -1);
        self.ln_w.resize(slots * self.item_layers * self.width, f32::NEG_INFINITY);
        for (column, (_, empty)) in self.numbers.iter_mut().zip(NUMBERS) {
            column.resize(slots, empty);
        }
    }

    fn write(&self, path: &Path) -> Result<()> {
        let (requests, k) = (self.ids.len(), self.slots);
        let mut file = TensorFile::default();
        file.put("length", &[requests], &self.length);
        file.put("reward", &[requests], &self.reward);
        file.put("log_prob", &[requests], &self.log_prob);
        file.put("ln_w", &[requests, k * self.item_layers, self.width], &self.ln_w);
        file.put("item", &[requests, k], &self.item);
        file.put("creative", &[requests, k], &self.creative);
        file.put("item_codes", &[requests, k, self.item_layers], &self.item_codes);
        file.put("creative_codes", &[requests, k, self.creative_layers], &self.creative_codes);
        file.put("is_ad", &[requests, k], &self.is_ad);
        file.put("payment", &[requests, k], &self.payment);
        for (column, (name, _)) in self.numbers.iter().zip(NUMBERS) {
            file.put(name, &[requests, k], column);
        }
        if let Some(lists) = &self.lists {
            put_lists(&mut file, lists, k);
        }
        file.write(path, Some(HashMap::from([("ids".to_owned(), serde_json::to_string(&self.ids)?)])))
    }
}

/// The candidate lists of all requests, as many rows for each as the widest search has beams.
fn put_lists(file: &mut TensorFile, lists: &[Lists], slots: usize) {
    let beams = lists.iter().map(|lists| lists.log_prob.len()).max().unwrap_or(0);
    let (mut items, mut log_prob, mut reward) = (Vec::new(), Vec::new(), Vec::new());
    for (number, one) in lists.iter().enumerate() {
        let rows = (number + 1) * beams;
        items.extend(&one.items);
        items.resize(rows * slots, -1);
        log_prob.extend(&one.log_prob);
        log_prob.resize(rows, 0.0);
        reward.extend(&one.reward);
        reward.resize(rows, 0.0);
    }
    file.put("lists.item", &[lists.len(), beams, slots], &items);
    file.put("lists.log_prob", &[lists.len(), beams], &log_prob);
    file.put("lists.reward", &[lists.len(), beams], &reward);
}
