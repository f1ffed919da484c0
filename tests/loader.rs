//! Model directories: what is written is read back, and every fault is found and named.

mod support;

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use bidslate::error::{LoadError, TensorFault};
use bidslate::model::config::{ModelConfig, ModelSize};
use bidslate::model::files::TensorFiles;
use bidslate::model::init::init_model;
use bidslate::model::tensors::{QuantizerEncoders, QuantizerKind, expected_tensors};
use bidslate::model::weights::{WeightType, Weights};
use safetensors::tensor::Dtype;
use serde_json::json;
use support::{Tensor, Tensors, model_dir, raw_file, read_tensors, small_config, write_tensors};

const TYPES: [WeightType; 3] = [WeightType::F32, WeightType::BF16, WeightType::F16];

fn weights_file(dir: &tempfile::TempDir) -> std::path::PathBuf {
    dir.path().join("model.safetensors")
}

/// Applies `change` to the tensors of a small model and returns the faults that loading then reports.
fn faults_after(dtype: WeightType, change: impl FnOnce(&mut Tensors)) -> Vec<TensorFault> {
    let config = small_config();
    let dir = model_dir(&config, dtype);
    let mut tensors = read_tensors(&weights_file(&dir));
    change(&mut tensors);
    write_tensors(&weights_file(&dir), &tensors);
    match Weights::open(dir.path(), &config) {
        Ok(_) => Vec::new(),
        Err(LoadError::Tensors { path, faults }) => {
            assert_eq!(path, weights_file(&dir));
            faults
        }
        Err(other) => panic!("{other}"),
    }
}

fn format_message(result: Result<impl Sized, LoadError>) -> String {
    match result.err() {
        Some(LoadError::Format { message, .. }) => message,
        other => panic!("expected a format error, got {other:?}"),
    }
}

#[test]
fn every_type_comes_back() {
    let config = small_config();
    let specs = expected_tensors(&config, QuantizerEncoders { poi: true, creative: true });
    let mut exact = None;
    for dtype in TYPES {
        let dir = model_dir(&config, dtype);
        assert_eq!(ModelConfig::read(&dir.path().join("config.json")).unwrap(), config);
        let weights = Weights::open(dir.path(), &config).unwrap();
        assert_eq!(weights.names().len(), specs.len());
        assert_eq!(weights.bytes(), weights.parameters() * dtype.size());
        let values: Vec<Vec<f32>> = specs.iter().map(|spec| weights.f32(&spec.name).into_owned()).collect();
        for (spec, values) in specs.iter().zip(&values) {
            assert_eq!(values.len(), spec.shape.iter().product::<usize>(), "{}", spec.name);
            assert_eq!(weights.dtype(&spec.name), dtype);
            assert_eq!(weights.shape(&spec.name), spec.shape);
            assert_eq!(weights.raw(&spec.name).len(), values.len() * dtype.size());
        }
        assert_eq!(matches!(weights.f32("embed.weight"), Cow::Borrowed(_)), dtype == WeightType::F32);
        let exact = exact.get_or_insert_with(|| values.clone());
        let tolerance = if dtype == WeightType::BF16 { 1.0 / 256.0 } else { 1.0 / 2048.0 };
        for (exact, values) in exact.iter().flatten().zip(values.iter().flatten()) {
            assert!((exact - values).abs() <= tolerance * exact.abs() + 1e-7, "{exact} became {values}");
        }
    }
}

#[test]
fn a_seed_is_a_model() {
    let config = small_config();
    let bytes = |seed| {
        let dir = tempfile::tempdir().unwrap();
        init_model(dir.path(), &config, WeightType::F32, seed).unwrap();
        fs::read(weights_file(&dir)).unwrap()
    };
    assert_eq!(bytes(1), bytes(1));
    assert_ne!(bytes(1), bytes(2));
}

