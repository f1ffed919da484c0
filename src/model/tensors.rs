//! The tensors of a model: every name and shape that a configuration implies, in one list.
//!
//! The strict check of a weights file, `bidslate init-model` and the documentation all read this list.

use crate::model::config::ModelConfig;

/// Widths of the hidden and output layers of the reward towers and of the payment network.
pub const MLP_SIZES: [usize; 4] = [128, 32, 10, 1];
/// The three towers of the reward model, in the order in which they are reported.
pub const TOWERS: [&str; 3] = ["pctr_poi", "pctr_creative", "pcvr"];
/// The reward model's feed-forward layers are this many times as wide as the reward model.
pub const REWARD_FFN_FACTOR: usize = 3;

/// Name and shape of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name in the safetensors file.
    pub name: String,
    /// Sizes of its axes, row-major; a linear layer is `[out, in]`.
    pub shape: Vec<usize>,
}

/// What is quantized into semantic ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuantizerKind {
    /// Items, by `item_embedding_size` numbers.
    Poi,
    /// Creatives, by `creative_embedding_size` numbers.
    Creative,
}

impl QuantizerKind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Poi, Self::Creative];

    /// What the names of its tensors begin with: `quantizer.poi` or `quantizer.creative`.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Poi => "quantizer.poi",
            Self::Creative => "quantizer.creative",
        }
    }

    /// Width of the raw embedding that is quantized.
    pub fn embedding_size(self, config: &ModelConfig) -> usize {
        match self {
            Self::Poi => config.item_embedding_size,
            Self::Creative => config.creative_embedding_size(),
        }
    }

    /// Residual code layers: C_p or C_c.
    pub fn code_layers(self, config: &ModelConfig) -> usize {
        match self {
            Self::Poi => config.poi_code_layers,
            Self::Creative => config.creative_code_layers,
        }
    }
}

/// Which quantizers have an encoder in front of their codebooks. The others quantize the raw embedding.
///
/// The configuration leaves one case open: with no hidden layer the encoder is either one linear layer or the
/// identity, and the file decides by holding the layer or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QuantizerEncoders {
    /// Items have an encoder.
    pub poi: bool,
    /// Creatives have an encoder.
    pub creative: bool,
}

impl QuantizerEncoders {
    /// The encoders of a file that holds `names`.
    ///
    /// Where the identity is impossible (a hidden layer is configured, or d_q is not the embedding's width)
    /// the encoder is expected whatever the file holds, so that its absence shows as missing tensors.
    pub fn of<'a>(config: &ModelConfig, names: impl Iterator<Item = &'a str> + Clone) -> Self {
        let has = |kind: QuantizerKind| {
            let encoder = format!("{}.encoder.", kind.prefix());
            config.quantizer_size.is_some_and(|size| {
                !config.quantizer_hidden.is_empty()
                    || size != kind.embedding_size(config)
                    || names.clone().any(|name| name.starts_with(&encoder))
            })
        };
        Self { poi: has(QuantizerKind::Poi), creative: has(QuantizerKind::Creative) }
    }

    /// Whether `kind` has an encoder.
    pub fn has(self, kind: QuantizerKind) -> bool {
        match kind {
            QuantizerKind::Poi => self.poi,
            QuantizerKind::Creative => self.creative,
        }
    }
}

/// Every tensor of a model of `config` (one that passes its check), in the order of the computation.
pub fn expected_tensors(config: &ModelConfig, encoders: QuantizerEncoders) -> Vec<TensorSpec> {
    let mut list = List(Vec::new());
    list.embeddings(config);
    let (d, ffn) = (config.hidden_size, config.ffn_size);
    for layer in 0..config.encoder_layers {
        list.encoder_block(&format!("encoder.{layer}"), d, ffn);
    }
    list.norm("encoder.norm", d);
    for layer in 0..config.decoder_layers {
        list.decoder_block(&format!("decoder.{layer}"), d, ffn);
    }
    list.norm("decoder.norm", d);
    list.push("poi_head.weight", [config.poi_code_layers * config.codebook_size, d]);
    list.creative(config);
    list.reward(config);
    // f_i, ln(1 + b) of the other K - 1 slots, z q.
    list.mlp("payment.mlp", config.reward_hidden_size + config.list_len, &MLP_SIZES);
    if let Some(size) = config.quantizer_size {
        for kind in QuantizerKind::ALL {
            list.quantizer(config, kind, size, encoders.has(kind));
        }
    }
    list.0
}

