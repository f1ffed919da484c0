//! A whole allocation: request in, slots with prices out.

use serde_json::Value;

use super::auction::{Place, Valued, bill, gsp_prices, others, vcg_price};
use super::audit::{AuditedAd, audit};
use super::files::Model;
use super::network::{Network, Vector};
use super::request::{Payment, Refusal, Request};
use super::search::{Beam, Search, relative_gap};

/// One slot of the winning list.
#[derive(Debug, Clone)]
pub struct Slot {
    pub item: u64,
    /// `ad` or `organic`.
    pub kind: &'static str,
    pub creative: u64,
    pub bid_micros: u64,
    pub reserve_micros: u64,
    pub payment_micros: u64,
    pub rate: f64,
    pub pctr_poi: f64,
    pub pctr_creative: f64,
    pub pcvr: f64,
    pub z: f64,
    pub marginal: Option<f64>,
    /// Size in micros of the terms that the price is a difference of (VCG); 0 for the other rules.
    pub price_scale: f64,
}

/// The N_S lists, best score first. Item and creative ids; lists may be short.
#[derive(Debug, Clone, Default)]
pub struct Lists {
    pub items: Vec<Vec<u64>>,
    pub creatives: Vec<Vec<u64>>,
    pub log_prob: Vec<f64>,
    pub reward: Vec<f64>,
    /// z of each slot.
    pub z: Vec<Vec<f64>>,
}

/// Smallest gaps met between what was chosen and what was not, each over the larger of 1 and the numbers' size
/// (rewards: over the rewards' size). Infinite where there was nothing to choose between.
#[derive(Debug, Clone, Copy)]
pub struct Margins {
    /// Last kept and first dropped continuation.
    pub search: f64,
    /// Best and second creative code, over all lists.
    pub creative: f64,
    /// Best list's reward and the next one's; of lists that tie exactly, their scores.
    pub reward: f64,
    /// The winner's score and its neighbours': only `beam` hangs on it.
    pub order: f64,
    /// All of the above, over the counterfactuals that `marginal` rests on.
    pub marginal: f64,
}

/// Everything an allocation yields.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub slots: Vec<Slot>,
    pub reward: f64,
    pub log_prob: f64,
    pub beam: usize,
    pub lists: Lists,
    pub rejected: Vec<(u64, String)>,
    /// S_e, [n, d].
    pub encoder: Vec<Vector>,
    /// Logits of the winning list's codes, [filled slots * C_p, W].
    pub poi_logits: Vec<Vector>,
    /// Creative logits along the winning list's creatives, [filled slots * C_c, W].
    pub creative_logits: Vec<Vector>,
    /// f_i, [filled slots, d_r].
    pub reward_features: Vec<Vector>,
    /// The slots' rates.
    pub rates: Vec<f64>,
    /// Sum over the winning list's ads of b * pctr_poi, in bid units: what marginal contributions are part of.
    pub ad_value: f64,
    pub payment: Payment,
    /// The regret audit, an ad for each ad of the list; empty where none was asked for.
    pub audit: Vec<AuditedAd>,
    /// What a payment may be off by where a price straddles a multiple: the billable unit.
    pub billable_unit_micros: u64,
    pub margins: Margins,
}

/// One of the N_S lists with everything computed on it.
#[derive(Debug, Clone)]
pub struct Scored {
    pub beam: Beam,
    pub creatives: Vec<usize>,
    pub features: Vec<Vector>,
    pub pctr_poi: Vec<f64>,
    pub pctr_creative: Vec<f64>,
    pub pcvr: Vec<f64>,
    pub reward: f64,
}

/// The candidate lists of one decoding, best score first, and its margins.
pub struct Decoded {
    pub lists: Vec<Scored>,
    pub search_margin: f64,
    pub creative_margin: f64,
}

