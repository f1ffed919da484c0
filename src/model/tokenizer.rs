//! `tokenizer.json`: the vocabulary of codes, written and checked.
//!
//! The engine computes token ids from codes by arithmetic. The file is for whatever else reads the model, and
//! it is checked so that the two can never disagree in silence.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use tokenizers::models::wordlevel::WordLevel;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::{ModelWrapper, Tokenizer};

use super::config::{ModelConfig, SPECIAL_TOKENS};
use crate::error::LoadError;

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
    let fault = |message: String| LoadError::Tokenizer { path: path.clone(), message };
    let text = read_bounded(&path, config)?;
    let tokenizer = Tokenizer::from_bytes(&text).map_err(|error| fault(error.to_string()))?;
    if !matches!(tokenizer.get_model(), ModelWrapper::WordLevel(_)) {
        return Err(fault("is not a word-level model".into()));
    }
    let disagreements = compare(&tokenizer, config);
    if disagreements.is_empty() {
        return Ok(());
    }
    let shown = disagreements.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join("; ");
    let more = match disagreements.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    Err(fault(format!("disagrees with config.json on {} token(s): {shown}{more}", disagreements.len())))
}

/// One line per token that is missing, superfluous or has another id: by expected id, then the superfluous.
fn compare(tokenizer: &Tokenizer, config: &ModelConfig) -> Vec<String> {
    let mut found = tokenizer.get_vocab(true);
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
