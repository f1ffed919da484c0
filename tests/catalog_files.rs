//! Catalog files: every fault is named, and no file, however hostile, makes the library panic.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use bidslate::catalog::{Catalog, Columns, ItemKind, Rejection};
use bidslate::error::CatalogError;
use bidslate::model::config::{ModelConfig, ModelSize};
use half::{bf16, f16};
use proptest::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// A column's type, shape and bytes.
type Raw = (Dtype, Vec<usize>, Vec<u8>);

fn config() -> ModelConfig {
    ModelConfig { codebook_size: 5, item_embedding_size: 2, ..ModelConfig::of_size(ModelSize::Tiny) }
}

/// Three items with four creatives and two advertisers.
fn columns() -> Columns {
    Columns {
        ids: vec![10, 20, 30],
        kinds: vec![ItemKind::Ad, ItemKind::Organic, ItemKind::Ad],
        codes: vec![0, 1, 2, 4, 4, 4, 0, 1, 2],
        bid_micros: vec![1 << 43, 0, 3],
        reserve_micros: vec![1, 0, 1],
        embeddings: vec![0.5, -1.5, 2.0, 0.25, 1.0, 0.0],
        creative_offsets: vec![0, 2, 3, 4],
        creative_ids: vec![1, 2, 1, 1],
        creative_codes: vec![0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3],
        active: Some(vec![true, true, true]),
        advertisers: Some(vec![7, u64::MAX, 8]),
        advertiser_ids: Some(vec![7, 8]),
        advertiser_budget_micros: Some(vec![1, 2]),
        advertiser_pacing: Some(vec![1.0, 0.5]),
    }
}

/// A good file, written once: writing waits for the disk.
fn good() -> &'static [u8] {
    static GOOD: OnceLock<Vec<u8>> = OnceLock::new();
    GOOD.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("good.safetensors");
        columns().write(&path, &config()).unwrap();
        std::fs::read(&path).unwrap()
    })
}

/// The columns of a good file, to be spoiled one by one.
fn raw() -> BTreeMap<String, Raw> {
    let bytes = good();
    let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
    file.iter()
        .map(|(name, view)| (name.into(), (view.dtype(), view.shape().into(), view.data().into())))
        .collect()
}

