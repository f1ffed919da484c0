//! Judging lists by the truth: expectations, nothing sampled.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::{Context, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::data::{Ask, Id};
use crate::files::{self, Lines};
use crate::response::{Audit, Kind, Response, Slot};
use crate::world::{Shown, Viewer, World};

/// Truthful utilities up to this, in micros, count as none: they have no ratio.
const NO_UTILITY_MICROS: f64 = 1e-9;

/// What one list brings: a line of the outcomes. Sums over its slots; amounts in currency units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Name of the request.
    pub id: Id,
    /// Number of the user.
    pub user: u64,
    /// Slots.
    pub impressions: u32,
    /// Slots that hold an ad.
    pub ads: u32,
    /// Expected clicks on POIs x payment.
    pub revenue: f64,
    /// Expected clicks on POIs x bid, which is what a click is worth to the advertiser.
    pub value: f64,
    /// Expected clicks on POIs.
    pub clicks_poi: f64,
    /// Expected clicks on creatives.
    pub clicks_creative: f64,
    /// Expected conversions.
    pub conversions: f64,
    /// The same by the predictions that came with the list.
    pub predicted: Predicted,
    /// What the ads could gain by other bids; none where it was not audited.
    pub audit: Option<AuditSums>,
}

/// What the predictions of a list say that it brings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Predicted {
    /// Predicted clicks on POIs x payment.
    pub revenue: f64,
    /// Predicted clicks on POIs.
    pub clicks_poi: f64,
    /// Predicted clicks on creatives.
    pub clicks_creative: f64,
}

/// Sums over the audited ads of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditSums {
    /// What was computed again for another bid.
    pub tier: String,
    /// Audited ads.
    pub ads: u32,
    /// Truthful utilities.
    pub utility: f64,
    /// Regrets.
    pub regret: f64,
    /// Regret / utility, over ads with utility.
    pub ratio_sum: f64,
    /// Ads whose truthful utility is at most 1e-9 micros.
    pub without_utility: u32,
}

impl AuditSums {
    fn of(audit: &Audit) -> Self {
        let mut sums = Self {
            tier: audit.tier.clone(),
            ads: 0,
            utility: 0.0,
            regret: 0.0,
            ratio_sum: 0.0,
            without_utility: 0,
        };
        for ad in &audit.ads {
            sums.ads += 1;
            sums.utility += ad.utility_micros / 1e6;
            sums.regret += ad.regret_micros / 1e6;
            if ad.utility_micros > NO_UTILITY_MICROS {
                sums.ratio_sum += ad.regret_micros / ad.utility_micros;
            } else {
                sums.without_utility += 1;
            }
        }
        sums
    }
}

