//! Records: every answer can be run again to the bit, from the shipped catalog whatever was live; and a file that is cut
//! or spoilt anywhere loses the lines that are hurt and no other.

mod world;

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use bidslate::auction::batch::AuctionBatch;
use bidslate::auction::request::AuctionRequest;
use bidslate::auction::settle::settle;
use bidslate::auction::standalone::run;
use bidslate::catalog::{Columns, ItemKind, Update};
use bidslate::engine::{Engine, Report};
use bidslate::money::Micros;
use bidslate::record::{
    AuctionRecord, LineFault, Record, RecordReader, RecordWriter, Recorder, ReplayError, charge_key, explain,
};
use bidslate::request::{Candidates, PaymentRule, Request, RequestId};
use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;
use world::World;

/// A world whose ads belong to advertisers, half of them with a budget.
fn world(rng: &mut Xoshiro256PlusPlus) -> World {
    let mut world = World::new(world::config(), 200, rng.random());
    let columns = &mut world.catalog;
    columns.advertisers = Some((0..columns.ids.len() as u64).map(|row| 10 + row % 12).collect());
    columns.advertiser_ids = Some((10..22).collect());
    columns.advertiser_budget_micros = Some((0..12).map(|i| i % 2 * 5_000_000).map(|b| b + 1).collect());
    columns.advertiser_pacing = Some((0..12).map(|i| 1.0 - i as f32 / 30.0).collect());
    world.catalog.write(&world.path().join("catalog.safetensors"), &world.config).unwrap();
    world
}

fn read(path: &Path) -> Vec<(u64, Result<Record, LineFault>)> {
    RecordReader::new(fs::read(path).unwrap().as_slice()).map(Result::unwrap).collect()
}

fn read_all(path: &Path) -> Vec<Record> {
    read(path).into_iter().map(|(_, record)| record.unwrap()).collect()
}

/// What replaying finds, on an engine that has seen nothing else.
fn replay(engine: &Engine, record: &Record) -> Result<Vec<String>, String> {
    let found = match record {
        Record::Allocation(record) => {
            record.replay(engine, &engine.catalog().snapshot()).map_err(|e: ReplayError| e.to_string())?
        }
        Record::Auction(record) => record.replay().map_err(|e| e.to_string())?,
    };
    Ok(found.iter().map(ToString::to_string).collect())
}

#[test]
fn every_answer_replays_to_the_bit_under_every_rule() {
    let mut rng = world::rng("every_answer_replays_to_the_bit_under_every_rule");
    let world = world(&mut rng);
    let path = world.path().join("records.jsonl");
    let engine = world.engine(2);
    let mut recorder = Recorder::open(&engine, &path).unwrap();
    let requests = world.requests(240, &mut rng);
    let plain = engine.allocate(&requests);
    assert_eq!(
        recorder.allocate(&requests, Report::default()).unwrap(),
        plain,
        "recording changes no answer"
    );
    let (again, mut rules, mut ads) = (world.engine(1), HashSet::new(), 0);
    let records = read_all(&path);
    assert_eq!(records.len(), requests.len());
    for record in &records {
        assert_eq!(replay(&again, record), Ok(vec![]));
        let Record::Allocation(record) = record else { panic!("{record:?}") };
        rules.insert(format!("{:?}", record.request.payment));
        ads += record.slots.iter().filter(|slot| slot.ad.is_some()).count();
        assert!(!explain(&Record::Allocation(record.clone())).is_empty());
    }
    assert!(rules.len() == 4 && ads > 200, "{rules:?}, {ads} ads");
}

#[test]
fn prices_before_rounding_settle_to_the_payments() {
    let mut rng = world::rng("prices_before_rounding_settle_to_the_payments");
    let world = world(&mut rng);
    let path = world.path().join("records.jsonl");
    let engine = world.engine(2);
    Recorder::open(&engine, &path)
        .unwrap()
        .allocate(&world.requests(120, &mut rng), Report::default())
        .unwrap();
    let (mut broken, mut rivals) = (0, 0);
    for record in read_all(&path) {
        let Record::Allocation(record) = record else { panic!("{record:?}") };
        for ad in record.slots.iter().filter_map(|slot| slot.ad.as_ref()) {
            let price = ad.price_micros.unwrap();
            let settled = settle(price, ad.bid_micros, ad.reserve_micros, record.billable_unit_micros);
            assert_eq!(settled, ad.payment_micros, "{ad:?}");
            broken += usize::from(price.fract() != 0.0);
            match record.request.payment {
                PaymentRule::Network => assert_eq!(price, ad.rate * ad.bid_micros.0 as f64),
                PaymentRule::FirstPrice => assert_eq!(price, ad.bid_micros.0 as f64),
                PaymentRule::Gsp | PaymentRule::Vcg => {}
            }
            let Some(runner_up) = ad.runner_up else { continue };
            assert!(runner_up.beam != record.beam && runner_up.reward <= record.reward, "{ad:?}");
            rivals += 1;
        }
    }
    assert!(broken > 50 && rivals > 20, "{broken} prices of parts of micros, {rivals} runners-up");
}

