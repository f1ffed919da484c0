"""The weights as the strong version reads them: products that share their input are one product."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from bidslate_train.blocks import Attention, DecoderBlock, EncoderBlock, Ffn, RmsNorm
from bidslate_train.catalog import Catalog
from bidslate_train.config import BOC, SPECIALS, Config
from bidslate_train.model import TOWERS, Model

from . import ops


@dataclass
class SelfAttention:
    """Norm, joint projection of queries, keys and values, output projection."""

    norm: Tensor  # [d] f32
    qkv: Tensor  # [3 d, d]
    out: Tensor  # [d, d]

    @classmethod
    def of(cls, norm: RmsNorm, attention: Attention, dtype: torch.dtype) -> SelfAttention:
        """Those of a module."""
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        qkv = torch.cat([part.weight for part in parts])
        return cls(norm.weight, qkv.to(dtype), attention.o_proj.weight.to(dtype))


@dataclass
class FeedForward:
    """Norm and SwiGLU."""

    norm: Tensor  # [d] f32
    gate_up: Tensor  # [2 d_ff, d]
    down: Tensor  # [d, d_ff]

    @classmethod
    def of(cls, norm: RmsNorm, ffn: Ffn, dtype: torch.dtype) -> FeedForward:
        """Those of a module."""
        gate_up = torch.cat([ffn.gate_proj.weight, ffn.up_proj.weight])
        return cls(norm.weight, gate_up.to(dtype), ffn.down_proj.weight.to(dtype))


@dataclass
class Encoding:
    """A block of an encoder."""

    attention: SelfAttention
    ffn: FeedForward

    @classmethod
    def of(cls, block: EncoderBlock, dtype: torch.dtype) -> Encoding:
        """That of a module."""
        attention = SelfAttention.of(block.attn_norm, block.attn, dtype)
        return cls(attention, FeedForward.of(block.ffn_norm, block.ffn, dtype))


@dataclass
class Decoding:
    """A block of a decoder; keys and values of the encoder's output are projected for all blocks at once."""

    attention: SelfAttention
    cross_norm: Tensor  # [d] f32
    cross_query: Tensor  # [d, d]
    cross_out: Tensor  # [d, d]
    ffn: FeedForward

    @classmethod
    def of(cls, block: DecoderBlock, dtype: torch.dtype) -> Decoding:
        """That of a module."""
        return cls(
            SelfAttention.of(block.self_attn_norm, block.self_attn, dtype),
            block.cross_attn_norm.weight,
            block.cross_attn.q_proj.weight.to(dtype),
            block.cross_attn.o_proj.weight.to(dtype),
            FeedForward.of(block.ffn_norm, block.ffn, dtype),
        )


@dataclass
class Towers:
    """The three towers of the reward model as one batch of three: weights [3, in, out], biases [3, 1, out], f32."""

    layers: list[tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, model: Model) -> Towers:
        """Those of a model."""
        mlps = [model.reward["towers"][name] for name in TOWERS]
        return cls(
            [
                (
                    torch.stack([mlp[str(i)].weight.t() for mlp in mlps]).contiguous(),
                    torch.stack([mlp[str(i)].bias for mlp in mlps]).unsqueeze(1),
                )
                for i in range(len(mlps[0]))
            ]
        )


