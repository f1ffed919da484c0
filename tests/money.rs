//! Money, through the engine: nobody pays more than the bid or less than the reserve, organic items never pay, and
//! every rule's price can be worked out from the response.

mod world;

use bidslate::catalog::{Catalog, Columns, ItemKind};
use bidslate::engine::{Engine, Report};
use bidslate::model::config::ModelConfig;
use bidslate::money::Micros;
use bidslate::request::{Candidates, PaymentRule, Request};
use bidslate::response::{Response, Slot, Trace};
use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;
use world::World;

const RULES: [PaymentRule; 4] =
    [PaymentRule::Network, PaymentRule::Gsp, PaymentRule::Vcg, PaymentRule::FirstPrice];

const REPORT: Report =
    Report { timings: false, quotes: true, trace: true, grounds: false, rate_inputs: false };

/// Bids and reserves that are multiples of nothing; one ad in five bids less than its reserve.
fn spread(columns: &mut Columns, rng: &mut Xoshiro256PlusPlus) {
    for row in 0..columns.ids.len() {
        if columns.kinds[row] == ItemKind::Ad {
            let bid = rng.random_range(1..40_000_000);
            columns.bid_micros[row] = bid;
            let below = row % 20 == 0;
            columns.reserve_micros[row] = if below { bid + 1 } else { rng.random_range(0..=bid) };
        }
    }
}

struct Market {
    config: ModelConfig,
    columns: Columns,
    engine: Engine,
    requests: Vec<Request>,
}

impl Market {
    fn new(billable_unit_micros: u64, requests: usize, rng: &mut Xoshiro256PlusPlus) -> Self {
        let config = ModelConfig { billable_unit_micros, bid_unit_micros: 500_000, ..world::config() };
        let world = World::new(config.clone(), 120, rng.random());
        let mut columns = world.catalog.clone();
        spread(&mut columns, rng);
        let catalog = Catalog::from_columns(columns.clone(), &config).unwrap();
        let engine = world.builder(2).catalog(catalog).build().unwrap();
        Self { config, columns, engine, requests: world.requests(requests, rng) }
    }

    /// Each request's answers under the four rules.
    fn answers(&self) -> Vec<(Request, [Response; 4])> {
        self.requests
            .iter()
            .map(|request| {
                let under = RULES.map(|payment| Request { payment, ..request.clone() });
                let answers: Vec<Response> =
                    self.engine.allocate_with(&under, REPORT).into_iter().map(Result::unwrap).collect();
                (request.clone(), answers.try_into().unwrap())
            })
            .collect()
    }

    fn reserve(&self, slot: &Slot) -> u64 {
        self.columns.reserve_micros[self.columns.ids.iter().position(|&id| id == slot.item).unwrap()]
    }

    /// The payment for a price in micros, in steps: a micro, the unit, the reserve, the bid.
    fn settle(&self, price: f64, slot: &Slot) -> u64 {
        let micros = (price * (1.0 + 2f64.powi(-44))).floor() as u64;
        let unit = self.config.billable_unit_micros;
        (micros / unit * unit).max(self.reserve(slot)).min(slot.bid_micros.0)
    }

    /// Whether `paid` is the payment for `price`, which is known up to rounding.
    fn pays(&self, paid: Micros, price: f64, slot: &Slot) -> bool {
        let slack = price.abs() * 1e-9;
        (self.settle(price - slack, slot)..=self.settle(price + slack, slot)).contains(&paid.0)
    }
}

fn ads(response: &Response) -> Vec<usize> {
    (0..response.slots.len()).filter(|&i| response.slots[i].kind == ItemKind::Ad).collect()
}

/// Calls `check` with every request's answers in markets of several billable units.
fn each(test: &str, mut check: impl FnMut(&Market, &Request, &[Response; 4])) {
    let mut rng = world::rng(test);
    let mut ads_seen = 0;
    for unit in [1, 1000, 10_000] {
        let market = Market::new(unit, 30, &mut rng);
        for (request, answers) in market.answers() {
            ads_seen += ads(&answers[0]).len();
            check(&market, &request, &answers);
        }
    }
    assert!(ads_seen > 50, "only {ads_seen} ads were shown");
}

