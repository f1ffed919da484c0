//! `bidslate audit`: what advertisers could gain by other bids, over the requests of a file.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use bidslate::auction::psi::{AdRegret, Audits, Bootstrap, Psi};
use bidslate::auction::regret::GammaGrid;
use bidslate::engine::{AuditOptions, Engine};
use bidslate::error::RequestError;
use bidslate::request::{Audit, PaymentRule, Request};
use bidslate::response::audit::{AuditedAd, RegretAudit, SharedRows};
use serde::Serialize;
use serde_json::{Value, json};

use crate::audit_table;
use crate::engine_args::EngineArgs;
use crate::lines::{self, Refusals};
use crate::progress::Progress;
use crate::request_file::{Line, batches, requests};

/// Says what advertisers could gain by other bids than their values, over the requests of a file: Psi with confidence
/// intervals, and each advertiser's bid landscape, by tier and payment rule.
#[derive(clap::Args)]
pub struct AuditArgs {
    #[command(flatten)]
    engine: EngineArgs,
    /// What another bid may change: the payment alone, the choice among the candidate lists, or everything. Several are
    /// audited one after another.
    #[arg(long, value_enum, value_delimiter = ',', required = true)]
    tier: Vec<Tier>,
    /// Payment rules in place of the requests' own.
    #[arg(long, value_enum, value_delimiter = ',')]
    payment: Vec<Rule>,
    /// Factors by which bids are misreported; 0.2, 0.4, .. 2.0 unless given.
    #[arg(long, value_delimiter = ',')]
    gammas: Option<Vec<f64>>,
    /// Lines of the file to look at, from the first.
    #[arg(long)]
    limit: Option<usize>,
    /// Samples of the bootstrap.
    #[arg(long, default_value_t = Bootstrap::default().samples)]
    samples: usize,
    /// Seed of the bootstrap.
    #[arg(long, default_value_t = Bootstrap::default().seed)]
    seed: u64,
    /// Decoder rows that the searches of `redecode` may hold together at a position.
    #[arg(long, default_value_t = AuditOptions::default().rows)]
    rows: usize,
    /// json: refused lines in their order, then one object for each tier and rule. table: for people.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Where to write; standard output unless given.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Json,
    Table,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Tier {
    Fixed,
    Reselect,
    Redecode,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum Rule {
    Network,
    Gsp,
    Vcg,
    FirstPrice,
}

impl From<Tier> for Audit {
    fn from(tier: Tier) -> Self {
        match tier {
            Tier::Fixed => Self::Fixed,
            Tier::Reselect => Self::Reselect,
            Tier::Redecode => Self::Redecode,
        }
    }
}

impl From<Rule> for PaymentRule {
    fn from(rule: Rule) -> Self {
        match rule {
            Rule::Network => Self::Network,
            Rule::Gsp => Self::Gsp,
            Rule::Vcg => Self::Vcg,
            Rule::FirstPrice => Self::FirstPrice,
        }
    }
}

/// What the audits of one tier and one payment rule come to.
#[derive(Debug, Serialize)]
pub struct Summary {
    pub tier: Audit,
    pub payment: PaymentRule,
    /// By the gammas.
    pub psi: Psi,
    /// By the best of all bids, where that can be told.
    pub exact: Option<Psi>,
    /// What Psi is at least, because no payment is above its bid; of `fixed` alone.
    pub least: Option<Psi>,
    /// What the decoder ran for the searches, all together; of `redecode` on the CPU.
    pub decoder: Option<SharedRows>,
    /// Of each advertiser, by its id; of ads without one together, by null, first.
    pub landscape: Vec<Landscape>,
}

/// What an advertiser's ads would get, each by gamma times its bid while all others keep theirs: sums over requests.
#[derive(Debug, Serialize)]
pub struct Landscape {
    pub advertiser: Option<u64>,
    /// Audited ads.
    pub ads: usize,
    pub gammas: Vec<f64>,
    /// Expected clicks.
    pub clicks: Vec<f64>,
    pub cost_micros: Vec<f64>,
    pub utility_micros: Vec<f64>,
}

/// Audits of one tier and one payment rule, while they come in.
struct Tally {
    tier: Audit,
    payment: PaymentRule,
    audits: Audits,
    exact: Option<Audits>,
    least: Option<Audits>,
    decoder: Option<SharedRows>,
    landscape: BTreeMap<Option<u64>, Landscape>,
}

impl AuditArgs {
    /// Runs the command; false where a request was refused.
    pub fn run(self) -> Result<bool> {
        let gammas = self.gammas.clone().map_or(Ok(GammaGrid::default()), GammaGrid::new)?;
        let options = AuditOptions { gammas, rows: self.rows, ..AuditOptions::default() };
        let limit = self.limit.unwrap_or(usize::MAX);
        self.engine.keep_apart(&[("--out", self.out.as_deref())])?;
        let (engine, count) = self.engine.engine(limit, |builder| builder.audit(options))?;
        let mut out = lines::output(self.out.as_deref())?;
        let mut tallies = Vec::new();
        let mut progress = Progress::steps("auditing");
        let mut done = 0;
        let mut refusals = Refusals::default();
        let lines = requests(&self.engine.requests)?.take(limit);
        for batch in batches(lines, self.engine.batch) {
            let batch = batch?;
            done += batch.len() as u64;
            for (number, id, error) in self.audit(&engine, batch, &mut tallies) {
                refusals.note(number);
                self.refuse(&mut out, &id, &error)?;
            }
            progress.at(done, count);
        }
        drop(progress);
        let bootstrap = Bootstrap { samples: self.samples, seed: self.seed };
        let summaries: Vec<Summary> = tallies.into_iter().map(|tally| tally.summary(bootstrap)).collect();
        match self.format {
            Format::Table => write!(out, "{}", audit_table::render(&summaries))?,
            Format::Json => {
                for summary in &summaries {
                    writeln!(out, "{}", serde_json::to_string(summary)?)?;
                }
            }
        }
        out.flush()?;
        refusals.tell(&self.engine.requests, count);
        Ok(refusals.none())
    }

    /// Audits the requests of a batch of lines; returns what was refused, each line once, with its number and id.
    fn audit(
        &self,
        engine: &Engine,
        batch: Vec<Line>,
        tallies: &mut Vec<Tally>,
    ) -> Vec<(usize, Value, RequestError)> {
        let own: [Option<Rule>; 1] = [None];
        let given: Vec<Option<Rule>> = self.payment.iter().copied().map(Some).collect();
        let rules = if given.is_empty() { &own[..] } else { &given };
        let (ids, lines): (Vec<(usize, Value)>, Vec<_>) =
            batch.into_iter().map(|line| ((line.number, line.id), line.request)).unzip();
        let mut faults: Vec<Option<RequestError>> =
            lines.iter().map(|line| line.as_ref().err().cloned()).collect();
        for tier in &self.tier {
            for rule in rules {
                let good: Vec<usize> = (0..lines.len()).filter(|&line| lines[line].is_ok()).collect();
                let changed = |request: &Request| Request {
                    audit: (*tier).into(),
                    payment: rule.map_or(request.payment, PaymentRule::from),
                    ..request.clone()
                };
                let requests: Vec<Request> = lines.iter().flatten().map(changed).collect();
                let answers = engine.allocate(&requests);
                for ((line, request), answer) in good.into_iter().zip(&requests).zip(answers) {
                    match answer {
                        Ok(response) => {
                            let tally = tally(tallies, request);
                            response.audit.iter().for_each(|audit| tally.add(audit));
                        }
                        Err(error) => _ = faults[line].get_or_insert(error),
                    }
                }
            }
        }
        ids.into_iter().zip(faults).filter_map(|((number, id), fault)| Some((number, id, fault?))).collect()
    }

    fn refuse(&self, out: &mut dyn Write, id: &Value, error: &RequestError) -> Result<()> {
        let json = json!({"id": id, "error": error});
        match self.format {
            Format::Json => writeln!(out, "{json}")?,
            Format::Table => write!(out, "{}", crate::table::render(&json, None))?,
        }
        Ok(())
    }
}

/// The tally of a request's tier and rule, which is begun where there is none.
fn tally<'t>(tallies: &'t mut Vec<Tally>, request: &Request) -> &'t mut Tally {
    let (tier, payment) = (request.audit, request.payment);
    let known = tallies.iter().position(|tally| (tally.tier, tally.payment) == (tier, payment));
    let index = known.unwrap_or_else(|| {
        tallies.push(Tally::new(tier, payment));
        tallies.len() - 1
    });
    &mut tallies[index]
}