/// With alpha 0 and no two candidates of the same codes the lists do not depend on bids: then the critical bid decides.
#[test]
fn the_critical_bid_is_where_an_ad_drops_out() {
    let mut rng = world::rng("the_critical_bid_is_where_an_ad_drops_out");
    let world = World::new(world::config(), 200, rng.random());
    let engine = world.engine(2);
    let opened = engine.catalog().snapshot();
    let mut seen = HashSet::new();
    let mut distinct = |kind: ItemKind| -> Vec<u64> {
        let rows = (0..200u32).filter(|&row| opened.kind(row) == kind);
        let new = rows.filter(|&row| seen.insert(opened.codes(row).to_vec()));
        new.map(|row| opened.id(row)).collect()
    };
    let (ads, organic) = (distinct(ItemKind::Ad), distinct(ItemKind::Organic));
    let report = Report { grounds: true, ..Report::default() };
    let mut decided = 0;
    for mut request in world.requests(60, &mut rng) {
        (request.alpha, request.candidates) = (Some(0.0), Candidates::Items(ads.clone()));
        request.organic = organic[..5].to_vec();
        let ask = |snapshot: &bidslate::catalog::Snapshot| {
            engine.allocate_on(snapshot, std::slice::from_ref(&request), report).remove(0).unwrap()
        };
        let answer = ask(&opened);
        for (slot, grounds) in answer.slots.iter().zip(answer.grounds.as_ref().unwrap()) {
            let Some((grounds, critical)) = grounds.as_ref().and_then(|g| Some((g, g.critical_bid?))) else {
                continue;
            };
            assert!(critical <= slot.bid_micros.0 as f64 + 1.0, "{slot:?} {grounds:?}");
            let shown_at = |bid: f64| {
                let bid = Micros(bid as u64);
                let then = ask(&opened.with(&[Update::Bid { item: slot.item, bid }]).unwrap());
                then.slots.iter().any(|other| other.item == slot.item)
            };
            assert!(shown_at(critical + 10.0), "{slot:?} {grounds:?}");
            if critical - 10.0 > grounds.reserve.0 as f64 {
                assert!(!shown_at(critical - 10.0), "{slot:?} {grounds:?}");
                decided += 1;
            }
        }
    }
    assert!(decided > 10, "only {decided} ads had a critical bid above their reserve");
}

/// Changes of everything that is live.
fn changes(columns: &Columns, rng: &mut Xoshiro256PlusPlus) -> Vec<Update> {
    let items = &columns.ids;
    (0..12)
        .map(|_| {
            let item = items[rng.random_range(0..items.len())];
            let advertiser = rng.random_range(10..22);
            match rng.random_range(0..8) {
                0 => Update::Active { item, active: rng.random_bool(0.5) },
                1 => Update::Reserve { item, reserve: Micros(rng.random_range(0..1_000_000)) },
                2 => Update::Pacing { advertiser, pacing: rng.random() },
                3 => Update::Budget { advertiser, remaining: Micros(rng.random_range(0..2)) },
                _ => Update::Bid { item, bid: Micros(rng.random_range(0..20_000_000)) },
            }
        })
        .collect()
}

