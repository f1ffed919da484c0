//! The networks: encoder, POI decoder, creative decoder, reward model and payment model, one vector at a time.

use std::collections::HashMap;

use super::files::{Item, Model, Tensor};
use super::request::Request;

pub type Vector = Vec<f64>;

const SEP: usize = 1;
const BOI: usize = 2;
const BOC: usize = 3;
const CTX: usize = 4;
const SPECIALS: usize = 8;

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

pub fn add(a: &mut [f64], b: &[f64]) {
    assert_eq!(a.len(), b.len());
    for (x, y) in a.iter_mut().zip(b) {
        *x += y;
    }
}

/// x W^T.
pub fn linear(weight: &Tensor, x: &[f64]) -> Vector {
    assert_eq!(weight.shape.len(), 2);
    (0..weight.shape[0]).map(|out| dot(weight.row(out), x)).collect()
}

pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

pub fn rms_norm(weight: &Tensor, eps: f64, x: &[f64]) -> Vector {
    let mean_square = dot(x, x) / x.len() as f64;
    x.iter().zip(&weight.data).map(|(x, w)| x / (mean_square + eps).sqrt() * w).collect()
}

/// Rotates the pairs (i, i + head/2) of every head by position * base^(-2 i / head).
pub fn rotate(x: &mut [f64], heads: usize, position: usize, base: f64) {
    let size = x.len() / heads;
    for head in x.chunks_mut(size) {
        for i in 0..size / 2 {
            let angle = position as f64 * base.powf(-2.0 * i as f64 / size as f64);
            let (a, b) = (head[i], head[i + size / 2]);
            head[i] = a * angle.cos() - b * angle.sin();
            head[i + size / 2] = b * angle.cos() + a * angle.sin();
        }
    }
}

/// Softmax attention of one query over all the keys given, head by head, with scale 1/sqrt(head size).
pub fn attend(query: &[f64], keys: &[Vector], values: &[Vector], heads: usize) -> Vector {
    let size = query.len() / heads;
    let mut out = Vec::new();
    for head in 0..heads {
        let part = head * size..(head + 1) * size;
        let scores: Vec<f64> = keys
            .iter()
            .map(|key| dot(&query[part.clone()], &key[part.clone()]) / (size as f64).sqrt())
            .collect();
        let top = scores.iter().cloned().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - top).exp()).sum();
        for i in part {
            let weighted = scores.iter().zip(values).map(|(s, v)| (s - top).exp() / sum * v[i]);
            out.push(weighted.sum());
        }
    }
    out
}

/// Keys and values of one cross-attention over S_e.
struct Memory {
    keys: Vec<Vector>,
    values: Vec<Vector>,
}

/// Which earlier positions a position sees.
#[derive(Clone, Copy, PartialEq)]
enum Mask {
    Full,
    Causal,
}

/// One network of a model, over one request.
pub struct Network<'m> {
    model: &'m Model,
    /// S_e, [n, d].
    pub encoder: Vec<Vector>,
    memories: HashMap<String, Memory>,
    /// Hidden states of token prefixes already decoded: a pure function of the prefix.
    decoded: HashMap<Vec<usize>, Vector>,
}

impl<'m> Network<'m> {
    /// Encodes the request.
    pub fn new(model: &'m Model, request: &Request) -> Self {
        let mut network =
            Self { model, encoder: Vec::new(), memories: HashMap::new(), decoded: HashMap::new() };
        network.encoder = network.encode(request);
        let mut blocks: Vec<String> =
            (0..model.config.decoder_layers).map(|l| format!("decoder.{l}")).collect();
        blocks.push("creative.block".into());
        for block in blocks {
            let keys = network.project(&format!("{block}.cross_attn.k_proj"), &network.encoder);
            let values = network.project(&format!("{block}.cross_attn.v_proj"), &network.encoder);
            network.memories.insert(block, Memory { keys, values });
        }
        network
    }