fn write(path: &Path, columns: &BTreeMap<String, Raw>) {
    let views = columns.iter().map(|(name, (dtype, shape, bytes))| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

fn open(columns: &BTreeMap<String, Raw>) -> Result<Catalog, CatalogError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spoiled.safetensors");
    write(&path, columns);
    Catalog::open(&path, &config())
}

fn set_u64(column: &mut Raw, row: usize, value: u64) {
    column.2[row * 8..row * 8 + 8].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn every_column_that_does_not_fit_is_listed_at_once() {
    let mut columns = raw();
    columns.remove("item.kind");
    columns.remove("creative.codes");
    columns.remove("advertiser.id");
    columns.insert("item.colour".into(), (Dtype::U8, vec![3], vec![0; 3]));
    columns.insert("item.codes".into(), (Dtype::U16, vec![3, 2], vec![0; 12]));
    columns.insert("item.bid_micros".into(), (Dtype::I64, vec![3], vec![0; 24]));
    columns.insert("item.creative_offsets".into(), (Dtype::U64, vec![3], vec![0; 24]));
    columns.insert("item.embedding".into(), (Dtype::F64, vec![3, 2], vec![0; 48]));
    let Err(CatalogError::Columns { faults, .. }) = open(&columns) else { panic!("it opened") };
    let found: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let expected = [
        "missing `advertiser.id`, expected shape [2]",
        "missing `creative.codes`, expected shape [4, 3]",
        "`item.bid_micros` holds I64, expected U64",
        "`item.codes` has shape [3, 2], expected [3, 3]",
        "unexpected `item.colour` of shape [3]",
        "`item.creative_offsets` has shape [3], expected [4]",
        "`item.embedding` holds F64, expected F32, BF16 or F16",
        "missing `item.kind`, expected shape [3]",
    ];
    assert_eq!(found, expected);
}

#[test]
fn every_value_out_of_range_is_named() {
    type Spoil = fn(&mut BTreeMap<String, Raw>);
    let cases: [(&str, usize, &str, Spoil); 15] = [
        ("item.kind", 1, "is 2, expected 0 (organic) or 1 (ad)", |c| {
            c.get_mut("item.kind").unwrap().2[1] = 2
        }),
        ("item.active", 2, "is 7, expected 0 or 1", |c| c.get_mut("item.active").unwrap().2[2] = 7),
        ("item.codes", 1, "is 5 in layer 2, expected below 5", |c| {
            c.get_mut("item.codes").unwrap().2[10] = 5
        }),
        ("creative.codes", 3, "is 259 in layer 0", |c| c.get_mut("creative.codes").unwrap().2[19] = 1),
        ("item.bid_micros", 0, "is 8796093022209, expected at most 2^43", |c| {
            set_u64(c.get_mut("item.bid_micros").unwrap(), 0, (1 << 43) + 1)
        }),
        ("item.reserve_micros", 1, "18446744073709551615", |c| {
            set_u64(c.get_mut("item.reserve_micros").unwrap(), 1, u64::MAX)
        }),
        ("item.id", 2, "10 again, first in row 0", |c| set_u64(c.get_mut("item.id").unwrap(), 2, 10)),
        ("creative.id", 0, "1 twice among the creatives of item 10", |c| {
            set_u64(c.get_mut("creative.id").unwrap(), 1, 1)
        }),
        ("item.creative_offsets", 2, "is 1, expected at least 2", |c| {
            set_u64(c.get_mut("item.creative_offsets").unwrap(), 2, 1)
        }),
        ("item.creative_offsets", 3, "is 3, expected 4", |c| {
            set_u64(c.get_mut("item.creative_offsets").unwrap(), 3, 3)
        }),
        ("item.creative_offsets", 0, "is 1, expected 0", |c| {
            set_u64(c.get_mut("item.creative_offsets").unwrap(), 0, 1)
        }),
        ("item.advertiser", 2, "9 is not in advertiser.id", |c| {
            set_u64(c.get_mut("item.advertiser").unwrap(), 2, 9)
        }),
        ("advertiser.id", 1, "7 again, first in row 0", |c| {
            set_u64(c.get_mut("advertiser.id").unwrap(), 1, 7);
            set_u64(c.get_mut("item.advertiser").unwrap(), 2, 7);
        }),
        ("advertiser.id", 1, "stands for none", |c| {
            set_u64(c.get_mut("advertiser.id").unwrap(), 1, u64::MAX)
        }),
        ("advertiser.pacing", 1, "is NaN, expected 0 to 1", |c| {
            c.get_mut("advertiser.pacing").unwrap().2[4..8].copy_from_slice(&f32::NAN.to_le_bytes())
        }),
    ];
    for (expected_column, expected_row, expected_message, spoil) in cases {
        let mut columns = raw();
        spoil(&mut columns);
        match open(&columns) {
            Err(CatalogError::Value { column, row, message, .. }) => {
                assert_eq!((column, row), (expected_column, expected_row), "{message}");
                assert!(message.contains(expected_message), "{column}: {message}");
            }
            other => panic!("{expected_column} {expected_message}: {other:?}"),
        }
    }
}

#[test]
fn optional_columns_are_optional() {
    let mut columns = raw();
    columns.retain(|name, _| !name.starts_with("advertiser."));
    columns.remove("item.active");
    // Without a table the advertisers are those that items name, unpaced and without a budget.
    let snapshot = open(&columns).unwrap().snapshot();
    assert_eq!((snapshot.advertiser(2), snapshot.bid(2).0, snapshot.rejection(2)), (Some(8), 3, None));
    columns.remove("item.advertiser");
    let snapshot = open(&columns).unwrap().snapshot();
    assert_eq!((snapshot.advertiser(2), snapshot.bid(2).0, snapshot.rejection(2)), (None, 3, None));
}

#[test]
fn embeddings_of_every_type_are_widened() {
    let values = [0.5f32, -1.5, 2.0, 0.25, 1.0, f32::NAN];
    let halves = values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
    let brains = values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
    let singles = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    for (dtype, bytes) in [(Dtype::F16, halves), (Dtype::BF16, brains), (Dtype::F32, singles)] {
        let mut columns = raw();
        columns.insert("item.embedding".into(), (dtype, vec![3, 2], bytes));
        let snapshot = open(&columns).unwrap().snapshot();
        let mut row = [9.0; 2];
        for (item, expected) in values[..4].chunks(2).enumerate() {
            snapshot.embedding(item as u32, &mut row);
            assert_eq!(row, expected, "{dtype:?}");
        }
        let rejections = [0, 1, 2].map(|item| snapshot.rejection(item));
        assert_eq!(rejections, [None, None, Some(Rejection::NonFiniteEmbedding)], "{dtype:?}");
    }
}

#[test]
fn columns_in_memory_are_checked_as_files_are() {
    let mut columns = columns();
    columns.codes.pop();
    columns.embeddings.pop();
    columns.advertiser_pacing = Some(vec![1.0]);
    let error = Catalog::from_columns(columns.clone(), &config()).unwrap_err();
    let CatalogError::Columns { faults, .. } = &error else { panic!("{error}") };
    let names: Vec<&str> = faults.iter().map(|fault| fault.name()).collect();
    assert_eq!(names, ["advertiser.pacing", "item.codes", "item.embedding"]);
    let directory = tempfile::tempdir().unwrap();
    assert!(columns.write(&directory.path().join("x"), &config()).is_err());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "a bad catalog leaves no file");
}

#[test]
fn what_is_no_catalog_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    assert!(matches!(Catalog::open(&path, &config()), Err(CatalogError::Io { .. })));
    assert!(matches!(Catalog::open(directory.path(), &config()), Err(CatalogError::Io { .. })));
    let huge = [&u64::MAX.to_le_bytes()[..], b"{}"].concat();
    for bytes in [&b""[..], b"\x02\0\0\0\0\0\0\0", b"\x02\0\0\0\0\0\0\0[]", &huge] {
        std::fs::write(&path, bytes).unwrap();
        let error = Catalog::open(&path, &config()).unwrap_err();
        assert!(matches!(error, CatalogError::Format { .. }), "{bytes:?}: {error}");
        assert!(error.to_string().contains("file"), "{error}");
    }
}

