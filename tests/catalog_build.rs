//! Building catalogs: what is read is what is served, and every fault is named by file, line and field.

use std::path::{Path, PathBuf};

use bidslate::catalog::{
    Catalog, CatalogBuilder, CatalogStats, IndexOptions, ItemKind, Quantizer, QuantizerKind, Quantizers,
    Rejection, read_embeddings,
};
use bidslate::error::CatalogError;
use bidslate::model::config::{ModelConfig, ModelSize};
use bidslate::money::Micros;
use tempfile::TempDir;

fn config() -> ModelConfig {
    ModelConfig {
        poi_code_layers: 2,
        creative_code_layers: 1,
        codebook_size: 4,
        item_embedding_size: 2,
        creative_embedding_size: Some(1),
        ..ModelConfig::of_size(ModelSize::Tiny)
    }
}

/// Layer 0 rounds to tens, layer 1 to ones.
fn quantizers() -> Quantizers {
    let poi = vec![0., 0., 10., 10., 20., 20., 30., 30., 0., 0., 1., 1., 2., 2., 3., 3.];
    Quantizers {
        poi: Some(Quantizer::new(2, vec![], poi, [2, 4, 2]).unwrap()),
        creative: Some(Quantizer::new(1, vec![], vec![0., 1., 2., 3.], [1, 4, 1]).unwrap()),
    }
}

fn file(directory: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = directory.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

const ITEMS: &str = r#"
{"id": 5, "kind": "ad", "codes": [3, 1], "bid_micros": 1500000, "reserve_micros": 7, "embedding": [0.5, -1], "advertiser": 90, "creatives": [{"id": 1, "codes": [2]}, {"id": 2, "embedding": [2.9]}]}

{"id": 4, "kind": "organic", "embedding": [21.2, 20.9], "creatives": [{"id": 1, "embedding": [-5]}]}
{"id": 9, "kind": "ad", "codes": [0, 0], "bid_micros": 3, "active": false}
"#;

const ADVERTISERS: &str = r#"{"id": 90, "budget_micros": 100, "pacing": 0.5}
{"id": 91}
"#;

fn builder(with_quantizers: bool) -> CatalogBuilder {
    let quantizers = if with_quantizers { quantizers() } else { Quantizers::default() };
    CatalogBuilder::new(&config(), quantizers).unwrap()
}

#[test]
fn what_was_built_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let mut builder = builder(true);
    builder.read_advertisers(&file(&directory, "advertisers.jsonl", ADVERTISERS)).unwrap();
    let mut reported = (0, 0);
    let items = file(&directory, "items.jsonl", ITEMS);
    builder.read_items(&items, &mut |done, total| reported = (done, total)).unwrap();
    assert_eq!(reported, (ITEMS.len() as u64, ITEMS.len() as u64));
    let path = directory.path().join("catalog.safetensors");
    builder.finish().write(&path, &config()).unwrap();

    let snapshot = Catalog::open(&path, &config()).unwrap().snapshot();
    let rows: Vec<_> = [5, 4, 9].map(|id| snapshot.find(id).unwrap()).into();
    assert_eq!(rows, [0, 1, 2]);
    assert_eq!(snapshot.codes(0), [3, 1]);
    assert_eq!(snapshot.codes(1), [2, 1]);
    assert_eq!((snapshot.bid(0), snapshot.declared_bid(0)), (Micros(750_000), Micros(1_500_000)));
    assert_eq!(
        (snapshot.reserve(0), snapshot.advertiser(0), snapshot.advertiser(1)),
        (Micros(7), Some(90), None)
    );
    let creatives: Vec<_> =
        snapshot.creatives(0).map(|c| (snapshot.creative_id(c), snapshot.creative_codes(c)[0])).collect();
    assert_eq!(creatives, [(1, 2), (2, 3)]);
    assert_eq!(snapshot.creative_codes(snapshot.creatives(1).start), [0]);
    let mut embedding = [9.0; 2];
    snapshot.embedding(1, &mut embedding);
    assert_eq!(embedding, [21.2, 20.9]);
    snapshot.embedding(2, &mut embedding);
    assert_eq!(embedding, [0.0, 0.0]);
    assert_eq!(snapshot.rejection(2), Some(Rejection::Inactive));

    let stats = CatalogStats::of(&snapshot);
    assert_eq!((stats.ads, stats.organic, stats.creatives, stats.eligible_ads), (2, 1, 3, 1));
    assert_eq!(stats.rejected_ads, [(Rejection::Inactive, 1)].into());
    assert!(stats.bid_quantiles_micros.iter().all(|&(_, bid)| bid == Micros(750_000)));
    let json = serde_json::to_value(&stats).unwrap();
    assert_eq!(json["rejected_ads"]["inactive"], 1);
    assert_eq!(json["item_codes"]["full_codes"], 3);
}

