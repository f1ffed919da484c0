//! `bidslate misreports`: what ads would get by other bids, over sampled values, as the table that a payment network is
//! trained on (Eq. 33-35).
//!
//! Allocation does not depend on the payment network, so this is written once for all of its training.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use bidslate::auction::regret::GammaGrid;
use bidslate::catalog::{ItemKind, Snapshot, Update};
use bidslate::engine::{AuditOptions, Engine, Report};
use bidslate::model::config::ModelConfig;
use bidslate::money::Micros;
use bidslate::request::{Audit, PaymentRule, Request};
use bidslate::response::Response;
use bidslate::response::audit::{AuditedAd, SweepPoint};

use crate::draw;
use crate::engine_args::EngineArgs;
use crate::lines::Refusals;
use crate::progress::Progress;
use crate::request_file::{Answer, Answered, answers, batches, requests};
use crate::tensor_file::TensorFile;

/// Writes, for sampled values of all ads and each ad of the lists that they lead to, what a misreported bid would
/// change when the list is picked again among the candidate lists, or when the whole search runs again: whether the ad
/// is still shown, and what the payment network would read. What the payment network is trained on.
#[derive(clap::Args)]
pub struct MisreportArgs {
    #[command(flatten)]
    engine: EngineArgs,
    /// The safetensors file to write.
    #[arg(long)]
    out: PathBuf,
    /// Samples of the values. In the first, values are the catalog's bids; in others they are these times
    /// exp(sigma x normal), drawn for each ad.
    #[arg(long, default_value_t = 1)]
    samples: u64,
    /// Spread of the logarithm of a sampled value.
    #[arg(long, default_value_t = 0.4)]
    sigma: f64,
    /// Seed of the samples.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What a misreport may change: which candidate list is shown, or the whole search.
    #[arg(long, value_enum, default_value_t = Tier::Reselect)]
    tier: Tier,
    /// Factors by which values are misreported; 0.2, 0.4, .. 2.0 unless given.
    #[arg(long, value_delimiter = ',')]
    gammas: Option<Vec<f64>>,
}

impl MisreportArgs {
    /// Runs the command; false where a request was refused. Errors of requests go to standard error.
    pub fn run(self) -> Result<bool> {
        ensure!(self.samples > 0, "--samples is 0, expected at least 1");
        ensure!(
            self.sigma >= 0.0 && self.sigma.is_finite(),
            "--sigma is {}, expected a number of 0 or more",
            self.sigma
        );
        let gammas = self.gammas.clone().map_or(Ok(GammaGrid::default()), GammaGrid::new)?;
        let options = AuditOptions { gammas: gammas.clone(), ..AuditOptions::default() };
        self.engine.keep_apart(&[("--out", Some(&self.out))])?;
        let (engine, count) = self.engine.engine(usize::MAX, |builder| builder.audit(options))?;
        let mut table = Table::new(engine.config(), gammas.gammas());
        let mut progress = Progress::steps("sampling");
        let mut all_good = true;
        let mut refusals = Refusals::default();
        for sample in 0..self.samples {
            let snapshot = self.values(&engine.catalog().snapshot(), sample)?;
            let mut done = 0;
            for batch in batches(requests(&self.engine.requests)?, self.engine.batch) {
                let allocate = |requests: &[Request]| Ok(self.allocate(&engine, &snapshot, requests));
                for Answered { number, id, answer } in answers(batch?, allocate)? {
                    match answer {
                        Ok(response) => table.add(done, sample, &response, &snapshot),
                        Err(error) => {
                            all_good = false;
                            eprintln!("{id}: {error}");
                            // Each sample asks for the same lines.
                            if sample == 0 {
                                refusals.note(number);
                            }
                        }
                    }
                    done += 1;
                    progress.at(sample * count + done, self.samples * count);
                }
            }
        }
        drop(progress);
        table.write(&self.out)?;
        refusals.tell(&self.engine.requests, count);
        Ok(all_good)
    }

    /// The answers to requests under the bids of `snapshot`, audited.
    fn allocate(&self, engine: &Engine, snapshot: &Snapshot, requests: &[Request]) -> Vec<Answer> {
        let ask = |request: &Request| Request {
            payment: PaymentRule::Network,
            audit: self.tier.into(),
            ..request.clone()
        };
        let asked: Vec<Request> = requests.iter().map(ask).collect();
        engine.allocate_on(snapshot, &asked, Report { rate_inputs: true, ..Report::default() })
    }