#[test]
fn a_truncated_file_is_refused_at_every_length() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("short.safetensors");
    let bytes = good();
    for length in 0..bytes.len() {
        std::fs::write(&path, &bytes[..length]).unwrap();
        assert!(Catalog::open(&path, &config()).is_err(), "{length} of {} bytes", bytes.len());
    }
    std::fs::write(&path, [bytes, b"more"].concat()).unwrap();
    assert!(Catalog::open(&path, &config()).is_err(), "bytes after the end");
}

/// Walks through all that a snapshot offers, as a request would.
fn use_it(catalog: &Catalog) {
    let snapshot = catalog.snapshot();
    let mut row = [0.0; 2];
    for item in 0..snapshot.len() as u32 {
        snapshot.embedding(item, &mut row);
        assert!(snapshot.codes(item).iter().all(|&code| code < 5));
        snapshot
            .creatives(item)
            .for_each(|c| assert!(snapshot.creative_codes(c).iter().all(|&code| code < 5)));
        assert_eq!(snapshot.find(snapshot.id(item)), Some(item));
        assert!(
            snapshot.rejection(item) != Some(Rejection::NonFiniteEmbedding)
                || !row.iter().all(|v| v.is_finite())
        );
    }
    let ads = snapshot.ads();
    let mut start = 0;
    while start < ads.len() {
        start = ads.end_of_code(start..ads.len(), 0);
    }
    assert!(snapshot.aggregate(0..ads.len()).count <= ads.len() as u64);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_damaged_file_never_panics(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        in_header in any::<bool>(),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("damaged.safetensors");
        let mut bytes = good().to_vec();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        for (place, byte) in damage {
            let place = if in_header { place.index(header) } else { header + place.index(bytes.len() - header) };
            bytes[place] = byte;
        }
        std::fs::write(&path, &bytes).unwrap();
        match Catalog::open(&path, &config()) {
            Ok(catalog) => use_it(&catalog),
            Err(error) => prop_assert!(error.to_string().contains("damaged.safetensors")),
        }
    }
}

