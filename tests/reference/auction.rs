//! Prices: the four rules of a generated list and what they all end with.

/// What a price rule sees of one slot. Bids in micros; organic slots have none.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    pub is_ad: bool,
    pub bid: u64,
    pub reserve: u64,
    /// pctr_poi.
    pub q: f64,
}

/// From a price in micros to what is billed: rounded down to a micro (an exact price keeps its last micro), down
/// to a multiple of the billable unit, up to the reserve, never above the bid.
pub fn bill(price: f64, billable_unit: u64, reserve: u64, bid: u64) -> u64 {
    let micros = (price * (1.0 + (0.5f64).powi(44))).floor() as u64;
    (micros / billable_unit * billable_unit).max(reserve).min(bid)
}

/// GSP within a generated list: the least price that keeps each ad's rank score above the next ad's. `None` is
/// "the reserve": the last ad, and an ad whose own q is 0. Organic slots are `None` too.
pub fn gsp_prices(places: &[Place], squash: f64) -> Vec<Option<f64>> {
    let price = |i: usize| {
        let next = places[i + 1..].iter().find(|place| place.is_ad)?;
        let own = &places[i];
        (own.is_ad && own.q > 0.0).then(|| next.bid as f64 * (next.q / own.q).powf(squash))
    };
    (0..places.len()).map(price).collect()
}

/// One of the N_S lists as the Clarke pivot sees it: its reward, and item id with b * q (bid units) of its slots.
#[derive(Debug, Clone)]
pub struct Valued {
    pub reward: f64,
    pub worth: Vec<(u64, f64)>,
}

/// R(L) without what item `id` brings in: R(L) - m_rev b q.
pub fn others(list: &Valued, id: u64, m_rev: f64) -> f64 {
    let own = list.worth.iter().find(|(item, _)| *item == id).map_or(0.0, |(_, worth)| *worth);
    list.reward - m_rev * own
}

/// The Clarke pivot of item `id` with click probability `q` in list `winner`, in bid units; `None` where q = 0.
pub fn vcg_price(lists: &[Valued], winner: usize, id: u64, q: f64, m_rev: f64) -> Option<f64> {
    let best = lists.iter().map(|list| others(list, id, m_rev)).fold(f64::NEG_INFINITY, f64::max);
    (q > 0.0).then(|| (best - others(&lists[winner], id, m_rev)) / (m_rev * q))
}
