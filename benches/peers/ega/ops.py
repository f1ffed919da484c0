"""The operations of the strong version. Operands of products are of the weights' type.

Norms, logits, the residual stream and the products that are added to it are f32; queries, keys, values and what a
SwiGLU holds inside are of the weights' type again, as a good engineer has them: half the bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 -- the customary name

_SDPA = getattr(F, "scaled_dot_product_attention", None)
_SUMS_IN_F32 = torch.__version__ >= (2, 8)
"""Whether a product of bf16 may give f32 on a GPU."""
_LIBRARY = getattr(torch, "library", None)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMS norm over the last axis in f32: x / sqrt(mean(x^2) + eps) * weight."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """X [..., k] times weight [n, k]: operands, and what comes out, in the weight's type."""
    return F.linear(x.to(weight.dtype), weight)


def _sums(x: Tensor, weight: Tensor) -> Tensor:
    """X [m, k] times weight [n, k], both of one type; f32 comes out."""
    if weight.dtype == torch.float32:
        return F.linear(x, weight)
    if weight.is_cuda and _SUMS_IN_F32:
        return torch.mm(x, weight.t(), out_dtype=torch.float32)
    return F.linear(x.float(), weight.float())


def _opaque(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """An operation that a compiler leaves as it is, with what surrounds it in one piece.

    Not every version compiles a product that gives another type.
    """
    if not hasattr(_LIBRARY, "custom_op"):
        return function
    whole = torch.library.custom_op(
        "ega::sums", function, mutates_args=(), schema="(Tensor x, Tensor weight) -> Tensor"
    )
    whole.register_fake(lambda x, weight: x.new_empty((x.shape[0], weight.shape[0]), dtype=torch.float32))
    return whole


_SUMS = _opaque(_sums)


def sums(x: Tensor, weight: Tensor) -> Tensor:
    """X [..., k] times weight [n, k]: operands in the weight's type, sums kept in f32."""
    return _SUMS(x.to(weight.dtype).flatten(0, -2), weight).unflatten(0, x.shape[:-1])


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Softmax attention of q [B, H, T, h] over k and v [B, H, S, h], `bias` [B, 1, T, S] added to the scores."""
    if _SDPA is not None:
        return _SDPA(q, k, v, attn_mask=bias)
    scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(2, 3)
    return (scores if bias is None else scores + bias).softmax(-1) @ v


def heads(x: Tensor, count: int) -> Tensor:
    """From [B, T, d] to [B, H, T, h]."""
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


def joined(x: Tensor) -> Tensor:
    """From [B, H, T, h] to [B, T, d]."""
    return x.transpose(1, 2).flatten(2)


def angles(positions: int, head: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines [positions, h / 2] of the rotary embedding."""
    half = head // 2
    frequency = theta ** (-torch.arange(half, dtype=torch.float64, device=device) / half)
    turned = torch.arange(positions, dtype=torch.float64, device=device).unsqueeze(1) * frequency
    return turned.cos().float(), turned.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns the pairs (i, i + h / 2) of x [..., T, h] by the angles of T positions [T, h / 2], or of one [h / 2]."""
    a, b = x.float().chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1).to(x.dtype)


def swiglu(x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """Down(silu(gate x) * up x) in f32, gate and up in one product."""
    gate, up = linear(x, gate_up).chunk(2, -1)
    return sums(F.silu(gate) * up, down)


def pick(table: Tensor, index: Tensor) -> Tensor:
    """Rows of `table` [B, n] by request: index [B, ...] -> [B, ...]."""
    return table.gather(1, index.flatten(1)).view(index.shape)