#[test]
fn payments_lie_between_reserve_and_bid_in_whole_units() {
    each("payments_lie_between_reserve_and_bid_in_whole_units", |market, _, answers| {
        for (slot, rule) in
            answers.iter().zip(RULES).flat_map(|(a, rule)| a.slots.iter().map(move |s| (s, rule)))
        {
            let (paid, bid) = (slot.payment_micros.0, slot.bid_micros.0);
            assert!((0.0..=1.0).contains(&slot.rate), "{rule:?}: {slot:?}");
            if slot.kind == ItemKind::Organic {
                assert_eq!((paid, bid, slot.rate), (0, 0, 0.0), "{rule:?}: {slot:?}");
                continue;
            }
            let reserve = market.reserve(slot);
            assert!(reserve <= paid && paid <= bid, "{rule:?}: reserve {reserve}, {slot:?}");
            let whole = paid % market.config.billable_unit_micros == 0;
            assert!(whole || paid == reserve || paid == bid, "{rule:?}: reserve {reserve}, {slot:?}");
            if rule != PaymentRule::Network {
                assert_eq!(slot.rate, paid as f64 / bid as f64, "{rule:?}");
            }
            assert!(slot.z > 0.0 && slot.z <= 1.0 + 1e-9, "{slot:?}");
        }
    });
}

#[test]
fn the_rule_changes_payments_and_nothing_else() {
    each("the_rule_changes_payments_and_nothing_else", |_, _, answers| {
        let [network, gsp, vcg, first] = answers;
        for other in [gsp, vcg, first] {
            assert_eq!(
                (other.reward, other.log_prob, other.beam),
                (network.reward, network.log_prob, network.beam)
            );
            assert_eq!(other.quotes, network.quotes, "quotes do not depend on the rule that was chosen");
            for (a, b) in network.slots.iter().zip(&other.slots) {
                assert_eq!((a.item, a.creative, a.bid_micros, a.z), (b.item, b.creative, b.bid_micros, b.z));
                assert_eq!((a.pctr_poi, a.pctr_creative, a.pcvr), (b.pctr_poi, b.pctr_creative, b.pcvr));
            }
        }
        let quotes = network.quotes.as_ref().unwrap();
        assert_eq!(quotes.len(), network.slots.len());
        for (i, quote) in quotes.iter().enumerate() {
            assert_eq!(quote.network_micros, network.slots[i].payment_micros);
            assert_eq!(quote.gsp_micros, gsp.slots[i].payment_micros);
            assert_eq!(quote.vcg_micros, Some(vcg.slots[i].payment_micros));
        }
    });
}

#[test]
fn first_price_is_the_bid_and_the_network_takes_its_rate() {
    each("first_price_is_the_bid_and_the_network_takes_its_rate", |market, _, [network, _, _, first]| {
        for slot in ads(first).into_iter().map(|i| &first.slots[i]) {
            assert_eq!(slot.payment_micros.0, market.settle(slot.bid_micros.0 as f64, slot));
            if market.config.billable_unit_micros == 1 {
                assert_eq!(slot.payment_micros, slot.bid_micros);
            }
        }
        for slot in ads(network).into_iter().map(|i| &network.slots[i]) {
            let price = slot.rate * slot.bid_micros.0 as f64;
            assert_eq!(slot.payment_micros.0, market.settle(price, slot));
        }
    });
}

#[test]
fn gsp_follows_from_the_next_ad() {
    let mut below_bid = 0;
    each("gsp_follows_from_the_next_ad", |market, request, [_, gsp, _, _]| {
        let ads = ads(gsp);
        for (n, &i) in ads.iter().enumerate() {
            let slot = &gsp.slots[i];
            let price = match ads.get(n + 1).map(|&next| &gsp.slots[next]) {
                Some(next) => next.bid_micros.0 as f64 * (next.pctr_poi / slot.pctr_poi).powf(request.squash),
                None => 0.0,
            };
            assert!(market.pays(slot.payment_micros, price, slot), "price {price}: {slot:?}");
            below_bid += usize::from(price > 0.0 && slot.payment_micros < slot.bid_micros);
        }
    });
    assert!(below_bid > 0, "no price was looked at that a second bid sets");
}

/// The lists of a trace: items (-1 where empty) and reward.
fn lists<'a>(trace: &'a Trace, config: &ModelConfig, count: usize) -> Vec<(&'a [i64], f64)> {
    trace.items.chunks(config.list_len).zip(trace.reward.iter().copied()).take(count).collect()
}