impl Tally {
    fn new(tier: Audit, payment: PaymentRule) -> Self {
        let exact = tier == Audit::Reselect && payment != PaymentRule::Network;
        Self {
            tier,
            payment,
            audits: Audits::default(),
            exact: exact.then(Audits::default),
            least: (tier == Audit::Fixed).then(Audits::default),
            decoder: None,
            landscape: BTreeMap::new(),
        }
    }

    fn add(&mut self, audit: &RegretAudit) {
        self.audits.push(audit.regrets());
        let with = |regret: fn(&AuditedAd) -> f64| {
            audit.ads.iter().map(move |ad| AdRegret { utility: ad.utility_micros, regret: regret(ad) })
        };
        if let Some(exact) = &mut self.exact {
            exact.push(with(|ad| ad.exact_regret_micros.unwrap_or_default()));
        }
        if let Some(least) = &mut self.least {
            least.push(with(|ad| ad.least_ratio.unwrap_or_default() * ad.utility_micros));
        }
        if let Some(one) = audit.decoder {
            let all = self.decoder.get_or_insert_default();
            all.searches += one.searches;
            all.unique_prefixes += one.unique_prefixes;
            all.rows += one.rows;
            all.rows_alone += one.rows_alone;
        }
        audit.ads.iter().for_each(|ad| {
            let landscape = self.landscape.entry(ad.advertiser);
            landscape.or_insert_with(|| Landscape::new(ad)).add(ad);
        });
    }

    fn summary(self, bootstrap: Bootstrap) -> Summary {
        Summary {
            tier: self.tier,
            payment: self.payment,
            psi: self.audits.psi(bootstrap),
            exact: self.exact.map(|audits| audits.psi(bootstrap)),
            least: self.least.map(|audits| audits.psi(bootstrap)),
            decoder: self.decoder,
            landscape: self.landscape.into_values().collect(),
        }
    }
}

impl Landscape {
    /// Nothing yet of the advertiser of `ad`.
    fn new(ad: &AuditedAd) -> Self {
        let gammas: Vec<f64> = ad.sweep.iter().map(|point| point.gamma).collect();
        let zeros = vec![0.0; gammas.len()];
        Self {
            advertiser: ad.advertiser,
            ads: 0,
            gammas,
            clicks: zeros.clone(),
            cost_micros: zeros.clone(),
            utility_micros: zeros,
        }
    }

    fn add(&mut self, ad: &AuditedAd) {
        self.ads += 1;
        for (gamma, point) in ad.sweep.iter().enumerate() {
            self.clicks[gamma] += point.clicks;
            self.cost_micros[gamma] += point.cost_micros;
            self.utility_micros[gamma] += point.utility_micros;
        }
    }
}