#[test]
fn every_bad_line_is_named() {
    let cases = [
        (
            r#"{"id": 1, "kind": "ad", "codes": [0, 0], "bid_micros": 1, "color": 3}"#,
            "color",
            "unknown field `color`",
        ),
        (r#"{"kind": "ad"}"#, "id", "missing field `id`"),
        (r#"{"id": 1, "kind": 5}"#, "kind", "integer `5`, expected `organic` or `ad`"),
        (r#"{"id": -1, "kind": "ad"}"#, "id", "integer `-1`, expected a whole number"),
        (r#"{"id": 1, "kind": "advert"}"#, "kind", "unknown variant `advert`, expected `organic` or `ad`"),
        (r#"{"id": 1, "kind": "ad", "codes": [0, 0]}"#, "bid_micros", "is missing"),
        (r#"{"id": 1, "kind": "ad", "codes": [0, 0], "bid_micros": -3}"#, "bid_micros", "integer `-3`"),
        (r#"{"id": 1, "kind": "ad", "codes": [0, 0], "bid_micros": 1.5}"#, "bid_micros", "1.5"),
        (
            r#"{"id": 1, "kind": "ad", "codes": [0, 0], "bid_micros": 8796093022209}"#,
            "bid_micros",
            "is 8796093022209, expected at most 2^43",
        ),
        (
            r#"{"id": 1, "kind": "organic", "codes": [0, 0], "reserve_micros": 8796093022209}"#,
            "reserve_micros",
            "at most 2^43",
        ),
        (r#"{"id": 1, "kind": "organic", "codes": [0, 4]}"#, "codes[1]", "is 4, expected below 4"),
        (
            r#"{"id": 1, "kind": "organic", "codes": [0, 70000]}"#,
            "codes[1]",
            "integer `70000`, expected a whole number",
        ),
        (r#"{"id": 1, "kind": "organic", "codes": [0]}"#, "codes", "has 1 codes, expected 2"),
        (r#"{"id": 1, "kind": "organic"}"#, "codes", "expected codes, or an embedding"),
        (
            r#"{"id": 1, "kind": "organic", "codes": [0, 0], "embedding": [1]}"#,
            "embedding",
            "has 1 values, expected 2",
        ),
        (
            r#"{"id": 1, "kind": "organic", "codes": [0, 0], "embedding": [1, NaN]}"#,
            "embedding[1]",
            "expected value",
        ),
        (r#"{"id": 1, "kind": "organic", "codes": [0, 0], "embedding": [1, null]}"#, "embedding[1]", "null"),
        (r#"{"id": 1, "kind": "organic", "embedding": [1e39, 2]}"#, "embedding[0]", "out of range"),
        (r#"{"id": 1, "kind": "organic", "embedding": [1, 3e38]}"#, "embedding", "overflows"),
        (
            r#"{"id": 1, "kind": "organic", "codes": [0, 0], "creatives": [{"id": 3, "codes": [0]}, {"id": 3, "codes": [1]}]}"#,
            "creatives[1].id",
            "3 again",
        ),
        (
            r#"{"id": 1, "kind": "organic", "codes": [0, 0], "creatives": [{"id": 3, "codes": [9]}]}"#,
            "creatives[0].codes[0]",
            "is 9, expected below 4",
        ),
        (
            r#"{"id": 1, "kind": "organic", "codes": [0, 0], "creatives": [{"id": 3, "size": 2}]}"#,
            "creatives[0].size",
            "unknown field",
        ),
        (
            r#"{"id": 1, "kind": "organic", "codes": [0, 0], "creatives": [{"id": 3, "embedding": [1, 2]}]}"#,
            "creatives[0].embedding",
            "has 2 values, expected 1",
        ),
        (r#"{"id": 7, "kind": "organic", "codes": [0, 0]}"#, "id", "7 again"),
        (
            r#"{"id": 1, "kind": "ad", "codes": [0, 0], "bid_micros": 1, "advertiser": 92}"#,
            "advertiser",
            "is 92",
        ),
        (r#"{"id": 1, "kind": "organic", "codes": [0, 0]} {}"#, ".", "trailing characters"),
        // Lists in the order of the fields, which `serde` would take for objects.
        (r#"[1, "organic", [0, 0], null, 0, null, true, null, []]"#, ".", "expected an object"),
        (
            r#"{"id": 1, "kind": "organic", "codes": [0, 0], "creatives": [[3, [0], null]]}"#,
            "creatives[0]",
            "expected an object",
        ),
        ("{\"id\": 1, \"kind\": \"organic", "kind", "EOF"),
    ];
    for (line, expected_field, expected_message) in cases {
        let directory = tempfile::tempdir().unwrap();
        let text = format!("{{\"id\": 7, \"kind\": \"organic\", \"codes\": [0, 0]}}\n\n{line}\n");
        let items = file(&directory, "items.jsonl", &text);
        let mut builder = builder(true);
        builder.read_advertisers(&file(&directory, "advertisers.jsonl", ADVERTISERS)).unwrap();
        match builder.read_items(&items, &mut |_, _| ()) {
            Err(CatalogError::Line { path, line: 3, field, message }) => {
                assert_eq!((path, field.as_str()), (items, expected_field), "{line}: {message}");
                assert!(message.contains(expected_message), "{line}: {message}");
            }
            other => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn an_embedding_without_a_quantizer_is_no_code() {
    let directory = tempfile::tempdir().unwrap();
    let items = file(&directory, "items.jsonl", r#"{"id": 1, "kind": "organic", "embedding": [1, 2]}"#);
    let error = builder(false).read_items(&items, &mut |_, _| ()).unwrap_err().to_string();
    assert!(error.contains("items.jsonl:1: `codes`: is missing, and there is no quantizer"), "{error}");
}

#[test]
fn a_quantizer_of_another_size_is_refused() {
    let refused = |config: ModelConfig| {
        let error = CatalogBuilder::new(&config, quantizers()).unwrap_err();
        assert!(matches!(error, CatalogError::Quantizer { .. }), "{error}");
    };
    refused(ModelConfig { poi_code_layers: 3, ..config() });
    refused(ModelConfig { codebook_size: 3, ..config() });
    refused(ModelConfig { creative_embedding_size: None, ..config() });
}

#[test]
fn every_bad_advertiser_is_named() {
    let cases = [
        (r#"{"id": 90}"#, "id", "90 again"),
        (r#"{"id": 1, "pacing": 1.01}"#, "pacing", "is 1.01, expected 0 to 1"),
        (r#"{"id": 1, "pacing": -0.5}"#, "pacing", "is -0.5"),
        (r#"{"id": 1, "budget_micros": -1}"#, "budget_micros", "integer `-1`"),
        (r#"{"id": 1, "budget": 1}"#, "budget", "unknown field"),
        (r#"{"id": 18446744073709551615}"#, "id", "stands for no advertiser"),
    ];
    for (line, expected_field, expected_message) in cases {
        let directory = tempfile::tempdir().unwrap();
        let path = file(&directory, "advertisers.jsonl", &format!("{ADVERTISERS}{line}"));
        match builder(false).read_advertisers(&path) {
            Err(CatalogError::Line { line: 3, field, message, .. }) => {
                assert_eq!(field, expected_field);
                assert!(message.contains(expected_message), "{message}");
            }
            other => panic!("{line}: {other:?}"),
        }
    }
}

fn read_index(directory: &TempDir, index: &str, options: &IndexOptions) -> Result<Catalog, CatalogError> {
    let mut builder = builder(false);
    builder.read_index(&file(directory, "items.index.json", index), options)?;
    Catalog::from_columns(builder.finish(), &config())
}

#[test]
fn an_index_becomes_a_catalog() {
    let directory = tempfile::tempdir().unwrap();
    let index = r#"{"10": ["<a_3>", "<b_0>"], "2": ["<a_1>", "<b_2>"], "0": ["<a_0>", "<b_0>"]}"#;
    let bids =
        file(&directory, "bids.jsonl", r#"{"id": 2, "bid_micros": 9, "reserve_micros": 4, "advertiser": 6}"#);
    let embeddings: Vec<f32> = (0..22).map(|i| i as f32).collect();
    let options =
        IndexOptions { bids: Some(&bids), embeddings: Some(&embeddings), creative_codes: Some(&[3]) };
    let snapshot = read_index(&directory, index, &options).unwrap().snapshot();
    assert_eq!([0, 1, 2].map(|item| snapshot.id(item)), [0, 2, 10]);
    assert_eq!(snapshot.codes(2), [3, 0]);
    assert_eq!(
        [0, 1, 2].map(|item| snapshot.kind(item)),
        [ItemKind::Organic, ItemKind::Ad, ItemKind::Organic]
    );
    assert_eq!(
        (snapshot.bid(1), snapshot.reserve(1), snapshot.advertiser(1)),
        (Micros(9), Micros(4), Some(6))
    );
    let creative = snapshot.creatives(2);
    assert_eq!((creative.len(), snapshot.creative_id(creative.start)), (1, 10));
    assert_eq!(snapshot.creative_codes(creative.start), [3]);
    let mut embedding = [0.0; 2];
    snapshot.embedding(2, &mut embedding);
    assert_eq!(embedding, [20.0, 21.0]);
    let plain = read_index(&directory, index, &IndexOptions::default()).unwrap().snapshot();
    assert_eq!((plain.ads().len(), plain.creative_codes(0)), (0, &[0][..]));
}

#[test]
fn every_bad_entry_of_an_index_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let plain = IndexOptions::default();
    let short = IndexOptions { embeddings: Some(&[0.0; 2]), ..plain };
    let wide = IndexOptions { creative_codes: Some(&[0, 0]), ..plain };
    let cases = [
        (r#"{"a": ["<a_3>", "<b_0>"]}"#, plain, "entry \"a\": key is not a number"),
        (r#"{"1": ["<a_3>"]}"#, plain, "entry \"1\": codes has 1 codes, expected 2"),
        (r#"{"1": ["<a_3>", "<b_4>"]}"#, plain, "codes[1] is 4, expected below 4"),
        (r#"{"1": ["<a_3>", "<a_1>"]}"#, plain, "token 1 is \"<a_1>\", expected \"<b_N>\""),
        (r#"{"1": ["<a_+3>", "<b_1>"]}"#, plain, "token 0 is"),
        (r#"{"1": ["<a_99999>", "<b_1>"]}"#, plain, "token 0 is"),
        (r#"{"1": ["<a_1>", "<b_1>"], "1": ["<a_1>", "<b_1>"]}"#, plain, "1 again"),
        (r#"{"1": ["<a_1>", "<b_1>"]}"#, short, "is no row of 1 embeddings"),
        (r#"{"18446744073709551615": ["<a_1>", "<b_1>"]}"#, short, "is no row of 1 embeddings"),
        (r#"{"1": ["<a_1>", "<b_1>"]}"#, wide, "creative codes has 2 codes, expected 1"),
        (r#"{"1": [3]}"#, plain, "expected a string"),
        (r#"[]"#, plain, "an object of item ids"),
    ];
    for (index, options, expected) in cases {
        let error = read_index(&directory, index, &options).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("items.index.json"), "{index}: {error}");
    }
    let bids = |text| file(&directory, "bids.jsonl", text);
    let index = r#"{"1": ["<a_1>", "<b_1>"]}"#;
    for (text, expected) in [
        (r#"{"id": 2, "bid_micros": 1}"#, "bids.jsonl:1: `id`: 2 is not in the index"),
        ("{\"id\": 1, \"bid_micros\": 1}\n{\"id\": 1, \"bid_micros\": 1}", "bids.jsonl:2: `id`: 1 again"),
        (r#"{"id": 1}"#, "missing field `bid_micros`"),
    ] {
        let path = bids(text);
        let options = IndexOptions { bids: Some(&path), ..plain };
        let error = read_index(&directory, index, &options).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn embeddings_to_fit_on_are_read_from_the_same_lines() {
    let directory = tempfile::tempdir().unwrap();
    let items = file(&directory, "items.jsonl", ITEMS);
    let read = |kind, width, path: &Path| read_embeddings(path, kind, width, &mut |_, _| ());
    assert_eq!(read(QuantizerKind::Poi, 2, &items).unwrap(), [0.5, -1.0, 21.2, 20.9]);
    assert_eq!(read(QuantizerKind::Creative, 1, &items).unwrap(), [2.9, -5.0]);
    let error = read(QuantizerKind::Poi, 3, &items).unwrap_err().to_string();
    assert!(error.ends_with("items.jsonl:2: `embedding`: has 2 values, expected 3"), "{error}");
}
