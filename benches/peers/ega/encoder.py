"""The encoder over a padded batch (Eq. 14).

A batch of full histories needs no mask, and so takes the fastest attention.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bidslate_train.config import CTX, SEP, SPECIALS
from bidslate_train.model import Histories

from . import ops
from .sizes import Sizes
from .weights import Encoding, Weights


class Encoded(NamedTuple):
    """What the rest of the model reads of the histories."""

    mean: Tensor  # [B, d] f32: of S_e
    bias: Tensor | None  # [B, 1, 1, n]: -inf at padded rows; none where no row is padded
    keys: Tensor  # [L_d + 1, B, H, n, h]
    values: Tensor  # the same


class Encoder:
    """The encoder for batches of some sizes."""

    def __init__(self, weights: Weights, sizes: Sizes) -> None:
        c = weights.config
        self.weights, self.sizes = weights, sizes
        self.tokens = 1 + c.poi_code_layers + c.creative_code_layers
        rows = 1 + sizes.behaviors * self.tokens
        head = c.hidden_size // c.num_heads
        self.cos, self.sin = ops.angles(rows, head, c.rope_theta, weights.embed.device)
        codes = torch.arange(self.tokens - 1, device=weights.embed.device) * c.codebook_size
        self.first_tokens = SPECIALS + codes

    def embed(self, h: Histories) -> Tensor:
        """Input rows [B, n, d] f32."""
        w = self.weights
        tokens = torch.cat([h.poi_codes, h.creative_codes], -1) + self.first_tokens
        context = w.embed[CTX] + _features(w.context, h.context)
        separators = w.embed[SEP] + _features(w.behavior, h.features)
        shape = (*h.poi_codes.shape[:2], w.embed.shape[1])
        behaviors = torch.cat([separators.expand(shape).unsqueeze(2), w.embed[tokens]], 2)
        return torch.cat([context.expand(shape[0], -1).unsqueeze(1), behaviors.flatten(1, 2)], 1)

    def __call__(self, h: Histories) -> Encoded:
        """The histories of a batch, encoded."""
        w, c = self.weights, self.weights.config
        x = self.embed(h)
        count = (1 + h.length * self.tokens).unsqueeze(1)
        real = torch.arange(x.shape[1], device=x.device) < count
        bias = None if self.sizes.full else _bias(real, w.dtype)
        for block in w.encoder:
            x = encode_block(block, x, c.num_heads, bias, c.rms_eps, (self.cos, self.sin))
        states = ops.rms_norm(x, w.encoder_norm, c.rms_eps)
        mean = (states * real.unsqueeze(-1)).sum(1) / count
        both = ops.linear(states, w.cross_keys_values)
        both = both.unflatten(-1, (len(w.decoder) + 1, 2, c.num_heads, -1)).permute(3, 2, 0, 4, 1, 5)
        keys, values = both.contiguous()
        return Encoded(mean, bias, keys, values)


def encode_block(
    block: Encoding,
    x: Tensor,
    heads: int,
    bias: Tensor | None,
    eps: float,
    angles: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """One block of full attention over x [B, n, d]; `angles` turn queries and keys."""
    a = block.attention
    joint = ops.linear(ops.rms_norm(x, a.norm, eps), a.qkv)
    q, k, v = (ops.heads(part, heads) for part in joint.chunk(3, -1))
    if angles is not None:
        q, k = ops.rotate(q, *angles), ops.rotate(k, *angles)
    x = x + ops.sums(ops.joined(ops.attend(q, k, v, bias)), a.out)
    f = block.ffn
    return x + ops.swiglu(ops.rms_norm(x, f.norm, eps), f.gate_up, f.down)


def _bias(real: Tensor, dtype: torch.dtype) -> Tensor:
    zeros = torch.zeros(real.shape, dtype=dtype, device=real.device)
    return zeros.masked_fill(~real, -torch.inf)[:, None, None]


def _features(tables: dict[str, Tensor], values: dict[str, Tensor]) -> Tensor | float:
    """The sum of the features' rows, none where a value is -1."""
    parts = [tables[name][value.clamp(min=0)] * (value >= 0).unsqueeze(-1) for name, value in values.items()]
    return sum(parts, 0.0)
