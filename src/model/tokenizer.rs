//! `tokenizer.json`: the vocabulary of codes, written and checked.
//!
//! The engine computes token ids from codes by arithmetic. The file is for whatever else reads the model, and
//! it is checked so that the two can never disagree in silence.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::{Model, Tokenizer};

use super::config::{ModelConfig, SPECIAL_TOKENS};
use crate::error::LoadError;
use crate::json::UniqueMap;

/// Name of the file in a model directory.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// Disagreements that an error spells out; the others are counted.
const SHOWN: usize = 5;

/// Every token of a model of `config`, in the order of their ids: the special tokens, `<p{layer}_{code}>`
/// layer after layer, `<c{layer}_{code}>` layer after layer.
pub fn vocabulary(config: &ModelConfig) -> impl Iterator<Item = String> {
    let codes = config.codebook_size;
    let layers = move |kind: char, count: usize| {
        (0..count).flat_map(move |layer| (0..codes).map(move |code| format!("<{kind}{layer}_{code}>")))
    };
    SPECIAL_TOKENS
        .into_iter()
        .map(String::from)
        .chain(layers('p', config.poi_code_layers))
        .chain(layers('c', config.creative_code_layers))
}

/// Checks that `tokenizer.json` of `dir` is a word-level model with exactly the vocabulary of `config`.
///
/// # Errors
/// [`LoadError::Io`] where the file cannot be read, [`LoadError::Tokenizer`] where it is not a tokenizer, not
/// a word-level one, or disagrees: the first few tokens that do are named, with the id found and the id
/// expected.
pub fn check_tokenizer(dir: &Path, config: &ModelConfig) -> Result<(), LoadError> {
    let path = dir.join(TOKENIZER_FILE);
    let text = read_bounded(&path, config)?;
    let disagreements = read_vocabulary(&text).map(|found| compare(found, config));
    let message = match disagreements {
        Ok(lines) if lines.is_empty() => return Ok(()),
        Ok(lines) => summary(&lines),
        Err(message) => message,
    };
    Err(LoadError::Tokenizer { path, message })
}

fn summary(lines: &[String]) -> String {
    let shown = lines.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join("; ");
    let more = match lines.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    format!("disagrees with config.json on {} token(s): {shown}{more}", lines.len())
}

/// A part of `tokenizer.json`, `M` of its model. The rest (how text is normalized and split) has no bearing on
/// the engine, and the crate's own reader panics where that part is malformed.
#[derive(Deserialize)]
struct Part<M> {
    model: M,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct DistinctTokens {
    #[serde(rename = "vocab")]
    _vocab: UniqueMap<IgnoredAny>,
}

/// Token to id of a word-level `tokenizer.json`, added tokens included; `Err` says what is wrong with it.
fn read_vocabulary(text: &[u8]) -> Result<HashMap<String, u32>, String> {
    fn parse<'a, M: Deserialize<'a>>(text: &'a [u8]) -> Result<Part<M>, String> {
        serde_json::from_slice(text).map_err(|error| error.to_string())
    }
    let kind = parse::<Kind>(text)?.model.kind;
    if kind != "WordLevel" {
        return Err(format!("holds a model of type {kind:?}, expected \"WordLevel\""));
    }
    parse::<DistinctTokens>(text)?;
    let part = parse::<WordLevel>(text)?;
    let mut vocabulary = part.model.get_vocab();
    vocabulary.extend(part.added_tokens.into_iter().map(|token| (token.content, token.id)));
    Ok(vocabulary)
}

/// One line per token that is missing, superfluous or has another id: by expected id, then the superfluous.
fn compare(mut found: HashMap<String, u32>, config: &ModelConfig) -> Vec<String> {
    let mut lines = Vec::new();
    for (expected, token) in vocabulary(config).enumerate() {
        match found.remove(&token) {
            Some(id) if id as usize == expected => {}
            Some(id) => lines.push(format!("{token} has id {id}, expected {expected}")),
            None => lines.push(format!("{token} is missing, expected id {expected}")),
        }
    }
    let mut unexpected: Vec<_> = found.into_iter().map(|(token, id)| (id, token)).collect();
    unexpected.sort_unstable();
    lines.extend(
        unexpected.into_iter().map(|(id, token)| format!("{token:?} has id {id}, expected no such token")),
    );
    lines
}

/// Reads a file of at most the size that a vocabulary of this length could fill, with room for indentation,
/// `added_tokens` and the like.
fn read_bounded(path: &Path, config: &ModelConfig) -> Result<Vec<u8>, LoadError> {
    let io = |error| LoadError::io(path, error);
    let limit = (1 << 20) + 512 * config.vocabulary_size() as u64;
    if !fs::metadata(path).map_err(io)?.is_file() {
        return Err(LoadError::Tokenizer { path: path.into(), message: "is not a regular file".into() });
    }
    let mut text = Vec::new();
    File::open(path).map_err(io)?.take(limit + 1).read_to_end(&mut text).map_err(io)?;
    if text.len() as u64 > limit {
        let message =
            format!("is larger than {limit} bytes, the most for {} tokens", config.vocabulary_size());
        return Err(LoadError::Tokenizer { path: path.into(), message });
    }
    Ok(text)
}

/// Writes `tokenizer.json` of a model of `config` into `dir`: a word-level model that splits at white space.
///
/// # Errors
/// [`LoadError::Io`] where the file cannot be written.
pub fn write_tokenizer(dir: &Path, config: &ModelConfig) -> Result<(), LoadError> {
    let path = dir.join(TOKENIZER_FILE);
    let fault =
        |error: tokenizers::Error| LoadError::Tokenizer { path: path.clone(), message: error.to_string() };
    let model = WordLevel::builder()
        .vocab(vocabulary(config).zip(0..).collect())
        .unk_token("[UNK]".into())
        .build()
        .map_err(fault)?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(WhitespaceSplit));
    let text = tokenizer.to_string(false).map_err(fault)?;
    fs::write(&path, text).map_err(|error| LoadError::io(&path, error))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::config::ModelSize;

