//! `config.json`: the sizes and constants of a model.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::LoadError;
use crate::json::{named_field, unique_map};
use crate::money::{Currency, Micros};

/// Name of the configuration in a model directory.
pub const CONFIG_FILE: &str = "config.json";

/// Number of reserved ids at the head of the vocabulary: `[PAD] [SEP] [BOI] [BOC] [CTX] [UNK] [R6] [R7]`.
pub const SPECIAL_TOKENS: [&str; 8] = ["[PAD]", "[SEP]", "[BOI]", "[BOC]", "[CTX]", "[UNK]", "[R6]", "[R7]"];

/// Id of `[SEP]`, which opens a behaviour of the history.
pub const SEP: usize = 1;
/// Id of `[BOI]`, the first input of the POI decoder.
pub const BOI: usize = 2;
/// Id of `[BOC]`, the token before the first code of a creative.
pub const BOC: usize = 3;
/// Id of `[CTX]`, the first token of the encoder.
pub const CTX: usize = 4;

/// The sizes and constants of a model, as `config.json` states them.
///
/// Every key without a default is required, and an unknown key is an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Version of the model directory's format; always 1.
    #[serde(default = "one_u32")]
    pub format_version: u32,
    /// B: past behaviours the encoder sees; of a longer history the last B.
    pub history_len: usize,
    /// K: slots of the generated list.
    pub list_len: usize,
    /// C_p: residual code layers of a POI.
    pub poi_code_layers: usize,
    /// C_c: residual code layers of a creative.
    pub creative_code_layers: usize,
    /// W: codes in each layer's codebook.
    pub codebook_size: usize,
    /// N_S: beams, and so candidate lists, of a request that does not say.
    pub beam_width: usize,
    /// L_e: encoder blocks.
    pub encoder_layers: usize,
    /// L_d: POI decoder blocks.
    pub decoder_layers: usize,
    /// d: width of the model.
    pub hidden_size: usize,
    /// H: attention heads; d / H is 32, 64 or 128.
    pub num_heads: usize,
    /// d_ff: width of the feed-forward layer.
    pub ffn_size: usize,
    /// d_item: width of an item's raw embedding.
    pub item_embedding_size: usize,
    /// Width of a creative's raw embedding; `item_embedding_size` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creative_embedding_size: Option<usize>,
    /// Categorical features of a request: name to number of values.
    #[serde(default, deserialize_with = "unique_map")]
    pub context_features: BTreeMap<String, usize>,
    /// Categorical features of a past behaviour: name to number of values.
    #[serde(default, deserialize_with = "unique_map")]
    pub behavior_features: BTreeMap<String, usize>,
    /// d_r: width of the reward model.
    pub reward_hidden_size: usize,
    /// L_r: blocks of the reward model.
    pub reward_layers: usize,
    /// H_r: heads of the reward model.
    pub reward_heads: usize,
    /// d_q: width of the residual quantizers; without it the model has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantizer_size: Option<usize>,
    /// Hidden widths of the quantizers' encoder MLPs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quantizer_hidden: Vec<usize>,
    /// Micros in one bid unit, the unit in which bids enter token scores, rewards and the payment network.
    #[serde(default = "million")]
    pub bid_unit_micros: u64,
    /// Payments are multiples of this many micros (the reserve and the bid excepted).
    #[serde(default = "one_u64")]
    pub billable_unit_micros: u64,
    /// Currency of all amounts; not declared unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<Currency>,
    /// Epsilon of every RMSNorm.
    #[serde(default = "default_eps")]
    pub rms_eps: f64,
    /// Base of the rotary embedding.
    #[serde(default = "default_theta")]
    pub rope_theta: f64,
    /// Exponent of bids in token-level bidding (Eq. 21), of a request that does not say.
    #[serde(default = "default_alpha")]
    pub alpha: f64,
    /// Weight of organic content in token-level bidding (Eq. 21), of a request that does not say.
    #[serde(default = "default_beta")]
    pub beta: f64,
}

fn one_u32() -> u32 {
    1
}
fn one_u64() -> u64 {
    1
}
fn million() -> u64 {
    1_000_000
}
fn default_eps() -> f64 {
    1e-6
}
fn default_theta() -> f64 {
    10_000.0
}
fn default_alpha() -> f64 {
    1.2
}
fn default_beta() -> f64 {
    2.0
}

/// The four sizes that `bidslate init-model` makes and the engine is measured at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelSize {
    /// d 64, for tests.
    Tiny,
    /// d 256.
    Small,
    /// d 512.
    Base,
    /// d 1024.
    Large,
}