/// Allocates one request.
pub fn allocate(model: &Model, json: &Value) -> Result<Outcome, Refusal> {
    let request = Request::read(model, json)?;
    let mut network = Network::new(model, &request);
    let decoded = decode(model, &request, &mut network, None);
    let all: Vec<usize> = (0..decoded.lists.len()).collect();
    let (beam, reward_margin) = best(&decoded.lists, &all);
    let winner = &decoded.lists[beam];
    let rates = network_rates(model, &network, winner);
    let prices = prices(model, &request, &decoded.lists, beam, &rates);
    let (marginals, marginal_margin) = marginals(model, &request, &mut network, &decoded, beam);
    let audit = audit(model, &request, &mut network, &decoded, beam);
    let mut slots = Vec::new();
    for (i, &row) in winner.beam.rows.iter().enumerate() {
        let item = &model.items[row];
        let bid_micros = if item.is_ad { item.bid } else { 0 };
        let payment_micros = payment(model, row, &prices[i]);
        let rate = match request.payment {
            _ if !item.is_ad => 0.0,
            Payment::Network => rates[i],
            // Reading: an ad with a bid of 0 pays 0 at a rate of 0.
            _ if bid_micros == 0 => 0.0,
            _ => payment_micros as f64 / bid_micros as f64,
        };
        slots.push(Slot {
            item: item.id,
            kind: if item.is_ad { "ad" } else { "organic" },
            creative: item.creatives[winner.creatives[i]].id,
            bid_micros,
            reserve_micros: item.reserve,
            payment_micros,
            rate,
            pctr_poi: winner.pctr_poi[i],
            pctr_creative: winner.pctr_creative[i],
            pcvr: winner.pcvr[i],
            z: winner.beam.ln_zs[i].exp(),
            marginal: marginals[i],
            price_scale: prices[i].scale,
        });
    }
    Ok(Outcome {
        reward: winner.reward,
        ad_value: ad_value(model, winner),
        log_prob: winner.beam.score,
        beam,
        lists: list_columns(model, &decoded.lists),
        poi_logits: winner_logits(model, &mut network, winner),
        creative_logits: winner_creative_logits(model, &mut network, winner),
        reward_features: winner.features.clone(),
        rates: slots.iter().map(|slot| slot.rate).collect(),
        margins: Margins {
            search: decoded.search_margin,
            creative: decoded.creative_margin,
            reward: reward_margin,
            order: order_margin(&decoded.lists, beam),
            marginal: marginal_margin,
        },
        slots,
        rejected: request.rejected.clone(),
        encoder: network.encoder,
        payment: request.payment,
        audit,
        billable_unit_micros: model.config.billable_unit_micros,
    })
}

/// What the item in row `row` pays.
pub fn payment(model: &Model, row: usize, price: &Price) -> u64 {
    let item = &model.items[row];
    match price.price {
        _ if !item.is_ad => 0,
        Some(price) => bill(price, model.config.billable_unit_micros, item.reserve, item.bid),
        None => item.reserve,
    }
}

/// Beam search (without one item, for a counterfactual), creatives, rewards.
pub fn decode(model: &Model, request: &Request, network: &mut Network, without: Option<usize>) -> Decoded {
    let search = Search { model, request, without };
    let (beams, search_margin) = search.run(network);
    let mut creative_margin = f64::INFINITY;
    let mut lists = Vec::new();
    for beam in beams {
        let mut creatives = Vec::new();
        for i in 0..beam.rows.len() {
            let (creative, margin) = search.creative(network, &beam, i);
            creatives.push(creative);
            creative_margin = creative_margin.min(margin);
        }
        lists.push(score(model, request, network, beam, creatives));
    }
    Decoded { lists, search_margin, creative_margin }
}

/// Bid in bid units; an organic item counts 0.
fn bid_units(model: &Model, row: usize) -> f64 {
    let item = &model.items[row];
    if item.is_ad { item.bid as f64 / model.config.bid_unit_micros as f64 } else { 0.0 }
}

pub fn score(
    model: &Model,
    request: &Request,
    network: &Network,
    beam: Beam,
    creatives: Vec<usize>,
) -> Scored {
    let items: Vec<_> = beam.rows.iter().map(|&row| &model.items[row]).collect();
    let slots: Vec<_> =
        items.iter().zip(&creatives).map(|(item, &c)| (*item, item.creatives[c].codes.as_slice())).collect();
    let features = network.reward_features(&slots);
    let tower =
        |name: &str| -> Vec<f64> { (0..slots.len()).map(|i| network.tower(name, &features, i)).collect() };
    let (pctr_poi, pctr_creative, pcvr) = (tower("pctr_poi"), tower("pctr_creative"), tower("pcvr"));
    let list = Scored { beam, creatives, features, pctr_poi, pctr_creative, pcvr, reward: 0.0 };
    Scored { reward: reward(model, request, &list), ..list }
}