    fn small_config() -> ModelConfig {
        let mut config = ModelConfig::of_size(ModelSize::Tiny);
        (config.codebook_size, config.poi_code_layers, config.creative_code_layers) = (3, 2, 1);
        config
    }

    /// What the check says of a written file after `change`.
    fn fault_after(change: impl FnOnce(&mut Value)) -> String {
        let (dir, config) = (tempfile::tempdir().unwrap(), small_config());
        write_tokenizer(dir.path(), &config).unwrap();
        let path = dir.path().join(TOKENIZER_FILE);
        let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut json);
        fs::write(&path, json.to_string()).unwrap();
        match check_tokenizer(dir.path(), &config) {
            Ok(()) => String::new(),
            Err(LoadError::Tokenizer { message, .. }) => message,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn the_vocabulary_has_the_ids_of_the_configuration() {
        let config = small_config();
        let tokens: Vec<String> = vocabulary(&config).collect();
        assert_eq!(tokens.len(), config.vocabulary_size());
        assert_eq!(tokens[config.poi_token(1, 2)], "<p1_2>");
        assert_eq!(tokens[config.creative_token(0, 1)], "<c0_1>");
        assert_eq!(tokens[4], "[CTX]");
    }

    #[test]
    fn what_is_written_is_read_by_the_crate_and_splits_text() {
        let (dir, config) = (tempfile::tempdir().unwrap(), ModelConfig::of_size(ModelSize::Tiny));
        write_tokenizer(dir.path(), &config).unwrap();
        check_tokenizer(dir.path(), &config).unwrap();
        let tokenizer = Tokenizer::from_file(dir.path().join(TOKENIZER_FILE)).unwrap();
        let encoding = tokenizer.encode("[SEP] <p0_5> <p2_1023> <c1_7> nonsense", false).unwrap();
        let expected = [1, config.poi_token(0, 5), config.poi_token(2, 1023), config.creative_token(1, 7), 5];
        assert_eq!(encoding.get_ids().iter().map(|&id| id as usize).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn every_disagreement_is_named() {
        assert_eq!(fault_after(|_| {}), "");
        let swapped = fault_after(|json| {
            json["model"]["vocab"]["<p0_1>"] = json!(10);
            json["model"]["vocab"]["<p0_2>"] = json!(9);
        });
        assert_eq!(
            swapped,
            "disagrees with config.json on 2 token(s): <p0_1> has id 10, expected 9; <p0_2> has id 9, expected 10"
        );
        let vocab = |json: &mut Value| json["model"]["vocab"].as_object_mut().unwrap().clone();
        let missing = fault_after(|json| {
            let mut tokens = vocab(json);
            tokens.remove("<c0_2>");
            json["model"]["vocab"] = Value::Object(tokens);
        });
        assert!(missing.ends_with("1 token(s): <c0_2> is missing, expected id 16"), "{missing}");
        let more = fault_after(|json| json["model"]["vocab"]["extra"] = json!(17));
        assert!(more.ends_with("1 token(s): \"extra\" has id 17, expected no such token"), "{more}");
        let all = fault_after(|json| json["model"]["vocab"] = json!({"[UNK]": 5}));
        assert!(all.contains("16 token(s): [PAD] is missing") && all.ends_with("; and 11 more"), "{all}");
    }

    #[test]
    fn added_tokens_count() {
        let added = |content: &str, id: u32| {
            json!([{"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": true}])
        };
        assert_eq!(fault_after(|json| json["added_tokens"] = added("[CTX]", 4)), "");
        let more = fault_after(|json| json["added_tokens"] = added("[NEW]", 17));
        assert!(more.contains("\"[NEW]\" has id 17"), "{more}");
        let other = fault_after(|json| json["added_tokens"] = added("[CTX]", 3));
        assert!(other.ends_with("[CTX] has id 3, expected 4"), "{other}");
    }

    #[test]
    fn a_token_twice_is_refused() {
        let text = br#"{"model": {"type": "WordLevel", "unk_token": "a", "vocab": {"a": 1, "a": 2}}}"#;
        assert!(read_vocabulary(text).unwrap_err().contains("key \"a\" occurs twice"));
    }

    #[test]
    fn what_is_no_word_level_tokenizer_is_refused() {
        let unigram =
            json!({"type": "Unigram", "unk_id": 0, "vocab": [["[UNK]", 0.0]], "byte_fallback": false});
        let fault = fault_after(|json| json["model"] = unigram);
        assert_eq!(fault, "holds a model of type \"Unigram\", expected \"WordLevel\"");
        assert!(!fault_after(|json| *json = json!([1])).is_empty());
        let large = fault_after(|json| json["padding"] = json!("x".repeat(2 << 20)));
        assert!(large.starts_with("is larger than"), "{large}");
        let missing = check_tokenizer(tempfile::tempdir().unwrap().path(), &small_config());
        assert!(matches!(missing, Err(LoadError::Io { .. })), "{missing:?}");
    }
}