#[test]
fn records_of_live_bids_replay_from_the_shipped_catalog() {
    let mut rng = world::rng("records_of_live_bids_replay_from_the_shipped_catalog");
    let world = world(&mut rng);
    let path = world.path().join("records.jsonl");
    let engine = world.engine(2);
    let mut recorder = Recorder::open(&engine, &path).unwrap();
    for _ in 0..30 {
        engine.catalog().apply(&changes(&world.catalog, &mut rng)).unwrap();
        let answers = recorder.allocate(&world.requests(4, &mut rng), Report::default()).unwrap();
        assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|a| a.catalog_version > 1)));
    }
    let (again, mut of_all, mut unlike) = (world.engine(1), 0, 0);
    for record in read_all(&path) {
        assert_eq!(replay(&again, &record), Ok(vec![]));
        let Record::Allocation(mut record) = record else { panic!("{record:?}") };
        of_all += usize::from(record.request.candidates == Candidates::All);
        // The bids are what makes it so: without them it is another answer, most of the time.
        record.catalog.ads.clear();
        unlike += usize::from(replay(&again, &Record::Allocation(record)) != Ok(vec![]));
    }
    assert!(of_all > 5 && unlike > 30, "{of_all} of all ads, {unlike} rest on live bids");
}

/// A recorder that was made late cannot list what changed, and says when a catalog has other bids.
#[test]
fn bids_that_are_not_on_record_are_missed_by_their_digest() {
    let mut rng = world::rng("bids_that_are_not_on_record_are_missed_by_their_digest");
    let world = world(&mut rng);
    let path = world.path().join("records.jsonl");
    let engine = world.engine(1);
    let ads: Vec<u64> = (0..200)
        .filter(|&row| world.catalog.kinds[row] == ItemKind::Ad)
        .map(|row| world.catalog.ids[row])
        .collect();
    let raise: Vec<Update> = ads.iter().map(|&item| Update::Bid { item, bid: Micros(30_000_000) }).collect();
    engine.catalog().apply(&raise).unwrap();
    let request = Request::new("all", Vec::new(), Candidates::All);
    Recorder::open(&engine, &path)
        .unwrap()
        .allocate(std::slice::from_ref(&request), Report::default())
        .unwrap();
    let record = read_all(&path).remove(0);
    let found = replay(&world.engine(1), &record).unwrap();
    assert!(found.iter().any(|difference| difference.starts_with("catalog.bids: ")), "{found:?}");
    let same = world.engine(1);
    same.catalog().apply(&raise).unwrap();
    assert_eq!(replay(&same, &record), Ok(vec![]));
}

#[test]
fn what_was_changed_in_a_record_is_named() {
    let mut rng = world::rng("what_was_changed_in_a_record_is_named");
    let world = world(&mut rng);
    let path = world.path().join("records.jsonl");
    let engine = world.engine(1);
    let mut requests = world.requests(30, &mut rng);
    requests.iter_mut().for_each(|request| request.payment = PaymentRule::Network);
    Recorder::open(&engine, &path).unwrap().allocate(&requests, Report::default()).unwrap();
    let records = read_all(&path).into_iter().filter_map(|record| match record {
        Record::Allocation(record) if record.slots.iter().any(|slot| slot.ad.is_some()) => Some(record),
        _ => None,
    });
    let mut seen = 0;
    for record in records {
        let slot = record.slots.iter().position(|slot| slot.ad.is_some()).unwrap();
        let altered = |change: &dyn Fn(&mut bidslate::record::AllocationRecord)| {
            let mut record = record.clone();
            change(&mut record);
            replay(&engine, &Record::Allocation(record)).unwrap()
        };
        let pay = altered(&|r| r.slots[slot].ad.as_mut().unwrap().payment_micros.0 += 1);
        assert!(
            pay.len() == 1 && pay[0].starts_with(&format!("slots[{slot}].ad.payment_micros: ")),
            "{pay:?}"
        );
        let bits = altered(&|r| r.slots[slot].z = f64::from_bits(r.slots[slot].z.to_bits() + 1));
        assert!(bits.len() == 1 && bits[0].starts_with(&format!("slots[{slot}].z: ")), "{bits:?}");
        let unit = altered(&|r| r.billable_unit_micros = 7);
        assert!(unit[0].starts_with("billable_unit_micros: recorded 7, now 1"), "{unit:?}");
        let mut unknown = record.clone();
        unknown.catalog.inactive.push(5);
        let error = replay(&engine, &Record::Allocation(unknown)).unwrap_err();
        assert!(error.contains("5 is not in the catalog"), "{error}");
        seen += 1;
    }
    assert!(seen > 5);
}