/// What a list is worth with the bids of `model`.
pub fn reward(model: &Model, request: &Request, list: &Scored) -> f64 {
    let m = &request.objective;
    let mut reward = 0.0;
    for (i, &row) in list.beam.rows.iter().enumerate() {
        reward += m.revenue * bid_units(model, row) * list.pctr_poi[i];
        reward +=
            m.ctr_poi * list.pctr_poi[i] + m.ctr_creative * list.pctr_creative[i] + m.cvr * list.pcvr[i];
    }
    reward
}

/// Of the lists at `indices`, the one of highest reward (ties: higher score, then lower index), and the margin.
pub fn best(lists: &[Scored], indices: &[usize]) -> (usize, f64) {
    let mut order = indices.to_vec();
    order.sort_by(|&a, &b| {
        let (a_list, b_list) = (&lists[a], &lists[b]);
        let by_reward = b_list.reward.total_cmp(&a_list.reward);
        by_reward.then(b_list.beam.score.total_cmp(&a_list.beam.score)).then(a.cmp(&b))
    });
    let first = &lists[order[0]];
    let gaps = order[1..].iter().map(|&other| {
        let other = &lists[other];
        if other.reward == first.reward {
            relative_gap(other.beam.score, first.beam.score)
        } else {
            (first.reward - other.reward) / first.reward.abs().max(other.reward.abs())
        }
    });
    (order[0], gaps.fold(f64::INFINITY, f64::min))
}

fn order_margin(lists: &[Scored], beam: usize) -> f64 {
    let others = (0..lists.len()).filter(|&other| other != beam);
    let gaps = others.map(|other| relative_gap(lists[other].beam.score, lists[beam].beam.score));
    gaps.fold(f64::INFINITY, f64::min)
}

/// The payment network's rate in each slot of a list.
pub fn network_rates(model: &Model, network: &Network, list: &Scored) -> Vec<f64> {
    let rows = &list.beam.rows;
    let rate = |i: usize| {
        // ln(1 + b) of the other K - 1 slots of the model's K, in slot order; 0 for organic and empty ones.
        let others: Vec<f64> = (0..model.config.list_len)
            .filter(|&other| other != i)
            .map(|other| rows.get(other).map_or(0.0, |&row| bid_units(model, row)).ln_1p())
            .collect();
        network.payment_rate(&list.features[i], &others, list.beam.ln_zs[i].exp() * list.pctr_poi[i])
    };
    (0..rows.len()).map(rate).collect()
}

/// A price in micros before rounding; `None` is the reserve.
pub struct Price {
    pub price: Option<f64>,
    pub scale: f64,
}

/// The price of each slot of the list `winner`.
pub fn prices(
    model: &Model,
    request: &Request,
    lists: &[Scored],
    winner: usize,
    rates: &[f64],
) -> Vec<Price> {
    let list = &lists[winner];
    let places: Vec<Place> = list
        .beam
        .rows
        .iter()
        .zip(&list.pctr_poi)
        .map(|(&row, &q)| {
            let item = &model.items[row];
            Place { is_ad: item.is_ad, bid: item.bid, reserve: item.reserve, q }
        })
        .collect();
    let plain = |price| Price { price, scale: 0.0 };
    match request.payment {
        Payment::Network => {
            places.iter().zip(rates).map(|(place, rate)| plain(Some(rate * place.bid as f64))).collect()
        }
        Payment::FirstPrice => places.iter().map(|place| plain(Some(place.bid as f64))).collect(),
        Payment::Gsp => gsp_prices(&places, request.squash).into_iter().map(plain).collect(),
        Payment::Vcg => vcg_prices(model, request, lists, winner, &places),
    }
}