    /// The catalog with the values of a sample as bids.
    fn values(&self, snapshot: &Snapshot, sample: u64) -> Result<Snapshot> {
        if sample == 0 {
            return Ok(snapshot.clone());
        }
        let ads = (0..snapshot.len() as u32).filter(|&item| snapshot.kind(item) == ItemKind::Ad);
        let value = |item: u32| {
            let id = snapshot.id(item);
            let normal = draw::stream(self.seed, "value", &format!("{sample} {id}")).normal();
            let bid = snapshot.declared_bid(item).0 as f64 * libm::exp(self.sigma * normal);
            // The cast saturates.
            Update::Bid { item: id, bid: Micros((bid as u64).min(Micros::MAX.0)) }
        };
        Ok(snapshot.with(&ads.map(value).collect::<Vec<_>>())?)
    }
}

/// What is computed again for a misreport.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Tier {
    Reselect,
    Redecode,
}

impl From<Tier> for Audit {
    fn from(tier: Tier) -> Self {
        match tier {
            Tier::Reselect => Self::Reselect,
            Tier::Redecode => Self::Redecode,
        }
    }
}

/// Columns over the ads of the lists, and over gammas.
struct Table {
    /// d_r.
    features: usize,
    /// K - 1.
    others: usize,
    /// Micros in a bid unit.
    unit: f64,
    gammas: Vec<f64>,
    rows: Vec<Row>,
    points: Points,
}

/// An ad of a list, under the values of a sample.
struct Row {
    request: u64,
    sample: u64,
    slot: usize,
    item: u64,
    /// Bid units.
    value: f64,
    /// Bid units.
    reserve: f64,
}

/// What the ad gets by each bid: [rows, gammas] and, of some columns, one more dimension.
#[derive(Default)]
struct Points {
    bid: Vec<f32>,
    shown: Vec<u8>,
    features: Vec<f32>,
    others: Vec<f32>,
    z_pctr: Vec<f32>,
    pctr: Vec<f32>,
}

impl Table {
    fn new(config: &ModelConfig, gammas: &[f64]) -> Self {
        Self {
            features: config.reward_hidden_size,
            others: config.list_len - 1,
            unit: config.bid_unit_micros as f64,
            gammas: gammas.to_vec(),
            rows: Vec::new(),
            points: Points::default(),
        }
    }

    fn add(&mut self, request: u64, sample: u64, response: &Response, snapshot: &Snapshot) {
        for ad in response.audit.iter().flat_map(|audit| &audit.ads) {
            let &AuditedAd { slot, item, value_micros, .. } = ad;
            let reserve = snapshot.find(item).map_or(Micros::ZERO, |row| snapshot.reserve(row));
            self.rows.push(Row {
                request,
                sample,
                slot,
                item,
                value: value_micros.0 as f64 / self.unit,
                reserve: reserve.0 as f64 / self.unit,
            });
            ad.sweep.iter().for_each(|point| self.add_point(point));
        }
    }

    fn add_point(&mut self, point: &SweepPoint) {
        let points = &mut self.points;
        points.bid.push((point.bid_micros.0 as f64 / self.unit) as f32);
        points.shown.push(u8::from(point.rate_input.is_some()));
        points.pctr.push(point.clicks as f32);
        let nothing = vec![0.0; self.features + self.others + 1];
        let input = point.rate_input.as_ref().unwrap_or(&nothing);
        let (features, rest) = input.split_at(self.features);
        points.features.extend(features);
        points.others.extend(&rest[..self.others]);
        points.z_pctr.push(rest[self.others]);
    }

    fn write(&self, path: &Path) -> Result<()> {
        let (rows, gammas) = (self.rows.len(), self.gammas.len());
        let whole =
            |of: fn(&Row) -> u64| -> Vec<i64> { self.rows.iter().map(|row| of(row).cast_signed()).collect() };
        let real = |of: fn(&Row) -> f64| -> Vec<f32> { self.rows.iter().map(|row| of(row) as f32).collect() };
        let mut file = TensorFile::default();
        let factors: Vec<f32> = self.gammas.iter().map(|&gamma| gamma as f32).collect();
        file.put("gamma", &[gammas], &factors);
        file.put("request", &[rows], &whole(|row| row.request));
        file.put("sample", &[rows], &whole(|row| row.sample));
        file.put("slot", &[rows], &whole(|row| row.slot as u64));
        file.put("item", &[rows], &whole(|row| row.item));
        file.put("value", &[rows], &real(|row| row.value));
        file.put("reserve", &[rows], &real(|row| row.reserve));
        let Points { bid, shown, features, others, z_pctr, pctr } = &self.points;
        file.put("bid", &[rows, gammas], bid);
        file.put("shown", &[rows, gammas], shown);
        file.put("features", &[rows, gammas, self.features], features);
        file.put("others", &[rows, gammas, self.others], others);
        file.put("zq", &[rows, gammas], z_pctr);
        file.put("pctr", &[rows, gammas], pctr);
        file.write(path, None)
    }
}