@dataclass
class Weights:
    """All of a model, and what of it the catalog's items and creatives always come to."""

    config: Config
    dtype: torch.dtype
    embed: Tensor  # [V, d]
    context: dict[str, Tensor]
    behavior: dict[str, Tensor]
    encoder: list[Encoding]
    encoder_norm: Tensor
    decoder: list[Decoding]
    decoder_norm: Tensor
    cross_keys_values: Tensor  # [(L_d + 1) 2 d, d]: of the decoder's blocks, then the creative decoder's
    poi_head: Tensor  # [C_p, W, d]
    creative: Decoding
    creative_hidden_norm: Tensor
    creative_hidden: Tensor  # [d, d]: the half of creative.proj that reads a hidden state
    creative_start: Tensor  # [d] f32: what the other half makes of [BOC]
    creative_inputs: Tensor  # [C_c W, d] f32: and of every code
    creative_norm: Tensor
    creative_head: Tensor  # [C_c, W, d]
    reward_interest: Tensor  # [d_r, d] f32
    reward_item: Tensor  # [items, d_r] f32: reward.input of an item's codes and raw embedding, and its bias
    reward_creative: Tensor  # [creatives, d_r] f32: of a creative's codes
    reward_position: Tensor  # [K, d_r] f32
    reward_blocks: list[Encoding]
    reward_norm: Tensor
    towers: Towers
    payment: list[tuple[Tensor, Tensor]]
    item_codes: Tensor  # [items, C_p]
    item_bid: Tensor  # [items] micros
    item_reserve: Tensor  # [items] micros
    item_is_ad: Tensor  # [items] bool
    first_creative: Tensor  # [items + 1]
    creative_codes: Tensor  # [creatives, C_c]

    @classmethod
    @torch.no_grad()
    def of(cls, model: Model, catalog: Catalog, dtype: torch.dtype, device: torch.device) -> Weights:
        """Those of a model in f32: products of encoder and decoders in `dtype`, the rest in f32."""
        c = model.config
        model = copy.deepcopy(model).eval().to(device)

        def table(values: object) -> Tensor:
            return torch.as_tensor(values, device=device)

        codes, creative_codes = table(catalog.codes), table(catalog.creative_codes)
        blocks = [model.decoder[str(layer)] for layer in range(c.decoder_layers)]
        crosses = [block.cross_attn for block in (*blocks, model.creative["block"])]
        hidden, embedded = model.creative["proj"].weight.chunk(2, 1)
        first = SPECIALS + c.poi_code_layers * c.codebook_size
        inputs = ops.sums(model.creative["embed_norm"](model.embed.weight), embedded.to(dtype))
        poi, creative, interest, raw = model.reward["input"].weight.split(
            [c.hidden_size, c.hidden_size, c.hidden_size, c.item_embedding_size], 1
        )
        items = model.embed(model.poi_tokens(codes)).sum(1) @ poi.t()
        items = items + table(catalog.embedding) @ raw.t() + model.reward["input"].bias
        return cls(
            config=c,
            dtype=dtype,
            embed=model.embed.weight,
            context={name: part.weight for name, part in model.context_features.items()},
            behavior={name: part.weight for name, part in model.behavior_features.items()},
            encoder=[Encoding.of(model.encoder[str(i)], dtype) for i in range(c.encoder_layers)],
            encoder_norm=model.encoder["norm"].weight,
            decoder=[Decoding.of(block, dtype) for block in blocks],
            decoder_norm=model.decoder["norm"].weight,
            cross_keys_values=torch.cat([p.weight for a in crosses for p in (a.k_proj, a.v_proj)]).to(dtype),
            poi_head=model.poi_head.weight.view(c.poi_code_layers, c.codebook_size, -1).to(dtype),
            creative=Decoding.of(model.creative["block"], dtype),
            creative_hidden_norm=model.creative["hidden_norm"].weight,
            creative_hidden=hidden.to(dtype).contiguous(),
            creative_start=inputs[BOC],
            creative_inputs=inputs[first:].contiguous(),
            creative_norm=model.creative["norm"].weight,
            creative_head=model.creative_head.weight.view(c.creative_code_layers, c.codebook_size, -1).to(
                dtype
            ),
            reward_interest=interest.contiguous(),
            reward_item=items,
            reward_creative=model.embed(model.creative_tokens(creative_codes)).sum(1) @ creative.t(),
            reward_position=model.reward["position"].weight,
            reward_blocks=[Encoding.of(model.reward[str(i)], torch.float32) for i in range(c.reward_layers)],
            reward_norm=model.reward["norm"].weight,
            towers=Towers.of(model),
            payment=[(layer.weight, layer.bias) for layer in model.payment["mlp"].values()],
            item_codes=codes,
            item_bid=table(catalog.bid_micros),
            item_reserve=table(catalog.reserve_micros),
            item_is_ad=table(catalog.is_ad),
            first_creative=table(catalog.offsets),
            creative_codes=creative_codes,
        )