#[test]
fn random_weights_have_their_scale() {
    let config = ModelConfig::of_size(ModelSize::Tiny);
    let dir = model_dir(&config, WeightType::F32);
    let weights = Weights::open(dir.path(), &config).unwrap();
    let deviation = |name: &str| {
        let values = weights.f32(name);
        (values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
    };
    for (name, expected) in [
        ("embed.weight", 1.0),
        ("poi_head.weight", 3.0 / 8.0),
        ("encoder.0.attn.v_proj.weight", 1.0 / 8.0),
        ("encoder.0.ffn.down_proj.weight", 1.0 / 192_f64.sqrt()),
        ("encoder.norm.weight", 1.0),
    ] {
        let found = deviation(name);
        assert!((found / expected - 1.0).abs() < 0.05, "{name}: {found}, expected {expected}");
    }
    assert_eq!(weights.f32("reward.towers.pctr_poi.3.bias").as_ref(), [-2.9]);
    assert_ne!(weights.f32("encoder.0.attn.q_proj.weight"), weights.f32("encoder.0.attn.k_proj.weight"));
}

#[test]
fn one_error_lists_every_fault() {
    let faults = faults_after(WeightType::F32, |tensors| {
        tensors.remove("creative.block.self_attn_norm.weight").unwrap();
        tensors.insert("zz.weight".into(), Tensor { dtype: Dtype::F32, shape: vec![2], data: vec![0; 8] });
        let norm = tensors.get_mut("encoder.norm.weight").unwrap();
        norm.shape = vec![16, 2];
        let bias = tensors.get_mut("payment.mlp.3.bias").unwrap();
        *bias = Tensor { dtype: Dtype::F64, shape: vec![2], data: vec![0; 16] };
        let embed = tensors.get_mut("embed.weight").unwrap();
        embed.data[40..44].copy_from_slice(&f32::NEG_INFINITY.to_le_bytes());
        embed.data[80..84].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    let text = |fault: &TensorFault| fault.to_string();
    assert_eq!(
        faults.iter().map(text).collect::<Vec<_>>(),
        [
            "missing `creative.block.self_attn_norm.weight`, expected shape [32]",
            "`embed.weight` holds -inf at element 10, expected finite numbers",
            "`encoder.norm.weight` has shape [16, 2], expected [32]",
            "`payment.mlp.3.bias` has shape [2], expected [1]",
            "`payment.mlp.3.bias` holds F64, expected F32, BF16 or F16",
            "unexpected `zz.weight` of shape [2]",
        ]
    );
}

#[test]
fn not_finite_values_are_found_in_every_type() {
    let values: [(WeightType, &[&[u8]]); 3] = [
        (WeightType::F32, &[&[0, 0, 0x80, 0x7f], &[0, 0, 0x80, 0xff], &[1, 0, 0x80, 0x7f]]),
        (WeightType::BF16, &[&[0x80, 0x7f], &[0x80, 0xff], &[0x81, 0x7f]]),
        (WeightType::F16, &[&[0, 0x7c], &[0, 0xfc], &[1, 0x7c]]),
    ];
    for (dtype, values) in values {
        for (bytes, expected) in values.iter().zip([f64::INFINITY, f64::NEG_INFINITY, f64::NAN]) {
            let faults = faults_after(dtype, |tensors| {
                let head = &mut tensors.get_mut("poi_head.weight").unwrap().data;
                let end = head.len();
                head[end - bytes.len()..].copy_from_slice(bytes);
            });
            let [TensorFault::NotFinite { name, index, value }] = &faults[..] else { panic!("{faults:?}") };
            assert_eq!((name.as_str(), *index), ("poi_head.weight", 12 * 32 - 1));
            assert!(
                *value == expected || value.is_nan() && expected.is_nan(),
                "{value}, expected {expected}"
            );
        }
    }
}

#[test]
fn the_largest_and_the_smallest_numbers_are_finite() {
    let extremes: [(WeightType, &[&[u8]]); 3] = [
        (WeightType::F32, &[&f32::MAX.to_le_bytes(), &f32::MIN.to_le_bytes(), &[1, 0, 0, 0]]),
        (WeightType::BF16, &[&[0x7f, 0x7f], &[0x7f, 0xff], &[1, 0]]),
        (WeightType::F16, &[&[0xff, 0x7b], &[0xff, 0xfb], &[1, 0]]),
    ];
    for (dtype, values) in extremes {
        let faults = faults_after(dtype, |tensors| {
            let head = &mut tensors.get_mut("poi_head.weight").unwrap().data;
            for (index, bytes) in values.iter().enumerate() {
                head[index * bytes.len()..][..bytes.len()].copy_from_slice(bytes);
            }
        });
        assert_eq!(faults, []);
    }
}

#[test]
fn the_first_of_many_is_named_in_a_large_tensor() {
    let config = ModelConfig::of_size(ModelSize::Tiny);
    for dtype in TYPES {
        let dir = model_dir(&config, dtype);
        let mut tensors = read_tensors(&weights_file(&dir));
        let embed = &mut tensors.get_mut("embed.weight").unwrap().data;
        assert!(embed.len() > 700_000);
        // All bits set is a NaN in every type.
        embed[300_001 * dtype.size()..].fill(0xff);
        write_tensors(&weights_file(&dir), &tensors);
        let Err(LoadError::Tensors { faults, .. }) = Weights::open(dir.path(), &config) else { panic!() };
        let [TensorFault::NotFinite { index: 300_001, .. }] = &faults[..] else { panic!("{faults:?}") };
    }
}

#[test]
fn data_at_odd_addresses_are_read() {
    let config = small_config();
    for dtype in TYPES {
        let dir = model_dir(&config, dtype);
        let expected: Vec<Vec<f32>> = {
            let weights = Weights::open(dir.path(), &config).unwrap();
            weights.names().map(|name| weights.f32(name).into_owned()).collect()
        };
        let file = fs::read(weights_file(&dir)).unwrap();
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let header = [&file[8..8 + length], b" "].concat();
        fs::write(weights_file(&dir), raw_file(header, &file[8 + length..])).unwrap();
        let weights = Weights::open(dir.path(), &config).unwrap();
        for (name, expected) in weights.names().zip(&expected) {
            let values = weights.f32(name);
            assert!(matches!(values, Cow::Owned(_)));
            assert_eq!(values.as_ref(), expected, "{name}");
        }
    }
}

#[test]
fn malformed_files_are_refused() {
    let tensor = |name: &str, dtype: &str, shape: &str, start: u64, end: u64| {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}"#)
    };
    let header = |tensors: &[String]| format!("{{{}}}", tensors.join(","));
    let one = |shape: &str, start, end| raw_file(header(&[tensor("a", "F32", shape, start, end)]), &[0; 8]);
    // Eight tensors whose last offset is 2^64 - 8: with the 8 bytes of the length it overflows.
    let part = (1_u64 << 61) - 1;
    let eight: Vec<String> = (0..8)
        .map(|i| tensor(&format!("t{i}"), "I8", &format!("[{part}]"), i * part, (i + 1) * part))
        .collect();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("seven bytes", vec![0; 7]),
        ("length 0", raw_file("", &[])),
        ("length of 2^64 - 1", vec![0xff; 64]),
        ("length beyond the file", [&100_u64.to_le_bytes()[..], b"{}"].concat()),
        ("length of 100 MB", [&100_000_001_u64.to_le_bytes()[..], b"{}"].concat()),
        ("not UTF-8", raw_file(b"{\"\xff\":1}", &[])),
        ("not JSON", raw_file("{", &[])),
        ("an array", raw_file("[]", &[])),
        ("nested 100,000 deep", raw_file("[".repeat(100_000), &[])),
        ("data without a tensor", raw_file("{}", &[0; 4])),
        ("truncated", one("[4]", 0, 16)),
        ("too long", one("[1]", 0, 4)),
        ("a gap in front", one("[1]", 4, 8)),
        ("offsets reversed", one("[2]", 8, 0)),
        ("shape and offsets disagree", one("[3]", 0, 8)),
        ("shape overflows", one("[4294967296, 4294967296, 4294967296]", 0, 8)),
        ("bytes overflow", one("[4611686018427387904]", 0, 8)),
        ("negative shape", one("[-2]", 0, 8)),
        ("fractional shape", one("[2.5]", 0, 8)),
        ("offset of 2^64 - 1", one("[2]", 0, u64::MAX)),
        ("sum of offsets overflows", raw_file(header(&eight), &[0; 8])),
        (
            "overlap",
            raw_file(header(&[tensor("a", "F32", "[2]", 0, 8), tensor("b", "F32", "[1]", 4, 8)]), &[0; 8]),
        ),
        (
            "a name twice",
            raw_file(header(&[tensor("a", "F32", "[1]", 0, 4), tensor("a", "F32", "[2]", 0, 8)]), &[0; 8]),
        ),
        ("unknown type", raw_file(header(&[tensor("a", "F31", "[2]", 0, 8)]), &[0; 8])),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (case, bytes) in cases {
        fs::write(weights_file(&dir), bytes).unwrap();
        let message = format_message(Weights::open(dir.path(), &small_config()));
        assert!(!message.is_empty(), "{case}");
    }
}

#[test]
fn what_is_no_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let Err(LoadError::Io { path, source }) = Weights::open(dir.path(), &small_config()) else { panic!() };
    assert_eq!((path, source.kind()), (weights_file(&dir), std::io::ErrorKind::NotFound));
    fs::create_dir(weights_file(&dir)).unwrap();
    assert_eq!(format_message(Weights::open(dir.path(), &small_config())), "is not a regular file");
}

#[test]
fn a_configuration_out_of_range_is_refused() {
    let dir = model_dir(&small_config(), WeightType::F32);
    let config = ModelConfig { list_len: 0, hidden_size: usize::MAX, ..small_config() };
    let error = Weights::open(dir.path(), &config).unwrap_err();
    assert!(matches!(&error, LoadError::Config { key, .. } if key == "list_len"), "{error}");
}

/// Turns the weights of `dir` into shards; the index says where `shard` puts each tensor.
fn split(dir: &Path, shard: impl Fn(&str) -> String) -> serde_json::Map<String, serde_json::Value> {
    let tensors = read_tensors(&dir.join("model.safetensors"));
    fs::remove_file(dir.join("model.safetensors")).unwrap();
    let mut shards: std::collections::BTreeMap<String, Tensors> = Default::default();
    for (name, tensor) in &tensors {
        shards.entry(shard(name)).or_default().insert(name.clone(), tensor.clone());
    }
    for (file, tensors) in &shards {
        fs::create_dir_all(dir.join(file).parent().unwrap()).unwrap();
        write_tensors(&dir.join(file), tensors);
    }
    tensors.keys().map(|name| (name.clone(), json!(shard(name)))).collect()
}

fn write_index(dir: &Path, weight_map: &serde_json::Map<String, serde_json::Value>) {
    let index = json!({"metadata": {"total_size": 1}, "weight_map": weight_map});
    fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

fn shard_of(name: &str) -> String {
    match name.split('.').next().unwrap() {
        "reward" | "payment" => "model-00002-of-00003.safetensors".into(),
        "quantizer" => "more/model-00003-of-00003.safetensors".into(),
        _ => "model-00001-of-00003.safetensors".into(),
    }
}

#[test]
fn shards_read_like_one_file() {
    let config = small_config();
    for dtype in TYPES {
        let dir = model_dir(&config, dtype);
        let whole = read_tensors(&weights_file(&dir));
        let weight_map = split(dir.path(), shard_of);
        write_index(dir.path(), &weight_map);
        assert_eq!(TensorFiles::open_dir(dir.path()).unwrap().file_count(), 3);
        let weights = Weights::open(dir.path(), &config).unwrap();
        assert!(weights.names().eq(whole.keys()));
        assert!(whole.iter().all(|(name, tensor)| weights.raw(name) == tensor.data));
    }
}

#[test]
fn an_index_that_its_shards_contradict_is_refused() {
    let (first, second) = ("model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors");
    type Change = fn(&Path, &mut serde_json::Map<String, serde_json::Value>);
    let cases: [(&str, Change); 8] = [
        ("says that \"ghost\" is in", |_, map| {
            map.insert("ghost".into(), json!("model-00001-of-00003.safetensors"));
        }),
        ("but the index does not name it", |_, map| {
            map.remove("embed.weight");
        }),
        ("does not hold it", |_, map| {
            map.insert("payment.mlp.0.bias".into(), json!("model-00001-of-00003.safetensors"));
        }),
        ("but the index says that it is in", |dir, _| {
            let path = dir.join("model-00001-of-00003.safetensors");
            let mut tensors = read_tensors(&path);
            let other = read_tensors(&dir.join("model-00002-of-00003.safetensors"));
            tensors.insert("payment.mlp.0.bias".into(), other["payment.mlp.0.bias"].clone());
            write_tensors(&path, &tensors);
        }),
        ("is also in another shard", |dir, _| {
            let path = dir.join("model-00002-of-00003.safetensors");
            let mut tensors = read_tensors(&path);
            let other = read_tensors(&dir.join("model-00001-of-00003.safetensors"));
            tensors.insert("embed.weight".into(), other["embed.weight"].clone());
            write_tensors(&path, &tensors);
        }),
        ("expected a path inside the directory", |_, map| {
            map.insert("embed.weight".into(), json!("../model-00001-of-00003.safetensors"));
        }),
        ("expected a path inside the directory", |_, map| {
            map.insert("embed.weight".into(), json!("/tmp/model-00001-of-00003.safetensors"));
        }),
        ("expected a path inside the directory", |_, map| {
            map.insert("embed.weight".into(), json!(""));
        }),
    ];
    for (expected, change) in cases {
        let config = small_config();
        let dir = model_dir(&config, WeightType::F32);
        let mut weight_map = split(dir.path(), shard_of);
        change(dir.path(), &mut weight_map);
        write_index(dir.path(), &weight_map);
        let message = format_message(Weights::open(dir.path(), &config));
        assert!(message.contains(expected), "{message}, expected {expected:?}");
    }
    let dir = model_dir(&small_config(), WeightType::F32);
    let weight_map = split(dir.path(), shard_of);
    write_index(dir.path(), &weight_map);
    fs::remove_file(dir.path().join(second)).unwrap();
    let Err(LoadError::Io { path, .. }) = Weights::open(dir.path(), &small_config()) else { panic!() };
    assert_eq!(path, dir.path().join(second));
    fs::write(dir.path().join(first), b"short").unwrap();
    assert!(format_message(Weights::open(dir.path(), &small_config())).contains("5 bytes"));
}

#[test]
fn a_malformed_index_is_refused() {
    let dir = model_dir(&small_config(), WeightType::F32);
    let index = dir.path().join("model.safetensors.index.json");
    let cases = [
        ("expected one of the two", "{}"),
        ("missing field `weight_map`", "{}"),
        ("is empty", r#"{"weight_map": {}}"#),
        ("occurs twice", r#"{"weight_map": {"a": "b", "a": "c"}}"#),
        ("invalid type", r#"{"weight_map": {"a": 1}}"#),
        ("EOF", ""),
    ];
    for (case, (expected, text)) in cases.into_iter().enumerate() {
        if case == 1 {
            fs::remove_file(weights_file(&dir)).unwrap();
        }
        fs::write(&index, text).unwrap();
        let message = format_message(Weights::open(dir.path(), &small_config()));
        assert!(message.contains(expected), "{message}, expected {expected:?}");
    }
}

#[test]
fn quantizers_without_hidden_layers() {
    let mut config = small_config();
    config.quantizer_hidden.clear();
    let dir = model_dir(&config, WeightType::F32);
    let weights = Weights::open(dir.path(), &config).unwrap();
    assert_eq!(weights.shape("quantizer.poi.encoder.0.weight"), [5, 6], "one linear layer");
    assert!(weights.has_quantizer_encoder(QuantizerKind::Poi));

    let mut tensors = read_tensors(&weights_file(&dir));
    tensors.retain(|name, _| !name.starts_with("quantizer.poi.encoder."));
    write_tensors(&weights_file(&dir), &tensors);
    let Err(LoadError::Tensors { faults, .. }) = Weights::open(dir.path(), &config) else { panic!() };
    let missing = |name: &str, expected: &[usize]| TensorFault::Missing {
        name: format!("quantizer.poi.encoder.0.{name}"),
        expected: expected.into(),
    };
    assert_eq!(faults, [missing("bias", &[5]), missing("weight", &[5, 6])], "5 is not 6");

    config.quantizer_size = Some(6);
    let dir = model_dir(&config, WeightType::F32);
    let mut tensors = read_tensors(&weights_file(&dir));
    tensors.retain(|name, _| !name.starts_with("quantizer.poi.encoder."));
    write_tensors(&weights_file(&dir), &tensors);
    let weights = Weights::open(dir.path(), &config).unwrap();
    assert!(!weights.has_quantizer_encoder(QuantizerKind::Poi));
    assert!(weights.has_quantizer_encoder(QuantizerKind::Creative));

    config.quantizer_size = None;
    let Err(LoadError::Tensors { faults, .. }) = Weights::open(dir.path(), &config) else { panic!() };
    assert_eq!(faults.len(), 4, "two codebooks and one encoder of two tensors are unexpected: {faults:?}");
}