/// The trace holds the rewards of all lists, but not what an ad is worth in lists that are not shown: those
/// without the ad bound its price from below, and where it is in no other list they set it.
#[test]
fn vcg_is_what_the_others_lose() {
    let (mut exact, mut bounded, mut above_reserve) = (0, 0, 0);
    each("vcg_is_what_the_others_lose", |market, request, [_, _, vcg, _]| {
        let lists = lists(vcg.trace.as_ref().unwrap(), &market.config, vcg.lists);
        assert_eq!(lists[vcg.beam].1, vcg.reward);
        assert!(lists.iter().all(|(_, reward)| *reward <= vcg.reward), "a better list was there");
        for slot in ads(vcg).into_iter().map(|i| &vcg.slots[i]) {
            let unit = market.config.bid_unit_micros as f64;
            let revenue = request.objective.revenue;
            let others_here = vcg.reward - revenue * slot.bid_micros.0 as f64 / unit * slot.pctr_poi;
            let holds = |items: &[i64]| items.contains(&slot.item.cast_signed());
            let without = lists.iter().filter(|(items, _)| !holds(items)).map(|(_, reward)| *reward);
            let most = without.fold(others_here, f64::max);
            let price = (most - others_here) / (revenue * slot.pctr_poi) * unit;
            // The subtraction of rewards loses digits that the quotient brings forward.
            let slack = 1e-12 * vcg.reward / (revenue * slot.pctr_poi) * unit + 1e-9 * price;
            let (low, high) = (market.settle(price - slack, slot), market.settle(price + slack, slot));
            assert!(slot.payment_micros.0 >= low, "price {price}: {slot:?}");
            bounded += 1;
            if lists.iter().filter(|(items, _)| holds(items)).count() == 1 {
                assert!(slot.payment_micros.0 <= high, "price {price}: {slot:?}");
                exact += 1;
                above_reserve += usize::from(slot.payment_micros.0 > market.reserve(slot));
            }
        }
    });
    println!("{bounded} prices bounded, {exact} exact, {above_reserve} of them above the reserve");
    assert!(exact > 0 && above_reserve > 0);
}

#[test]
fn the_reward_is_that_of_the_slots() {
    each("the_reward_is_that_of_the_slots", |market, request, [network, ..]| {
        let o = &request.objective;
        let unit = market.config.bid_unit_micros as f64;
        let worth = |s: &Slot| {
            (o.revenue * s.bid_micros.0 as f64 / unit + o.ctr_poi) * s.pctr_poi
                + o.ctr_creative * s.pctr_creative
                + o.cvr * s.pcvr
        };
        let sum: f64 = network.slots.iter().map(worth).sum();
        assert!((sum - network.reward).abs() <= 1e-9 * (1.0 + sum), "{sum} and {}", network.reward);
        let ln_z: f64 = network.slots.iter().map(|slot| slot.z.ln()).sum();
        // A list that was cut short may have lost more to an item that was dropped.
        let full = network.slots.len() == request.list_len.unwrap();
        let tolerance = 1e-9 * (1.0 + ln_z.abs());
        assert!(network.log_prob <= ln_z + tolerance, "{ln_z} and {}", network.log_prob);
        assert!(!full || network.log_prob >= ln_z - tolerance, "{ln_z} and {}", network.log_prob);
    });
}

/// An ad below its reserve is rejected, whether it is named or all are asked for.
#[test]
fn ads_below_their_reserve_are_never_shown() {
    let mut rng = world::rng("ads_below_their_reserve_are_never_shown");
    let market = Market::new(1, 20, &mut rng);
    let row = |id: u64| market.columns.ids.iter().position(|&other| other == id).unwrap();
    let below = |id: u64| market.columns.bid_micros[row(id)] < market.columns.reserve_micros[row(id)];
    let mut rejected = 0;
    for request in &market.requests {
        let response = market.engine.allocate(std::slice::from_ref(request)).remove(0).unwrap();
        assert!(response.slots.iter().all(|slot| slot.kind == ItemKind::Organic || !below(slot.item)));
        let mut named: Vec<u64> = match &request.candidates {
            Candidates::All => {
                let ad = |id: &u64| market.columns.kinds[row(*id)] == ItemKind::Ad;
                market.columns.ids.iter().copied().filter(ad).collect()
            }
            Candidates::Items(ids) => ids.clone(),
        };
        named.retain(|&id| below(id));
        named.sort_unstable();
        let mut found: Vec<u64> = response.rejected.iter().map(|rejected| rejected.item).collect();
        found.sort_unstable();
        assert_eq!(found, named);
        rejected += found.len();
    }
    assert!(rejected > 0);
}
