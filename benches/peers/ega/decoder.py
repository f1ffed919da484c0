"""One step of the POI decoder for all beams of a batch (Eq. 15), over static caches.

Keys and values of beam slot p at position t stay where they were written, at row t Q + p of the cache. A beam attends
to the rows of its ancestors; a bias hides those of the others. So nothing is reordered when beams are, at the price of
scores that are thrown away.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import ops
from .encoder import Encoded
from .sizes import Sizes
from .weights import Decoding, Weights

Fuse = Callable[[Callable], Callable]
"""What compiles a function, or leaves it as it is."""


def queries_keys_values(
    block: Decoding, x: Tensor, heads: int, eps: float, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of self-attention, each [B, H, Q, h], turned to a position whose angles are [h / 2]."""
    joint = ops.linear(ops.rms_norm(x, block.attention.norm, eps), block.attention.qkv)
    q, k, v = (ops.heads(part, heads) for part in joint.chunk(3, -1))
    return ops.rotate(q, cos, sin), ops.rotate(k, cos, sin), v


def after_self_attention(
    block: Decoding, x: Tensor, mixed: Tensor, heads: int, eps: float
) -> tuple[Tensor, Tensor]:
    """X [B, Q, d] with self-attention added, and the queries of cross-attention."""
    x = x + ops.sums(ops.joined(mixed), block.attention.out)
    return x, ops.heads(ops.linear(ops.rms_norm(x, block.cross_norm, eps), block.cross_query), heads)


def after_cross_attention(block: Decoding, x: Tensor, mixed: Tensor, eps: float) -> Tensor:
    """The block's output [B, Q, d]."""
    x = x + ops.sums(ops.joined(mixed), block.cross_out)
    return x + ops.swiglu(ops.rms_norm(x, block.ffn.norm, eps), block.ffn.gate_up, block.ffn.down)


def ancestors_bias(ancestors: Tensor, dtype: torch.dtype) -> Tensor:
    """The bias [B, 1, Q, T Q] that shows each beam the cache rows of its ancestors [B, Q, T] alone."""
    beams = ancestors.shape[1]
    own = ancestors.unsqueeze(-1) == torch.arange(beams, device=ancestors.device)
    hidden = torch.zeros(own.shape, dtype=dtype, device=own.device).masked_fill(~own, -torch.inf)
    return hidden.flatten(2).unsqueeze(1)


class Decoder:
    """The decoder for batches of some sizes, with its caches."""

    def __init__(self, weights: Weights, sizes: Sizes, fuse: Fuse) -> None:
        c = self.config = weights.config
        self.weights, device = weights, weights.embed.device
        self.positions = c.list_len * c.poi_code_layers + 1
        head = c.hidden_size // c.num_heads
        self.cos, self.sin = ops.angles(self.positions, head, c.rope_theta, device)
        self.beams = sizes.beams
        shape = (c.decoder_layers, sizes.batch, c.num_heads, self.positions * sizes.beams, head)
        self.keys = torch.zeros(shape, dtype=weights.dtype, device=device)
        self.values = torch.zeros_like(self.keys)
        self._qkv, self._bias = fuse(queries_keys_values), fuse(ancestors_bias)
        self._after_self, self._after_cross = fuse(after_self_attention), fuse(after_cross_attention)
        self._norm = fuse(ops.rms_norm)

    def step(self, position: int, tokens: Tensor, ancestors: Tensor, encoded: Encoded) -> Tensor:
        """Hidden states [B, Q, d] f32 of the beams whose last tokens are [B, Q]; `ancestors` is [B, Q, positions]."""
        w, c = self.weights, self.config
        x = w.embed[tokens]
        rows = slice(position * self.beams, (position + 1) * self.beams)
        seen = slice(0, rows.stop)
        # Made for all positions: compiled, it is one function then, whatever the position.
        bias = self._bias(ancestors, w.dtype)[..., seen]
        turn = self.cos[position], self.sin[position]
        for layer, block in enumerate(w.decoder):
            q, k, v = self._qkv(block, x, c.num_heads, c.rms_eps, *turn)
            self.keys[layer, :, :, rows] = k
            self.values[layer, :, :, rows] = v
            mixed = ops.attend(q, self.keys[layer, :, :, seen], self.values[layer, :, :, seen], bias)
            x, q = self._after_self(block, x, mixed, c.num_heads, c.rms_eps)
            mixed = ops.attend(q, encoded.keys[layer], encoded.values[layer], encoded.bias)
            x = self._after_cross(block, x, mixed, c.rms_eps)
        return self._norm(x, w.decoder_norm, c.rms_eps)

    def logits(self, hidden: Tensor, layer: int) -> Tensor:
        """Logits [B, Q, W] f32 of the next code, of this layer, from hidden states [B, Q, d]."""
        return ops.sums(hidden, self.weights.poi_head[layer])
