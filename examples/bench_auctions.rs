//! Times stand-alone auctions whose numbers another program made, and writes their outcomes for it to compare; one JSON
//! line. `benches/peers/auction.py` calls it.
//!
//!     cargo run --release --example bench_auctions -- --data DIR --rule gsp --threads 2
//!
//! DIR holds, little-endian: `effects` f64 `[slots]`, and of every auction `bids` u64, `reserves` u64 and `quality` f64,
//! [auctions, bidders] with `--bidders N`. `winners` u32 and `payments` u64 [auctions, slots] are written there.

#[path = "../benches/setup/options.rs"]
mod options;

use std::num::NonZeroU64;
use std::path::Path;
use std::time::Instant;

use bidslate::auction::batch::{Auction, AuctionBatch, AuctionRule, Reserves};
use bidslate::auction::standalone::run;
use bidslate::money::Micros;
use options::{number, option};

fn words(path: &Path) -> Vec<[u8; 8]> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    bytes.as_chunks::<8>().0.to_vec()
}

fn read(data: &Path, bidders: usize, rule: AuctionRule) -> AuctionBatch {
    let micros = |name: &str| -> Vec<Micros> {
        words(&data.join(name)).into_iter().map(|word| Micros(u64::from_le_bytes(word))).collect()
    };
    let floats =
        |name: &str| -> Vec<f64> { words(&data.join(name)).into_iter().map(f64::from_le_bytes).collect() };
    let (bids, reserves) = (micros("bids"), micros("reserves"));
    let (quality, effects) = (floats("quality"), floats("effects"));
    let mut batch = AuctionBatch::default();
    for start in (0..bids.len()).step_by(bidders) {
        let own = start..start + bidders;
        let auction = Auction {
            rule,
            bids: &bids[own.clone()],
            quality: &quality[own.clone()],
            reserves: Reserves::Each(&reserves[own]),
            position_effects: &effects,
            squash: 1.0,
            tie_seed: 0,
            ids: None,
        };
        batch.push(&auction).expect("the numbers are in range");
    }
    batch
}

fn main() {
    let data = option("--data", ".");
    let data = Path::new(&data);
    let rule = match option("--rule", "vcg").as_str() {
        "gsp" => AuctionRule::Gsp,
        "vcg" => AuctionRule::Vcg,
        rule => panic!("--rule {rule}, expected gsp or vcg"),
    };
    let batch = read(data, number("--bidders", "64"), rule);
    let threads = number("--threads", "1");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    let outcomes = pool.install(|| run(&batch, NonZeroU64::MIN)); // Warm-up.
    let mut seconds: Vec<f64> = (0..number("--runs", "9"))
        .map(|_| {
            let start = Instant::now();
            pool.install(|| run(&batch, NonZeroU64::MIN));
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    let winners: Vec<u8> = outcomes.winners.iter().flat_map(|winner| winner.to_le_bytes()).collect();
    let payments: Vec<u8> = outcomes.payments.iter().flat_map(|payment| payment.0.to_le_bytes()).collect();
    std::fs::write(data.join("winners"), winners).expect("winners are written");
    std::fs::write(data.join("payments"), payments).expect("payments are written");
    let line = serde_json::json!({
        "threads": threads,
        "auctions": batch.len(),
        "seconds_median": seconds[seconds.len() / 2],
        "seconds_min": seconds[0],
    });
    println!("{line}");
}