impl ModelConfig {
    /// The configuration of one of the standard sizes, with the paper's K, B, W, code layers and blocks.
    pub fn of_size(size: ModelSize) -> Self {
        let (hidden_size, num_heads, ffn_size) = match size {
            ModelSize::Tiny => (64, 1, 192),
            ModelSize::Small => (256, 4, 768),
            ModelSize::Base => (512, 8, 1536),
            ModelSize::Large => (1024, 16, 3072),
        };
        let reward_hidden_size = (hidden_size / 2).max(64);
        Self {
            format_version: 1,
            history_len: 256,
            list_len: 10,
            poi_code_layers: 3,
            creative_code_layers: 3,
            codebook_size: 1024,
            beam_width: 64,
            encoder_layers: 3,
            decoder_layers: 3,
            hidden_size,
            num_heads,
            ffn_size,
            item_embedding_size: 64,
            creative_embedding_size: None,
            context_features: BTreeMap::from([("hour".into(), 24), ("weekday".into(), 7)]),
            behavior_features: BTreeMap::from([
                ("action".into(), 4),
                ("is_ad".into(), 2),
                ("recency".into(), 8),
            ]),
            reward_hidden_size,
            reward_layers: 1,
            reward_heads: reward_hidden_size / 64,
            quantizer_size: Some(32),
            quantizer_hidden: vec![64],
            bid_unit_micros: million(),
            billable_unit_micros: 1,
            currency: None,
            rms_eps: default_eps(),
            rope_theta: default_theta(),
            alpha: default_alpha(),
            beta: default_beta(),
        }
    }

    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// [`LoadError::Io`] where the file cannot be read, [`LoadError::Config`] naming the key, its value and
    /// what was expected.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        let text = std::fs::read(path).map_err(|e| LoadError::io(path, e))?;
        let fault = |key: String, message: String| LoadError::Config { path: path.into(), key, message };
        // `serde` would also take the values as an array, in the order of the fields.
        if text.trim_ascii_start().first().is_some_and(|&byte| byte != b'{') {
            return Err(fault(".".into(), "is not a JSON object".into()));
        }
        let mut json = serde_json::Deserializer::from_slice(&text);
        let config: Self = serde_path_to_error::deserialize(&mut json).map_err(|e| {
            let message = e.inner().to_string();
            let key = named_field(&message).map_or_else(|| e.path().to_string(), str::to_owned);
            // "?" is a key that the file ended before.
            fault(if key == "?" { ".".into() } else { key }, message)
        })?;
        json.end().map_err(|e| fault(".".into(), e.to_string()))?;
        config.check_as(path)?;
        Ok(config)
    }

    /// Writes the configuration as JSON, every key spelt out.
    ///
    /// # Errors
    /// [`LoadError::Io`] where the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), LoadError> {
        let io = |error| LoadError::io(path, error);
        let text = serde_json::to_string_pretty(self).map_err(|error| io(error.into()))?;
        std::fs::write(path, text + "\n").map_err(io)
    }

    /// Checks every value against its range; `Err` is the offending key and what was expected of it.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        self.check_sizes()?;
        self.check_constants()
    }

    /// [`ModelConfig::check`], with the fault as an error of the file `path`.
    pub(crate) fn check_as(&self, path: &Path) -> Result<(), LoadError> {
        let fault =
            |(key, message): (&str, _)| LoadError::Config { path: path.into(), key: key.into(), message };
        self.check().map_err(fault)
    }

    fn check_sizes(&self) -> Result<(), (&'static str, String)> {
        let sizes = [
            ("history_len", self.history_len, 0, 1 << 16),
            ("list_len", self.list_len, 1, 1 << 10),
            ("poi_code_layers", self.poi_code_layers, 1, 64),
            ("creative_code_layers", self.creative_code_layers, 1, 64),
            ("codebook_size", self.codebook_size, 2, 1 << 16),
            ("beam_width", self.beam_width, 1, 1 << 16),
            ("encoder_layers", self.encoder_layers, 1, 1 << 10),
            ("decoder_layers", self.decoder_layers, 1, 1 << 10),
            ("hidden_size", self.hidden_size, 32, 1 << 16),
            ("num_heads", self.num_heads, 1, 1 << 10),
            ("ffn_size", self.ffn_size, 1, 1 << 18),
            ("item_embedding_size", self.item_embedding_size, 1, 1 << 16),
            ("creative_embedding_size", self.creative_embedding_size(), 1, 1 << 16),
            ("reward_hidden_size", self.reward_hidden_size, 1, 1 << 16),
            ("reward_layers", self.reward_layers, 1, 1 << 10),
            ("reward_heads", self.reward_heads, 1, 1 << 10),
            ("quantizer_size", self.quantizer_size.unwrap_or(1), 1, 1 << 16),
        ];
        for (key, value, low, high) in sizes {
            if value < low || value > high {
                return Err((key, format!("is {value}, expected {low} to {high}")));
            }
        }
        if let Some(bad) = self.quantizer_hidden.iter().find(|&&n| n == 0 || n > 1 << 16) {
            return Err(("quantizer_hidden", format!("holds {bad}, expected widths of 1 to 65536")));
        }
        let features =
            [("context_features", &self.context_features), ("behavior_features", &self.behavior_features)];
        for (key, features) in features {
            if let Some((name, size)) = features.iter().find(|(_, n)| **n == 0 || **n > 1 << 31) {
                return Err((key, format!("{name:?} has {size} values, expected 1 to 2^31")));
            }
        }
        self.check_heads()
    }

    fn check_heads(&self) -> Result<(), (&'static str, String)> {
        let (d, heads) = (self.hidden_size, self.num_heads);
        if d % heads != 0 || !matches!(d / heads, 32 | 64 | 128) {
            return Err(("num_heads", format!("is {heads}: hidden_size {d} / {heads} is not 32, 64 or 128")));
        }
        let (d, heads) = (self.reward_hidden_size, self.reward_heads);
        if d % heads != 0 {
            return Err((
                "reward_heads",
                format!("is {heads}, which does not divide reward_hidden_size {d}"),
            ));
        }
        Ok(())
    }

    fn check_constants(&self) -> Result<(), (&'static str, String)> {
        if self.format_version != 1 {
            return Err(("format_version", format!("is {}, this version reads 1", self.format_version)));
        }
        for (key, micros) in
            [("bid_unit_micros", self.bid_unit_micros), ("billable_unit_micros", self.billable_unit_micros)]
        {
            if micros == 0 || micros > Micros::MAX.0 {
                return Err((key, format!("is {micros}, expected 1 to 2^43")));
            }
        }
        let ranges = [
            ("rms_eps", self.rms_eps, 0.0..=1.0, "0 to 1"),
            ("rope_theta", self.rope_theta, f64::MIN_POSITIVE..=1e30, "above 0, to 1e30"),
            ("alpha", self.alpha, 0.0..=16.0, "0 to 16"),
            ("beta", self.beta, 0.0..=1e12, "0 to 1e12"),
        ];
        for (key, value, range, expected) in ranges {
            if !range.contains(&value) {
                return Err((key, format!("is {value}, expected {expected}")));
            }
        }
        Ok(())
    }

    /// Width of one head of the encoder and the decoders.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.num_heads
    }

    /// Width of a creative's raw embedding.
    pub fn creative_embedding_size(&self) -> usize {
        self.creative_embedding_size.unwrap_or(self.item_embedding_size)
    }

    /// V: size of the vocabulary, `8 + (C_p + C_c) W`.
    pub fn vocabulary_size(&self) -> usize {
        SPECIAL_TOKENS.len() + (self.poi_code_layers + self.creative_code_layers) * self.codebook_size
    }

    /// Token id of code `code` in layer `layer` of a POI: `<p{layer}_{code}>`.
    pub fn poi_token(&self, layer: usize, code: u16) -> usize {
        SPECIAL_TOKENS.len() + layer * self.codebook_size + usize::from(code)
    }

    /// Token id of code `code` in layer `layer` of a creative: `<c{layer}_{code}>`.
    pub fn creative_token(&self, layer: usize, code: u16) -> usize {
        self.poi_token(self.poi_code_layers + layer, code)
    }

    /// Tokens of one behaviour: `[SEP]`, the POI's codes, the creative's codes.
    pub fn tokens_per_behavior(&self) -> usize {
        1 + self.poi_code_layers + self.creative_code_layers
    }

    /// Encoder tokens of a history of `behaviors` entries.
    pub fn history_tokens(&self, behaviors: usize) -> usize {
        1 + behaviors.min(self.history_len) * self.tokens_per_behavior()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(text: &[u8]) -> Result<ModelConfig, LoadError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(CONFIG_FILE);
        std::fs::write(&path, text).unwrap();
        ModelConfig::read(&path)
    }

    /// Key and message of what reading says of `tiny` with `key` set to `value` (or removed, for null).
    fn fault(key: &str, value: Value) -> (String, String) {
        let mut json = serde_json::to_value(ModelConfig::of_size(ModelSize::Tiny)).unwrap();
        match value {
            Value::Null => drop(json.as_object_mut().unwrap().remove(key)),
            value => json[key] = value,
        }
        match read(json.to_string().as_bytes()) {
            Err(LoadError::Config { key, message, .. }) => (key, message),
            other => panic!("{key}: {other:?}"),
        }
    }

    #[test]
    fn every_size_is_valid_and_comes_back() {
        let currency = Currency::try_from("EUR".to_owned()).ok();
        let sizes = [ModelSize::Tiny, ModelSize::Small, ModelSize::Base, ModelSize::Large];
        for (size, currency) in sizes.into_iter().zip([None, currency, None, currency]) {
            let config = ModelConfig { currency, ..ModelConfig::of_size(size) };
            let text = serde_json::to_vec(&config).unwrap();
            assert_eq!(read(&text).unwrap(), config);
        }
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let mut json = serde_json::to_value(ModelConfig::of_size(ModelSize::Tiny)).unwrap();
        let optional = [
            "format_version",
            "context_features",
            "behavior_features",
            "quantizer_size",
            "quantizer_hidden",
            "bid_unit_micros",
            "billable_unit_micros",
            "rms_eps",
            "rope_theta",
            "alpha",
            "beta",
        ];
        for key in optional {
            json.as_object_mut().unwrap().remove(key).unwrap();
        }
        let config = read(json.to_string().as_bytes()).unwrap();
        assert_eq!(
            (config.rms_eps, config.rope_theta, config.alpha, config.beta),
            (1e-6, 10_000.0, 1.2, 2.0)
        );
        assert_eq!((config.bid_unit_micros, config.billable_unit_micros), (1_000_000, 1));
        assert_eq!((config.quantizer_size, config.creative_embedding_size()), (None, 64));
        assert!(config.context_features.is_empty() && config.behavior_features.is_empty());
    }

    #[test]
    fn faults_name_the_key_and_what_was_expected() {
        for (key, value, expected) in [
            ("list_len", Value::Null, "missing field"),
            ("list_len", json!(0), "is 0, expected 1 to 1024"),
            ("list_len", json!(-1), "invalid value"),
            ("list_len", json!("10"), "invalid type"),
            ("list_len", json!(1e3), "invalid type"),
            ("format_version", json!(2), "this version reads 1"),
            ("num_heads", json!(3), "is not 32, 64 or 128"),
            ("reward_heads", json!(5), "does not divide reward_hidden_size 64"),
            ("codebook_size", json!(65_537), "expected 2 to 65536"),
            ("quantizer_hidden", json!([64, 0]), "holds 0"),
            ("context_features", json!({"hour": 0}), "\"hour\" has 0 values"),
            ("bid_unit_micros", json!(0), "is 0"),
            ("billable_unit_micros", json!(1_u64 << 44), "expected 1 to 2^43"),
            ("currency", json!("dollars"), "ISO 4217"),
            ("alpha", json!(16.5), "expected 0 to 16"),
            ("beta", json!(-1), "is -1, expected 0"),
            ("rope_theta", json!(0), "is 0, expected above 0, to 1e30"),
        ] {
            let (named, message) = fault(key, value);
            assert_eq!(named, key);
            assert!(message.contains(expected), "{key}: {message}, expected {expected:?}");
        }
        assert_eq!(fault("context_features", json!({"hour": "many"})).0, "context_features.hour");
        assert_eq!(fault("hidden_sise", json!(1)).0, "hidden_sise");
    }

    #[test]
    fn text_that_is_no_configuration_is_refused() {
        let repeated = br#"{"history_len": 1, "history_len": 1}"#;
        let nan = br#"{"alpha": NaN}"#;
        let infinite = br#"{"alpha": 1e999}"#;
        let twice = br#"{"context_features": {"a": 1, "a": 2}}"#;
        for (text, expected) in [
            (&repeated[..], "duplicate field"),
            (nan, "expected"),
            (infinite, "out of range"),
            (twice, "occurs twice"),
            (b"[1, 2]", "not a JSON object"),
            (b"", "EOF"),
            (b"\xff\xfe", "not a JSON object"),
            (b"{\"\xff\": 1}", ""),
        ] {
            let Err(LoadError::Config { message, .. }) = read(text) else { panic!("{text:?}") };
            assert!(message.contains(expected), "{message}, expected {expected:?}");
        }
        let mut text = serde_json::to_vec(&ModelConfig::of_size(ModelSize::Tiny)).unwrap();
        text.extend(b" {}");
        assert!(matches!(read(&text), Err(LoadError::Config { .. })), "more than one value");
    }
}