fn vcg_prices(
    model: &Model,
    request: &Request,
    lists: &[Scored],
    winner: usize,
    places: &[Place],
) -> Vec<Price> {
    let valued: Vec<Valued> = lists
        .iter()
        .map(|list| Valued {
            reward: list.reward,
            worth: (0..list.beam.rows.len())
                .map(|i| {
                    let row = list.beam.rows[i];
                    (model.items[row].id, bid_units(model, row) * list.pctr_poi[i])
                })
                .collect(),
        })
        .collect();
    let m_rev = request.objective.revenue;
    let unit = model.config.bid_unit_micros as f64;
    let price = |i: usize| {
        let (id, q) = (model.items[lists[winner].beam.rows[i]].id, places[i].q);
        let size =
            valued.iter().map(|list| others(list, id, m_rev).abs() + list.reward.abs()).fold(0.0, f64::max);
        Price {
            price: vcg_price(&valued, winner, id, q, m_rev).map(|price| price * unit),
            scale: size / (m_rev * q) * unit,
        }
    };
    (0..places.len()).map(price).collect()
}

/// Sum over the ads of a list of b q, in bid units.
fn ad_value(model: &Model, list: &Scored) -> f64 {
    list.beam.rows.iter().zip(&list.pctr_poi).map(|(&row, q)| bid_units(model, row) * q).sum()
}

/// Each slot's marginal contribution, where asked for, and the smallest margin met on the way.
/// Reading: every slot has one, organic slots too.
fn marginals(
    model: &Model,
    request: &Request,
    network: &mut Network,
    decoded: &Decoded,
    winner: usize,
) -> (Vec<Option<f64>>, f64) {
    let list = &decoded.lists[winner];
    let (mut values, mut smallest) = (vec![None; list.beam.rows.len()], f64::INFINITY);
    if !request.marginal {
        return (values, smallest);
    }
    let own = ad_value(model, list);
    for (i, &row) in list.beam.rows.iter().enumerate() {
        if request.redecode {
            let again = decode(model, request, network, Some(row));
            let all: Vec<usize> = (0..again.lists.len()).collect();
            let (other, margin) = best(&again.lists, &all);
            smallest = smallest.min(margin).min(again.search_margin).min(again.creative_margin);
            values[i] = Some(own - ad_value(model, &again.lists[other]));
        } else {
            let without: Vec<usize> =
                (0..decoded.lists.len()).filter(|&l| !decoded.lists[l].beam.rows.contains(&row)).collect();
            if !without.is_empty() {
                let (other, margin) = best(&decoded.lists, &without);
                smallest = smallest.min(margin);
                values[i] = Some(own - ad_value(model, &decoded.lists[other]));
            }
        }
    }
    (values, smallest)
}

fn winner_logits(model: &Model, network: &mut Network, list: &Scored) -> Vec<Vector> {
    let codes: Vec<u16> =
        list.beam.rows.iter().flat_map(|&row| model.items[row].codes.iter().cloned()).collect();
    (0..codes.len()).map(|t| network.poi_logits(&codes[..t])).collect()
}

fn winner_creative_logits(model: &Model, network: &mut Network, list: &Scored) -> Vec<Vector> {
    let mut codes: Vec<u16> = Vec::new();
    let mut logits = Vec::new();
    for (&row, &creative) in list.beam.rows.iter().zip(&list.creatives) {
        let item = &model.items[row];
        codes.extend(&item.codes);
        let (hidden, shown) = (network.hidden(&codes), &item.creatives[creative].codes);
        logits.extend((0..shown.len()).map(|layer| network.creative_logits(&hidden, &shown[..layer])));
    }
    logits
}

fn list_columns(model: &Model, lists: &[Scored]) -> Lists {
    let mut columns = Lists::default();
    for list in lists {
        let items: Vec<_> = list.beam.rows.iter().map(|&row| &model.items[row]).collect();
        columns.items.push(items.iter().map(|item| item.id).collect());
        columns
            .creatives
            .push(items.iter().zip(&list.creatives).map(|(item, &c)| item.creatives[c].id).collect());
        columns.log_prob.push(list.beam.score);
        columns.reward.push(list.reward);
        columns.z.push(list.beam.ln_zs.iter().map(|ln_z| ln_z.exp()).collect());
    }
    columns
}