/// Three short records, as the file that holds them.
fn small_file() -> (Vec<Record>, Vec<u8>) {
    let records: Vec<Record> = (0..3u64)
        .map(|id| {
            let text = format!(
                r#"{{"id": {id}, "rule": "vcg", "bids_micros": [5, 3{id}], "position_effects": [1, 0.{id}5], "squash": 0.1}}"#
            );
            let auction = AuctionRequest::from_json(text.as_bytes()).unwrap();
            let mut batch = AuctionBatch::default();
            auction.push_to(&mut batch).unwrap();
            let unit = std::num::NonZeroU64::MIN;
            let outcomes = run(&batch, unit);
            Record::Auction(Box::new(AuctionRecord::new(unit, auction, &outcomes.winners, &outcomes.payments)))
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.jsonl");
    RecordWriter::open(&path).unwrap().append(&records).unwrap();
    assert_eq!(read_all(&path), records);
    (records, fs::read(path).unwrap())
}

#[test]
fn a_file_cut_anywhere_loses_the_last_line_alone() {
    let (records, whole) = small_file();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.jsonl");
    for end in 0..=whole.len() {
        fs::write(&path, &whole[..end]).unwrap();
        let lines = whole[..end].iter().filter(|&&byte| byte == b'\n').count();
        let rest = whole[..end].iter().rev().take_while(|&&byte| byte != b'\n').count();
        let found = read(&path);
        assert_eq!(found.len(), lines + usize::from(rest > 0), "cut at {end}");
        for (i, (number, record)) in found.into_iter().enumerate() {
            assert_eq!(number, i as u64 + 1);
            match records.get(i).filter(|_| i < lines) {
                Some(expected) => assert_eq!(record.as_ref(), Ok(expected)),
                None => assert_eq!(record, Err(LineFault::Truncated { bytes: rest })),
            }
        }
        // The next writer goes on behind the last whole line.
        let mut writer = RecordWriter::open(&path).unwrap();
        assert_eq!(writer.cut(), rest as u64);
        assert_eq!(fs::read(&path).unwrap(), whole[..end - rest]);
        writer.append(&records[..1]).unwrap();
        let expected: Vec<Record> = records[..lines].iter().chain(&records[..1]).cloned().collect();
        assert_eq!(read_all(&path), expected);
    }
}

#[test]
fn a_byte_that_is_not_what_it_was_is_noticed_anywhere() {
    let mut rng = world::rng("a_byte_that_is_not_what_it_was_is_noticed_anywhere");
    let (records, whole) = small_file();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= rng.random_range(1..=255u8);
        let found: Vec<_> = RecordReader::new(bytes.as_slice()).map(Result::unwrap).collect();
        let good: Vec<&Record> = found.iter().filter_map(|(_, record)| record.as_ref().ok()).collect();
        assert!(good.iter().all(|record| records.contains(record)), "byte {at} makes another record");
        // A line feed that is lost takes two lines along.
        let lost = records.len() - good.len();
        assert!((1..=2).contains(&lost) && (lost == 1 || whole[at] == b'\n'), "byte {at}: {found:?}");
        assert!(found.len() > good.len(), "byte {at} goes unseen");
    }
}

#[test]
fn lines_of_other_versions_are_refused_by_their_number() {
    let (_, whole) = small_file();
    let text = String::from_utf8(whole).unwrap().replacen("{\"v\":1,", "{\"v\":12,", 1);
    let found: Vec<_> = RecordReader::new(text.as_bytes()).map(Result::unwrap).collect();
    assert_eq!(found[0], (1, Err(LineFault::Version { found: 12 })));
    assert!(found[1].1.is_ok() && found[2].1.is_ok());
    let fault = RecordReader::new(&b"\n{\"id\": 3}\n"[..]).next().unwrap().unwrap();
    assert!(matches!(fault, (2, Err(LineFault::Form { .. }))), "{fault:?}");
}

#[test]
fn a_file_has_one_writer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.jsonl");
    let first = RecordWriter::open(&path).unwrap();
    let error = RecordWriter::open(&path).unwrap_err();
    assert!(error.to_string().ends_with("records.jsonl: another writer holds it"), "{error}");
    drop(first);
    RecordWriter::open(&path).unwrap();
}

#[test]
fn each_slot_of_each_request_has_its_own_key() {
    let ids = [RequestId::Number(1), RequestId::Number(11), "1".into(), "11".into(), "n1".into(), "".into()];
    let keys: HashSet<String> =
        ids.iter().flat_map(|id| (0..300).map(move |slot| charge_key(id, slot))).collect();
    assert_eq!(keys.len(), 6 * 300);
    assert!(keys.iter().all(|key| key.len() == 32));
    assert_eq!(charge_key(&"request-0".into(), 2), charge_key(&"request-0".into(), 2));
}