/// A line of a file of responses: an answer, or why there is none.
#[derive(Deserialize)]
struct Line {
    id: Option<Id>,
    error: Option<serde_json::Value>,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

/// Judges every response of a file and writes the outcomes, in the order of the requests.
///
/// # Errors
/// Names file, line, field, value and what was expected. There must be one answer to each request, and each must be a
/// list that the request admits: its items, creatives and bids those of the catalog, its policy obeyed, no payment
/// above the bid.
pub fn judge(world: &World, asks: &[Ask], responses: &Path, out: &Path) -> anyhow::Result<()> {
    let by_id: HashMap<&Id, usize> = asks.iter().enumerate().map(|(i, ask)| (&ask.id, i)).collect();
    let mut outcomes: Vec<Option<Outcome>> = asks.iter().map(|_| None).collect();
    for (line, response) in files::read_lines::<Line>(responses)? {
        let place = || format!("{}:{line}", responses.display());
        let response = answer(response).with_context(place)?;
        let &i = by_id
            .get(&response.id)
            .ok_or_else(|| anyhow!("{}: `id`: is {}, expected one of the requests", place(), response.id))?;
        ensure!(outcomes[i].is_none(), "{}: `id`: is {} again, expected each once", place(), response.id);
        outcomes[i] = Some(outcome(world, &asks[i], &response).with_context(place)?);
    }
    let mut file = Lines::create(out)?;
    for (ask, outcome) in asks.iter().zip(&outcomes) {
        let Some(outcome) = outcome else {
            bail!("{}: no line has `id` {}, expected one for each request", responses.display(), ask.id);
        };
        file.push(outcome)?;
    }
    file.finish()
}

fn answer(line: Line) -> anyhow::Result<Response> {
    let Line { id, error, mut rest } = line;
    if let Some(error) = error {
        bail!("is the refusal {error}, expected an answer");
    }
    let id = id.ok_or_else(|| anyhow!("`id`: is missing, expected the request's"))?;
    rest.insert("id".to_owned(), serde_json::to_value(id)?);
    serde_path_to_error::deserialize(serde_json::Value::Object(rest))
        .map_err(|e| anyhow!("`{}`: {}", e.path(), e.inner()))
}

/// What a response brings by the truth.
///
/// # Errors
/// Names the field of whatever the request does not admit.
pub fn outcome(world: &World, ask: &Ask, response: &Response) -> anyhow::Result<Outcome> {
    let list = check(world, ask, &response.slots)?;
    let mut outcome = Outcome {
        id: ask.id.clone(),
        user: world.data.visits.users[ask.user],
        impressions: list.len() as u32,
        ads: 0,
        revenue: 0.0,
        value: 0.0,
        clicks_poi: 0.0,
        clicks_creative: 0.0,
        conversions: 0.0,
        predicted: Predicted::default(),
        audit: response.audit.as_ref().map(AuditSums::of),
    };
    for (slot, clicks) in response.slots.iter().zip(Viewer::new(world, ask).clicks(&list)) {
        let payment = slot.payment_micros as f64 / 1e6;
        outcome.ads += u32::from(slot.kind == Kind::Ad);
        outcome.revenue += clicks.on_poi() * payment;
        outcome.value += clicks.on_poi() * slot.bid_micros as f64 / 1e6;
        outcome.clicks_poi += clicks.on_poi();
        outcome.clicks_creative += clicks.on_creative();
        outcome.conversions += clicks.conversions();
        outcome.predicted.revenue += slot.pctr_poi * payment;
        outcome.predicted.clicks_poi += slot.pctr_poi;
        outcome.predicted.clicks_creative += slot.pctr_creative;
    }
    Ok(outcome)
}

/// The list of a response, if the request admits it.
fn check(world: &World, ask: &Ask, slots: &[Slot]) -> anyhow::Result<Vec<Shown>> {
    let mut list = Vec::with_capacity(slots.len());
    for (number, slot) in slots.iter().enumerate() {
        list.push(check_slot(world, slot).map_err(|e| anyhow!("`slots[{number}]`: {e:#}"))?);
    }
    check_items(world, ask, &list)?;
    check_policy(ask, slots)?;
    Ok(list)
}

fn check_slot(world: &World, slot: &Slot) -> anyhow::Result<Shown> {
    let catalog = &world.data.catalog;
    let item = catalog.item(slot.item).context("`item`")?;
    let creative = catalog.creative(item, slot.creative).context("`creative`")?;
    let ad = catalog.items[item].ad;
    let kind = if ad.is_some() { Kind::Ad } else { Kind::Organic };
    ensure!(slot.kind == kind, "`kind`: is {:?}, expected {kind:?}", slot.kind);
    let bid = ad.map_or(0, |ad| ad.bid_micros);
    ensure!(slot.bid_micros == bid, "`bid_micros`: is {}, expected the catalog's {bid}", slot.bid_micros);
    ensure!(
        slot.payment_micros <= bid,
        "`payment_micros`: is {}, expected at most the bid of {bid}",
        slot.payment_micros
    );
    for (name, p) in [("pctr_poi", slot.pctr_poi), ("pctr_creative", slot.pctr_creative), ("pcvr", slot.pcvr)]
    {
        ensure!((0.0..=1.0).contains(&p), "`{name}`: is {p}, expected 0 to 1");
    }
    Ok(Shown { item, creative })
}

/// Ads must be candidates, organic items the first of theirs in their order, and nothing may stand twice.
fn check_items(world: &World, ask: &Ask, list: &[Shown]) -> anyhow::Result<()> {
    let candidates: HashSet<usize> = ask.ads.iter().copied().collect();
    let mut organic = ask.organic.iter();
    let mut shown = HashSet::new();
    for (number, &Shown { item, .. }) in list.iter().enumerate() {
        let id = world.data.catalog.items[item].id;
        let field = format!("`slots[{number}].item`: is {id}");
        ensure!(shown.insert(item), "{field} again, expected each once");
        match world.data.catalog.items[item].ad {
            Some(ad) => {
                ensure!(candidates.contains(&item), "{field}, expected a candidate of the request");
                ensure!(ad.takes_part(), "{field}, expected an ad that bids at least its reserve");
            }
            None => {
                ensure!(organic.next() == Some(&item), "{field}, expected the request's next organic item")
            }
        }
    }
    Ok(())
}

fn check_policy(ask: &Ask, slots: &[Slot]) -> anyhow::Result<()> {
    let policy = &ask.policy;
    ensure!(slots.len() <= ask.list_len, "`slots`: holds {}, expected at most {}", slots.len(), ask.list_len);
    let ads: Vec<usize> = (0..slots.len()).filter(|&slot| slots[slot].kind == Kind::Ad).collect();
    let most = policy.max_ads.unwrap_or(usize::MAX);
    ensure!(ads.len() <= most, "`slots`: holds {} ads, expected at most {most}", ads.len());
    let first = policy.first_ad_slot;
    ensure!(
        ads.first().is_none_or(|&ad| ad >= first),
        "`slots`: ads in {ads:?}, expected none before slot {first}"
    );
    let gap = policy.min_gap;
    ensure!(
        ads.windows(2).all(|pair| pair[1] - pair[0] > gap),
        "`slots`: ads in {ads:?}, expected {gap} items between two"
    );
    Ok(())
}
