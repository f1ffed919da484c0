//! Whatever the bytes of a model directory's files, they are read or refused by a named error: no panic.
//!
//! Valid small files are changed in a few places: raw bytes, and values of their JSON. The targets under
//! `fuzz/` do the same with coverage as a guide; these run on every build.

mod support;

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use bidslate::error::LoadError;
use bidslate::model::config::{CONFIG_FILE, ModelConfig};
use bidslate::model::files::{INDEX_FILE, TensorFiles, WEIGHTS_FILE};
use bidslate::model::tokenizer::{TOKENIZER_FILE, check_tokenizer};
use bidslate::model::weights::{WeightType, Weights};
use proptest::prelude::*;
use proptest::sample::Index;
use support::{model_dir, small_config};

/// One change of a file.
#[derive(Debug, Clone)]
enum Edit {
    Set(Index, u8),
    Flip(Index, u8),
    Remove(Index, Index),
    Insert(Index, Vec<u8>),
    Copy(Index, Index, Index),
    Truncate(Index),
    /// Replaces a number, string, key or literal of the JSON by another token.
    Token(Index, &'static str),
}

const TOKENS: [&str; 18] = [
    "0",
    "1",
    "-1",
    "3",
    "1e999",
    "0.5",
    "18446744073709551615",
    "18446744073709551608",
    "2305843009213693951",
    "99999999999999999999999",
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "\"F16\"",
    "\"F4\"",
    "\"\\ud800\"",
];

fn edit() -> impl Strategy<Value = Edit> {
    let index = any::<Index>;
    prop_oneof![
        1 => (index(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        1 => (index(), 0..8_u8).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        1 => (index(), index()).prop_map(|(at, length)| Edit::Remove(at, length)),
        1 => (index(), prop::collection::vec(any::<u8>(), 1..20)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        1 => (index(), index(), index()).prop_map(|(from, to, length)| Edit::Copy(from, to, length)),
        1 => index().prop_map(Edit::Truncate),
        4 => (index(), prop::sample::select(&TOKENS[..])).prop_map(|(at, token)| Edit::Token(at, token)),
    ]
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    prop::collection::vec(edit(), 1..5)
}

fn apply(bytes: &mut Vec<u8>, edit: &Edit) {
    if bytes.is_empty() {
        return;
    }
    let length = bytes.len();
    match edit {
        Edit::Set(at, byte) => bytes[at.index(length)] = *byte,
        Edit::Flip(at, bit) => bytes[at.index(length)] ^= 1 << bit,
        Edit::Remove(at, count) => {
            let start = at.index(length);
            bytes.drain(start..start + count.index((length - start).min(40) + 1));
        }
        Edit::Insert(at, new) => {
            let at = at.index(length);
            bytes.splice(at..at, new.iter().copied());
        }
        Edit::Copy(from, to, count) => {
            let start = from.index(length);
            let copied = bytes[start..start + count.index((length - start).min(200) + 1)].to_vec();
            let to = to.index(length);
            bytes.splice(to..to, copied);
        }
        Edit::Truncate(at) => bytes.truncate(at.index(length)),
        Edit::Token(at, token) => replace_token(bytes, *at, token),
    }
}

/// Replaces the `at`-th token of JSON text that is not punctuation.
fn replace_token(bytes: &mut Vec<u8>, at: Index, token: &str) {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || b"\"-_.<>/".contains(&byte);
    let starts: Vec<usize> =
        (0..bytes.len()).filter(|&i| word(bytes[i]) && (i == 0 || !word(bytes[i - 1]))).collect();
    if starts.is_empty() {
        return;
    }
    let start = starts[at.index(starts.len())];
    let end = (start..bytes.len()).find(|&i| !word(bytes[i])).unwrap_or(bytes.len());
    bytes.splice(start..end, token.bytes());
}

fn edited(original: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut bytes = original.to_vec();
    edits.iter().for_each(|edit| apply(&mut bytes, edit));
    bytes
}

/// The files of a small model.
struct Files {
    config: Vec<u8>,
    tokenizer: Vec<u8>,
    weights: Vec<u8>,
    /// Bytes of `weights` in front of the data.
    header: usize,
}

static FILES: LazyLock<Files> = LazyLock::new(|| {
    let dir = model_dir(&small_config(), WeightType::BF16);
    let read = |name| fs::read(dir.path().join(name)).unwrap();
    let weights = read(WEIGHTS_FILE);
    let header = 8 + u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
    Files { config: read(CONFIG_FILE), tokenizer: read(TOKENIZER_FILE), weights, header }
});

/// Opens the weights of `dir` and, where that succeeds, checks what it promises.
fn open(dir: &Path) -> Result<(), TestCaseError> {
    match Weights::open(dir, &small_config()) {
        Ok(weights) => {
            for name in weights.names() {
                let values = weights.f32(name);
                prop_assert_eq!(values.len(), weights.shape(name).iter().product::<usize>());
                prop_assert!(values.iter().all(|value| value.is_finite()));
            }
        }
        Err(LoadError::Tensors { faults, .. }) => prop_assert!(!faults.is_empty()),
        Err(LoadError::Format { message, .. }) => prop_assert!(!message.is_empty()),
        Err(LoadError::Io { .. }) => {}
        Err(other) => prop_assert!(false, "{other}"),
    }
    Ok(())
}

/// The files of a folder of seeds, by name.
fn seeds(target: &str) -> Vec<(String, std::path::PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.path())).collect()
}

#[test]
fn seeds_are_what_their_names_say() {
    let configs = seeds("config");
    assert!(configs.len() >= 2);
    for (name, path) in configs {
        assert!(ModelConfig::read(&path).is_ok(), "config/{name}");
    }
    let weights = seeds("weights");
    assert!(weights.len() >= 6);
    for (name, path) in weights {
        let valid = ["f32", "nan", "types"].contains(&name.as_str());
        assert_eq!(TensorFiles::open_file(&path).is_ok(), valid, "weights/{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn weights_with_edits_anywhere(edits in edits()) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(WEIGHTS_FILE), edited(&FILES.weights, &edits)).unwrap();
        open(dir.path())?;
    }

    #[test]
    fn weights_with_edits_in_the_header(edits in edits(), fix_length in any::<bool>()) {
        let (header, data) = FILES.weights.split_at(FILES.header);
        let mut header = edited(header, &edits);
        if fix_length && header.len() >= 8 {
            // So that the JSON is reached whatever its length has become.
            let length = header.len() as u64 - 8;
            header[..8].copy_from_slice(&length.to_le_bytes());
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(WEIGHTS_FILE), [&header, data].concat()).unwrap();
        open(dir.path())?;
    }

    #[test]
    fn weights_with_edits_in_the_data(edits in edits()) {
        let (header, data) = FILES.weights.split_at(FILES.header);
        let mut data = data.to_vec();
        for edit in edits.iter().filter(|edit| matches!(edit, Edit::Set(..) | Edit::Flip(..))) {
            apply(&mut data, edit);
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(WEIGHTS_FILE), [header, &data].concat()).unwrap();
        open(dir.path())?;
    }

    #[test]
    fn an_index(edits in edits()) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.safetensors"), &FILES.weights).unwrap();
        let names = safetensors::SafeTensors::deserialize(&FILES.weights).unwrap();
        let weight_map: serde_json::Map<_, _> =
            names.names().into_iter().map(|name| (name.to_owned(), "a.safetensors".into())).collect();
        let index = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": weight_map}).to_string();
        fs::write(dir.path().join(INDEX_FILE), edited(index.as_bytes(), &edits)).unwrap();
        open(dir.path())?;
    }

    #[test]
    fn a_configuration(edits in edits()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(CONFIG_FILE);
        fs::write(&path, edited(&FILES.config, &edits)).unwrap();
        fs::write(dir.path().join(WEIGHTS_FILE), &FILES.weights).unwrap();
        match ModelConfig::read(&path) {
            // Whatever passes the check must not overflow where sizes are derived from it.
            Ok(config) => {
                prop_assert!(config.check().is_ok());
                prop_assert!(config.vocabulary_size() > 8 && config.head_size() >= 32);
                match Weights::open(dir.path(), &config) {
                    Ok(weights) => prop_assert_eq!(weights.shape("embed.weight")[0], config.vocabulary_size()),
                    Err(LoadError::Tensors { faults, .. }) => prop_assert!(!faults.is_empty()),
                    Err(other) => prop_assert!(false, "{other}"),
                }
            }
            Err(LoadError::Config { message, .. }) => prop_assert!(!message.is_empty()),
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn a_tokenizer(edits in edits()) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(TOKENIZER_FILE), edited(&FILES.tokenizer, &edits)).unwrap();
        match check_tokenizer(dir.path(), &small_config()) {
            Ok(()) => {}
            Err(LoadError::Tokenizer { message, .. }) => prop_assert!(!message.is_empty()),
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}