struct List(Vec<TensorSpec>);

impl List {
    fn push(&mut self, name: impl Into<String>, shape: impl Into<Vec<usize>>) {
        self.0.push(TensorSpec { name: name.into(), shape: shape.into() });
    }

    fn norm(&mut self, name: &str, size: usize) {
        self.push(format!("{name}.weight"), [size]);
    }

    fn embeddings(&mut self, config: &ModelConfig) {
        self.push("embed.weight", [config.vocabulary_size(), config.hidden_size]);
        for (name, &size) in &config.context_features {
            self.push(format!("context_features.{name}.weight"), [size, config.hidden_size]);
        }
        for (name, &size) in &config.behavior_features {
            self.push(format!("behavior_features.{name}.weight"), [size, config.hidden_size]);
        }
    }

    fn attention(&mut self, prefix: &str, size: usize) {
        for projection in ["q", "k", "v", "o"] {
            self.push(format!("{prefix}.{projection}_proj.weight"), [size, size]);
        }
    }

    fn feed_forward(&mut self, prefix: &str, size: usize, ffn: usize) {
        self.norm(&format!("{prefix}.ffn_norm"), size);
        self.push(format!("{prefix}.ffn.gate_proj.weight"), [ffn, size]);
        self.push(format!("{prefix}.ffn.up_proj.weight"), [ffn, size]);
        self.push(format!("{prefix}.ffn.down_proj.weight"), [size, ffn]);
    }

    fn encoder_block(&mut self, prefix: &str, size: usize, ffn: usize) {
        self.norm(&format!("{prefix}.attn_norm"), size);
        self.attention(&format!("{prefix}.attn"), size);
        self.feed_forward(prefix, size, ffn);
    }

    fn decoder_block(&mut self, prefix: &str, size: usize, ffn: usize) {
        for attention in ["self_attn", "cross_attn"] {
            self.norm(&format!("{prefix}.{attention}_norm"), size);
            self.attention(&format!("{prefix}.{attention}"), size);
        }
        self.feed_forward(prefix, size, ffn);
    }

    fn creative(&mut self, config: &ModelConfig) {
        let d = config.hidden_size;
        self.norm("creative.hidden_norm", d);
        self.norm("creative.embed_norm", d);
        self.push("creative.proj.weight", [d, 2 * d]);
        self.decoder_block("creative.block", d, config.ffn_size);
        self.norm("creative.norm", d);
        self.push("creative_head.weight", [config.creative_code_layers * config.codebook_size, d]);
    }

    fn reward(&mut self, config: &ModelConfig) {
        let width = config.reward_hidden_size;
        self.linear("reward.input", 3 * config.hidden_size + config.item_embedding_size, width);
        self.push("reward.position.weight", [config.list_len, width]);
        for layer in 0..config.reward_layers {
            self.encoder_block(&format!("reward.{layer}"), width, REWARD_FFN_FACTOR * width);
        }
        self.norm("reward.norm", width);
        for tower in TOWERS {
            self.mlp(&format!("reward.towers.{tower}"), 2 * width, &MLP_SIZES);
        }
    }

    fn quantizer(&mut self, config: &ModelConfig, kind: QuantizerKind, size: usize, encoder: bool) {
        if encoder {
            let sizes: Vec<usize> = config.quantizer_hidden.iter().copied().chain([size]).collect();
            self.mlp(&format!("{}.encoder", kind.prefix()), kind.embedding_size(config), &sizes);
        }
        let shape = [kind.code_layers(config), config.codebook_size, size];
        self.push(format!("{}.codebook", kind.prefix()), shape);
    }

