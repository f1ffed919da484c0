//! A record in words: why each ad won, and why it pays what it pays.

use std::fmt::{Result, Write};

use super::Record;
use super::allocation::{AdRecord, AllocationRecord, SlotRecord};
use super::auction::AuctionRecord;
use crate::auction::batch::AuctionRule;
use crate::auction::request::ReserveMicros;
use crate::money::Micros;
use crate::request::PaymentRule;

/// What a record says, in words.
pub fn explain(record: &Record) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = match record {
        Record::Allocation(record) => allocation(&mut text, record),
        Record::Auction(record) => auction(&mut text, record),
    };
    text
}

fn allocation(out: &mut String, record: &AllocationRecord) -> Result {
    let AllocationRecord { request, slots, beam, lists, reward, .. } = record;
    writeln!(
        out,
        "Request {}: {} slots, from catalog version {} on {}. The list of beam {beam} won: of {lists} lists it has the \
         highest reward, {reward:.6}.",
        request.id,
        slots.len(),
        record.catalog.version,
        record.backend,
    )?;
    for (index, slot) in slots.iter().enumerate() {
        match &slot.ad {
            None => writeln!(out, "Slot {index}: organic item {}, which pays nothing.", slot.item)?,
            Some(ad) => {
                shown(out, index, slot, ad)?;
                kept(out, record, ad)?;
                priced(out, record, index, slot, ad)?;
            }
        }
    }
    Ok(())
}

/// What the ad is and bids.
fn shown(out: &mut String, index: usize, slot: &SlotRecord, ad: &AdRecord) -> Result {
    writeln!(
        out,
        "Slot {index}: ad {} with creative {} bids {} a click, at or above its reserve price of {}. Under the bids it was \
         chosen with probability {:.3e}; a click is expected in {:.3} % of impressions.",
        slot.item,
        slot.creative,
        ad.bid_micros,
        ad.reserve_micros,
        slot.z,
        100.0 * slot.pctr_poi,
    )
}

/// What keeps the ad in the list.
fn kept(out: &mut String, record: &AllocationRecord, ad: &AdRecord) -> Result {
    let Some(runner_up) = &ad.runner_up else {
        return writeln!(out, "  Why it won: every one of the {} lists shows it.", record.lists);
    };
    let instead = match runner_up.item {
        Some(item) => format!("item {item} in its place"),
        None => "nothing in its place".into(),
    };
    write!(
        out,
        "  Why it won: the best list without it (beam {}, with {instead}) is worth {:.6}, less by {:.6}.",
        runner_up.beam,
        runner_up.reward,
        record.reward - runner_up.reward,
    )?;
    match ad.critical_bid_micros {
        Some(bid) => {
            writeln!(out, " Among these lists it would have stayed with a bid down to {bid:.2} micros.")
        }
        None => writeln!(out, " Its bid has no weight in what a list is worth."),
    }
}

/// From the rule's price to the payment.
fn priced(
    out: &mut String,
    record: &AllocationRecord,
    index: usize,
    slot: &SlotRecord,
    ad: &AdRecord,
) -> Result {
    let rule = match record.request.payment {
        PaymentRule::Network => format!("the payment network asks {:.4} % of the bid", 100.0 * ad.rate),
        PaymentRule::FirstPrice => "first price: the ad pays what it bids".into(),
        PaymentRule::Vcg if slot.pctr_poi == 0.0 => {
            "no click is expected, so the reserve price counts".into()
        }
        PaymentRule::Vcg => {
            "VCG: a click costs what the rest of the list and the objective's other parts lose by the \
                             ad's presence, over the ad's expected clicks"
                .into()
        }
        PaymentRule::Gsp => {
            let next = record.slots[index + 1..].iter().find_map(|slot| Some((slot, slot.ad.as_ref()?)));
            match next.filter(|_| slot.pctr_poi > 0.0) {
                Some((next, next_ad)) => format!(
                    "GSP: the next ad, {}, bids {} at a click probability of {:.3} %, and so much keeps this one above it \
                     (squash {})",
                    next.item,
                    next_ad.bid_micros,
                    100.0 * next.pctr_poi,
                    record.request.squash,
                ),
                None => "GSP: no ad follows that it must outbid, so the reserve price counts".into(),
            }
        }
    };
    writeln!(
        out,
        "  Why it pays {}: {rule}. {} Charge key {}.",
        ad.payment_micros,
        settled(ad, record.billable_unit_micros),
        ad.key
    )
}

/// How a price became the payment.
fn settled(ad: &AdRecord, unit: u64) -> String {
    let price = match ad.price_micros {
        Some(price) => format!("That is {price} micros"),
        None => "That is more than can be written".into(),
    };
    let how = if ad.payment_micros == ad.bid_micros
        && ad.price_micros.is_none_or(|p| p >= ad.bid_micros.0 as f64)
    {
        "held to the bid, which nobody pays more than".into()
    } else if ad.payment_micros == ad.reserve_micros {
        "and the reserve price is the least that is paid".into()
    } else if unit == 1 {
        "rounded down to a whole micro".into()
    } else {
        format!("rounded down to a multiple of {unit} micros")
    };
    format!("{price}, {how}.")
}

fn auction(out: &mut String, record: &AuctionRecord) -> Result {
    let auction = &record.auction;
    let (bidders, slots) = (auction.bids_micros.len(), auction.position_effects.len());
    writeln!(out, "Auction {}: {bidders} bidders for {slots} slots.", auction.id)?;
    for (slot, (winner, payment)) in record.winners.iter().zip(&record.payments_micros).enumerate() {
        let Some(winner) = *winner else {
            writeln!(
                out,
                "Slot {slot}: not sold. Its position effect is 0, or nobody is left at or above the reserve."
            )?;
            continue;
        };
        let bidder = winner as usize;
        let (bid, weight) = (auction.bids_micros[bidder], weight(record, bidder));
        let reserve = match &auction.reserve_micros {
            ReserveMicros::Common(reserve) => *reserve,
            ReserveMicros::Each(reserves) => reserves[bidder],
        };
        writeln!(
            out,
            "Slot {slot}: bidder {winner} bids {bid} a click at weight {weight}, reserve price {reserve}. It won because \
             its score, bid times weight, has rank {}; it pays {payment}: {}.",
            slot + 1,
            rule_of(record, bid, reserve, *payment),
        )?;
    }
    Ok(())
}

fn weight(record: &AuctionRecord, bidder: usize) -> f64 {
    let quality = record.auction.quality.as_ref().map_or(1.0, |quality| quality[bidder]);
    libm::pow(quality, record.auction.squash)
}

fn rule_of(record: &AuctionRecord, bid: Micros, reserve: Micros, payment: Micros) -> &'static str {
    match record.auction.rule {
        _ if payment == bid => "its bid",
        _ if payment == reserve => "its reserve price, the least that is paid",
        AuctionRule::Gsp => "the least bid that keeps its score above the next one",
        AuctionRule::Vcg => {
            "its critical value: for each step of position effect below it, the least bid that reaches that slot"
        }
        AuctionRule::FirstPrice => "its bid in whole billable units",
    }
}
