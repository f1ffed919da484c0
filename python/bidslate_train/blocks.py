"""Layers that the model is made of: norms, attention with rotary positions, feed-forward, blocks."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 -- the customary name

from bidslate_train.config import Config


class Memory(NamedTuple):
    """The encoder's output: rows [N, n, d] and which of them are real [N, n]; the real ones come first."""

    states: Tensor
    mask: Tensor

    def mean(self) -> Tensor:
        """Mean of the real rows [N, d]."""
        mask = self.mask.unsqueeze(-1).to(self.states.dtype)
        return (self.states * mask).sum(1) / mask.sum(1)

    def rows(self, index: Tensor) -> Memory:
        """The memories of the requests in an index [M]."""
        return Memory(self.states[index], self.mask[index])


class RmsNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Norm over the last axis."""
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class Mlp(nn.ModuleDict):
    """Linear layers `0`, `1`, ... of the given sizes, ReLU between them."""

    def __init__(self, sizes: list[int]) -> None:
        pairs = zip(sizes[:-1], sizes[1:], strict=True)
        super().__init__({str(i): nn.Linear(a, b) for i, (a, b) in enumerate(pairs)})

    def forward(self, x: Tensor) -> Tensor:
        """From [..., first size] to [..., last size]."""
        for i in range(len(self)):
            x = self[str(i)](F.relu(x) if i else x)
        return x


def rotate(x: Tensor, theta: float) -> Tensor:
    """Rotary positions 0, 1, ... for [..., T, head]: pairs (i, i + head / 2) turn by t theta^(-2 i / head)."""
    half = x.shape[-1] // 2
    frequency = theta ** (-torch.arange(half, dtype=torch.float64, device=x.device) / half)
    positions = torch.arange(x.shape[-2], dtype=torch.float64, device=x.device)
    angle = positions.unsqueeze(1) * frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class Attention(nn.Module):
    """Softmax attention with scale 1 / sqrt(head size); `rotary` turns queries and keys."""

    def __init__(self, width: int, heads: int, rotary: float | None) -> None:
        super().__init__()
        self.heads, self.rotary = heads, rotary
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(self, name, nn.Linear(width, width, bias=False))

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(self, x: Tensor, source: Tensor, allowed: Tensor | None) -> Tensor:
        """Queries of x [N, T, d] over source [N, S, d], where `allowed` (to [N, H, T, S]) is true."""
        q, k, v = (
            self._split(proj(y))
            for proj, y in ((self.q_proj, x), (self.k_proj, source), (self.v_proj, source))
        )
        if self.rotary is not None:
            q, k = rotate(q, self.rotary), rotate(k, self.rotary)
        # Scaled before the product: the queries are few, the scores many.
        scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(2, 3)
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -torch.inf)
        # Weights are not dropped out: on a CPU that takes a fifth of a step, and blocks drop what comes out.
        mixed = scores.softmax(-1) @ v
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class Ffn(nn.Module):
    """SwiGLU: down(silu(gate x) * up x)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """From [..., d] to [..., d]."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class EncoderBlock(nn.Module):
    """Pre-norm block of full attention among real rows, and feed-forward."""

    def __init__(
        self, config: Config, width: int, heads: int, hidden: int, dropout: float = 0.0, rotary: bool = True
    ) -> None:
        super().__init__()
        self.attn_norm = RmsNorm(width, config.rms_eps)
        self.attn = Attention(width, heads, config.rope_theta if rotary else None)
        self.ffn_norm = RmsNorm(width, config.rms_eps)
        self.ffn = Ffn(width, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """From x [N, T, d] with real rows [N, T]. A row that is not real reads row 0, so that it stays finite."""
        keys = mask.clone()
        keys[:, 0] = True
        y = self.attn_norm(x)
        x = x + self.dropout(self.attn(y, y, keys[:, None, None]))
        return x + self.dropout(self.ffn(self.ffn_norm(x)))


class DecoderBlock(nn.Module):
    """Pre-norm block of causal self-attention, cross-attention to the encoder's output, and feed-forward."""

    def __init__(self, config: Config, dropout: float = 0.0) -> None:
        super().__init__()
        width, heads = config.hidden_size, config.num_heads
        self.self_attn_norm = RmsNorm(width, config.rms_eps)
        self.self_attn = Attention(width, heads, config.rope_theta)
        self.cross_attn_norm = RmsNorm(width, config.rms_eps)
        self.cross_attn = Attention(width, heads, None)
        self.ffn_norm = RmsNorm(width, config.rms_eps)
        self.ffn = Ffn(width, config.ffn_size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Memory, groups: int = 1) -> Tensor:
        """From x [N, T, d]; self-attention stays within each of `groups` equal runs of positions."""
        count, length, width = x.shape
        y = self.self_attn_norm(x).view(count * groups, length // groups, width)
        causal = torch.ones(y.shape[1], y.shape[1], dtype=torch.bool, device=x.device).tril()
        x = x + self.dropout(self.self_attn(y, y, causal).reshape(count, length, width))
        attended = self.cross_attn(self.cross_attn_norm(x), memory.states, memory.mask[:, None, None])
        x = x + self.dropout(attended)
        return x + self.dropout(self.ffn(self.ffn_norm(x)))