    fn linear(&mut self, prefix: &str, inputs: usize, outputs: usize) {
        self.push(format!("{prefix}.weight"), [outputs, inputs]);
        self.push(format!("{prefix}.bias"), [outputs]);
    }

    fn mlp(&mut self, prefix: &str, inputs: usize, outputs: &[usize]) {
        let mut inputs = inputs;
        for (layer, &size) in outputs.iter().enumerate() {
            self.linear(&format!("{prefix}.{layer}"), inputs, size);
            inputs = size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::ModelSize;

    fn shapes(
        config: &ModelConfig,
        encoders: QuantizerEncoders,
    ) -> std::collections::BTreeMap<String, Vec<usize>> {
        let specs = expected_tensors(config, encoders);
        let count = specs.len();
        let map: std::collections::BTreeMap<_, _> = specs.into_iter().map(|s| (s.name, s.shape)).collect();
        assert_eq!(map.len(), count, "a name is listed twice");
        map
    }

    #[test]
    fn the_tiny_model_has_the_documented_tensors() {
        let config = ModelConfig::of_size(ModelSize::Tiny);
        let map = shapes(&config, QuantizerEncoders { poi: true, creative: true });
        // 6 tables, 3 x 9 + 1 encoder, 3 x 14 + 1 decoder, head, creative 3 + 14 + 1 + 1, reward 3 + 9 + 1,
        // 4 MLPs of 8, quantizers 2 x (4 + 1).
        assert_eq!(map.len(), 6 + 28 + 43 + 1 + 19 + 13 + 32 + 10);
        for (name, shape) in [
            ("embed.weight", vec![8 + 6 * 1024, 64]),
            ("context_features.hour.weight", vec![24, 64]),
            ("encoder.2.ffn.down_proj.weight", vec![64, 192]),
            ("decoder.0.cross_attn_norm.weight", vec![64]),
            ("poi_head.weight", vec![3072, 64]),
            ("creative.proj.weight", vec![64, 128]),
            ("creative.block.ffn.gate_proj.weight", vec![192, 64]),
            ("reward.input.weight", vec![64, 3 * 64 + 64]),
            ("reward.position.weight", vec![10, 64]),
            ("reward.0.ffn.up_proj.weight", vec![192, 64]),
            ("reward.towers.pcvr.0.weight", vec![128, 128]),
            ("reward.towers.pctr_creative.3.bias", vec![1]),
            ("payment.mlp.0.weight", vec![128, 64 + 9 + 1]),
            ("payment.mlp.2.weight", vec![10, 32]),
            ("quantizer.creative.encoder.1.weight", vec![32, 64]),
            ("quantizer.poi.codebook", vec![3, 1024, 32]),
        ] {
            assert_eq!(map.get(name), Some(&shape), "{name}");
        }
    }

    #[test]
    fn the_identity_encoder_needs_equal_widths_and_an_empty_file() {
        let mut config = ModelConfig::of_size(ModelSize::Tiny);
        let of = |config: &ModelConfig, names: &[&str]| QuantizerEncoders::of(config, names.iter().copied());
        assert_eq!(of(&config, &[]), QuantizerEncoders { poi: true, creative: true });
        config.quantizer_hidden.clear();
        assert_eq!(of(&config, &[]), QuantizerEncoders { poi: true, creative: true }, "32 is not 64");
        config.quantizer_size = Some(64);
        assert_eq!(of(&config, &[]), QuantizerEncoders::default());
        let linear = of(&config, &["quantizer.poi.encoder.0.weight"]);
        assert_eq!(linear, QuantizerEncoders { poi: true, creative: false });
        let map = shapes(&config, linear);
        assert_eq!(map.get("quantizer.poi.encoder.0.weight"), Some(&vec![64, 64]));
        assert!(!map.contains_key("quantizer.creative.encoder.0.weight"));
        config.quantizer_size = None;
        assert_eq!(of(&config, &["quantizer.poi.encoder.0.weight"]), QuantizerEncoders::default());
    }
}