    fn weight(&self, name: &str) -> &'m Tensor {
        self.model.tensor(&format!("{name}.weight"))
    }

    fn project(&self, name: &str, xs: &[Vector]) -> Vec<Vector> {
        xs.iter().map(|x| linear(self.weight(name), x)).collect()
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vector {
        rms_norm(self.weight(name), self.model.config.rms_eps, x)
    }

    fn norms(&self, name: &str, xs: &[Vector]) -> Vec<Vector> {
        xs.iter().map(|x| self.norm(name, x)).collect()
    }

    fn embed(&self, token: usize) -> Vector {
        self.weight("embed").row(token).to_vec()
    }

    pub fn poi_token(&self, layer: usize, code: u16) -> usize {
        SPECIALS + layer * self.model.config.codebook_size + code as usize
    }

    pub fn creative_token(&self, layer: usize, code: u16) -> usize {
        let config = &self.model.config;
        SPECIALS
            + config.poi_code_layers * config.codebook_size
            + layer * config.codebook_size
            + code as usize
    }

    // ---- blocks ----

    /// x + SelfAttention(norm x), with rotary positions where the network has them.
    fn self_attention(
        &self,
        norm: &str,
        attn: &str,
        xs: &mut [Vector],
        heads: usize,
        mask: Mask,
        rotary: bool,
    ) {
        let normed = self.norms(norm, xs);
        let mut queries = self.project(&format!("{attn}.q_proj"), &normed);
        let mut keys = self.project(&format!("{attn}.k_proj"), &normed);
        let values = self.project(&format!("{attn}.v_proj"), &normed);
        if rotary {
            for position in 0..xs.len() {
                rotate(&mut queries[position], heads, position, self.model.config.rope_theta);
                rotate(&mut keys[position], heads, position, self.model.config.rope_theta);
            }
        }
        for (position, x) in xs.iter_mut().enumerate() {
            let seen = if mask == Mask::Causal { position + 1 } else { keys.len() };
            let mixed = attend(&queries[position], &keys[..seen], &values[..seen], heads);
            add(x, &linear(self.weight(&format!("{attn}.o_proj")), &mixed));
        }
    }

    /// x + CrossAttention(norm x, S_e).
    fn cross_attention(&self, block: &str, xs: &mut [Vector]) {
        let memory = &self.memories[block];
        for x in xs {
            let normed = self.norm(&format!("{block}.cross_attn_norm"), x);
            let query = linear(self.weight(&format!("{block}.cross_attn.q_proj")), &normed);
            let mixed = attend(&query, &memory.keys, &memory.values, self.model.config.num_heads);
            add(x, &linear(self.weight(&format!("{block}.cross_attn.o_proj")), &mixed));
        }
    }

    /// x + down(silu(gate x) * up x) of the normed x.
    fn feed_forward(&self, block: &str, xs: &mut [Vector]) {
        for x in xs {
            let normed = self.norm(&format!("{block}.ffn_norm"), x);
            let gate = linear(self.weight(&format!("{block}.ffn.gate_proj")), &normed);
            let up = linear(self.weight(&format!("{block}.ffn.up_proj")), &normed);
            let inner: Vector = gate.iter().zip(&up).map(|(g, u)| g * sigmoid(*g) * u).collect();
            add(x, &linear(self.weight(&format!("{block}.ffn.down_proj")), &inner));
        }
    }

    fn encoder_block(&self, block: &str, xs: &mut [Vector], heads: usize, rotary: bool) {
        self.self_attention(
            &format!("{block}.attn_norm"),
            &format!("{block}.attn"),
            xs,
            heads,
            Mask::Full,
            rotary,
        );
        self.feed_forward(block, xs);
    }

    fn decoder_block(&self, block: &str, xs: &mut [Vector]) {
        let heads = self.model.config.num_heads;
        let (norm, attn) = (format!("{block}.self_attn_norm"), format!("{block}.self_attn"));
        self.self_attention(&norm, &attn, xs, heads, Mask::Causal, true);
        self.cross_attention(block, xs);
        self.feed_forward(block, xs);
    }

    // ---- encoder ----

    fn encode(&self, request: &Request) -> Vec<Vector> {
        let mut first = self.embed(CTX);
        for (name, value) in &request.context {
            add(&mut first, self.weight(&format!("context_features.{name}")).row(*value));
        }
        let mut xs = vec![first];
        for behavior in &request.history {
            let mut separator = self.embed(SEP);
            for (name, value) in &behavior.features {
                add(&mut separator, self.weight(&format!("behavior_features.{name}")).row(*value));
            }
            xs.push(separator);
            for (layer, &code) in behavior.codes.iter().enumerate() {
                xs.push(self.embed(self.poi_token(layer, code)));
            }
            for (layer, &code) in behavior.creative_codes.iter().enumerate() {
                xs.push(self.embed(self.creative_token(layer, code)));
            }
        }
        for l in 0..self.model.config.encoder_layers {
            self.encoder_block(&format!("encoder.{l}"), &mut xs, self.model.config.num_heads, true);
        }
        self.norms("encoder.norm", &xs)
    }

    // ---- POI decoder ----

    /// The decoder's tokens for the codes of items one after another.
    fn poi_inputs(&self, codes: &[u16]) -> Vec<usize> {
        let layers = self.model.config.poi_code_layers;
        let tokens = codes.iter().enumerate().map(|(t, &code)| self.poi_token(t % layers, code));
        std::iter::once(BOI).chain(tokens).collect()
    }

    /// h_t, t the number of codes given: the hidden state at the position whose input is the last code, or
    /// `[BOI]` where there is none.
    pub fn hidden(&mut self, codes: &[u16]) -> Vector {
        let tokens = self.poi_inputs(codes);
        if let Some(hidden) = self.decoded.get(&tokens) {
            return hidden.clone();
        }
        let mut xs: Vec<Vector> = tokens.iter().map(|&token| self.embed(token)).collect();
        for l in 0..self.model.config.decoder_layers {
            self.decoder_block(&format!("decoder.{l}"), &mut xs);
        }
        let hidden = self.norm("decoder.norm", xs.last().unwrap());
        self.decoded.insert(tokens, hidden.clone());
        hidden
    }

    /// Logits [W] of the code that comes after those given.
    pub fn poi_logits(&mut self, codes: &[u16]) -> Vector {
        let hidden = self.hidden(codes);
        let width = self.model.config.codebook_size;
        let layer = codes.len() % self.model.config.poi_code_layers;
        let head = self.weight("poi_head");
        (layer * width..(layer + 1) * width).map(|row| dot(head.row(row), &hidden)).collect()
    }

    // ---- creative decoder ----

    /// Logits [W] of the creative code that comes after `prefix`, for the item whose last code's hidden state
    /// is `hidden`.
    pub fn creative_logits(&self, hidden: &[f64], prefix: &[u16]) -> Vector {
        let mut xs = Vec::new();
        for position in 0..=prefix.len() {
            let token = match position {
                0 => BOC,
                _ => self.creative_token(position - 1, prefix[position - 1]),
            };
            let mut joined = self.norm("creative.hidden_norm", hidden);
            joined.extend(self.norm("creative.embed_norm", &self.embed(token)));
            xs.push(linear(self.weight("creative.proj"), &joined));
        }
        self.decoder_block("creative.block", &mut xs);
        let last = self.norm("creative.norm", xs.last().unwrap());
        let (width, layer) = (self.model.config.codebook_size, prefix.len());
        let head = self.weight("creative_head");
        (layer * width..(layer + 1) * width).map(|row| dot(head.row(row), &last)).collect()
    }

    // ---- reward and payment ----

    /// f_i of each filled slot; slots are (item, codes of the chosen creative).
    pub fn reward_features(&self, slots: &[(&Item, &[u16])]) -> Vec<Vector> {
        let width = self.weight("embed").shape[1];
        let mut mean = vec![0.0; width];
        for row in &self.encoder {
            add(&mut mean, row);
        }
        mean.iter_mut().for_each(|x| *x /= self.encoder.len() as f64);
        let mut xs = Vec::new();
        for (i, (item, creative)) in slots.iter().enumerate() {
            let (mut poi, mut image) = (vec![0.0; width], vec![0.0; width]);
            for (layer, &code) in item.codes.iter().enumerate() {
                add(&mut poi, &self.embed(self.poi_token(layer, code)));
            }
            for (layer, &code) in creative.iter().enumerate() {
                add(&mut image, &self.embed(self.creative_token(layer, code)));
            }
            let input = [poi, image, mean.clone(), item.embedding.clone()].concat();
            let mut x = linear(self.weight("reward.input"), &input);
            add(&mut x, &self.model.tensor("reward.input.bias").data);
            add(&mut x, self.weight("reward.position").row(i));
            xs.push(x);
        }
        for l in 0..self.model.config.reward_layers {
            self.encoder_block(&format!("reward.{l}"), &mut xs, self.model.config.reward_heads, false);
        }
        self.norms("reward.norm", &xs)
    }

    /// An MLP of four layers with ReLU between them, one number out.
    fn mlp(&self, name: &str, input: Vector) -> f64 {
        let mut x = input;
        for layer in 0..4 {
            if layer > 0 {
                x.iter_mut().for_each(|x| *x = x.max(0.0));
            }
            x = linear(self.weight(&format!("{name}.{layer}")), &x);
            add(&mut x, &self.model.tensor(&format!("{name}.{layer}.bias")).data);
        }
        assert_eq!(x.len(), 1);
        x[0]
    }

    /// One tower's probability for slot `i` of a list of features.
    pub fn tower(&self, name: &str, features: &[Vector], i: usize) -> f64 {
        let mut sum = vec![0.0; features[i].len()];
        for f in features {
            add(&mut sum, f);
        }
        sigmoid(self.mlp(&format!("reward.towers.{name}"), [features[i].clone(), sum].concat()))
    }

    /// The payment network's rate: from f_i, ln(1 + b) of the K - 1 other slots, and z_i * pctr_poi_i.
    pub fn payment_rate(&self, feature: &[f64], others: &[f64], z_pctr: f64) -> f64 {
        sigmoid(self.mlp("payment.mlp", [feature, others, &[z_pctr]].concat()))
    }
}