/// Offsets whose sum with the header's length is beyond 64 bits: the `safetensors` crate's own reader panics on
/// them where overflows are checked.
#[test]
fn a_header_whose_offsets_overflow_is_an_error() {
    let seed = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/weights/offset_sum");
    let Err(CatalogError::Format { path, .. }) = Catalog::open(&seed, &config()) else {
        panic!("it opened, or the error was another")
    };
    assert_eq!(path, seed);
    let Err(CatalogError::Format { path, .. }) = bidslate::catalog::read_matrix(&seed, None) else {
        panic!("it was read, or the error was another")
    };
    assert_eq!(path, seed);
}

/// A column named twice is a fault of the file, not a choice between the two.
#[test]
fn a_column_named_twice_is_an_error() {
    let bytes = good();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&bytes[8..8 + length]).unwrap().trim_end();
    let again = r#","item.id":{"dtype":"U64","shape":[3],"data_offsets":[0,24]}}"#;
    let header = header.strip_suffix('}').unwrap().to_owned() + again;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("twice.safetensors");
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes[8 + length..]].concat();
    std::fs::write(&path, file).unwrap();
    let error = Catalog::open(&path, &config()).unwrap_err();
    assert!(matches!(error, CatalogError::Format { .. }), "{error}");
    assert!(error.to_string().contains("item.id"), "{error}");
}

/// The serializer writes through a temporary file that is private to its owner; what is left must not be.
#[cfg(unix)]
#[test]
fn written_files_have_the_permissions_of_created_ones() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let mode = |name: &str| std::fs::metadata(file(name)).unwrap().permissions().mode();
    std::fs::write(file("created"), "").unwrap();
    assert_ne!(mode("created") & 0o777, 0o600, "this test needs a umask that lets others read");
    columns().write(&file("catalog"), &config()).unwrap();
    assert_eq!(mode("catalog"), mode("created"));
    // Over a file of other permissions, too.
    columns().write(&file("catalog"), &config()).unwrap();
    assert_eq!(mode("catalog"), mode("created"));
    let options =
        bidslate::catalog::FitOptions { layers: 1, codes: 2, iterations: 1, seed: 0, balance_last: false };
    let quantizer = bidslate::catalog::fit(&[0.0, 1.0, 5.0, 6.0], 1, &options, &mut |_, _| ()).unwrap();
    quantizer.write(&file("quantizer"), bidslate::catalog::QuantizerKind::Poi).unwrap();
    assert_eq!(mode("quantizer"), mode("created"));
    let left: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

/// Bytes by hand for a small catalog, and what changes them.
#[test]
fn the_bytes_of_a_snapshot_grow_with_what_it_holds() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalog.safetensors");
    let many = |n: usize| {
        let one = bidslate::synthetic::catalog(&config(), n, 1);
        one.write(&path, &config()).unwrap();
        let mapped = Catalog::open(&path, &config()).unwrap().snapshot().bytes();
        let held = Catalog::from_columns(one.clone(), &config()).unwrap().snapshot().bytes();
        (one, mapped, held)
    };
    let (_, small, _) = many(1000);
    let (columns, mapped, held) = many(100_000);
    // Per item: id, kind, 3 codes, finite, bid, reserve, active and an offset; per ad: row, codes, effective bid;
    // per item its place in the index of ads; per creative an id and 3 codes.
    let (n, m) = (columns.ids.len(), columns.creative_ids.len());
    let least = n * (8 + 1 + 6 + 1 + 8 + 8 + 1 + 4 + 4) + n / 4 * (4 + 6 + 8) + m * (8 + 6);
    // Beyond these the table of ids (5 bytes a slot, at most 16 slots for 7 ids) and the trees' inner nodes.
    let most = least + 20 * n;
    assert!((least..most).contains(&mapped), "{mapped}, expected {least} to {most}");
    // Up to room for more, which a vector has where it grew.
    let difference = held - mapped;
    let embeddings = columns.embeddings.len() * 4;
    assert!(difference.abs_diff(embeddings) < n, "embeddings in memory count: {held}, {mapped}");
    assert!((50..200).contains(&(mapped / small)), "100 times the items: {mapped} and {small} bytes");
}
