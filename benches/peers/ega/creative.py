"""The creative decoder (Eq. 16) for all slots of all lists at once, greedy among each item's own creatives."""

from __future__ import annotations

import torch
from torch import Tensor

from . import ops
from .encoder import Encoded
from .weights import Weights


def item_states(states: Tensor, ancestors: Tensor, code_layers: int) -> Tensor:
    """The hidden state [B, Q, K, d] of each item: that of its list's ancestor at the position of its last code.

    `states` [K, B, Q, d] are those of all beam slots at these positions, `ancestors` is [B, Q, K C_p + 1].
    """
    slots = ancestors[..., code_layers::code_layers]
    index = slots.permute(2, 0, 1).unsqueeze(-1).expand(-1, -1, -1, states.shape[3])
    return states.gather(2, index).permute(1, 2, 0, 3)


def choose_creatives(weights: Weights, encoded: Encoded, states: Tensor, items: Tensor, most: int) -> Tensor:
    """Rows of the creatives [B, Q, K] of items (rows, -1 for none) with these states [B, Q, K, d].

    An item has at most `most` creatives; of two with the same codes the first is chosen, of an empty slot none, -1.
    """
    w, c = weights, weights.config
    head = c.hidden_size // c.num_heads
    cos, sin = ops.angles(c.creative_code_layers, head, c.rope_theta, items.device)
    item = items.clamp(min=0).flatten(1)
    first = w.first_creative[item].unsqueeze(2)
    row = first + torch.arange(most, device=items.device)
    open_rows = row < w.first_creative[item + 1].unsqueeze(2)
    row = row.clamp(max=len(w.creative_codes) - 1)
    codes = w.creative_codes[row]

    state = ops.rms_norm(states.flatten(1, 2), w.creative_hidden_norm, c.rms_eps)
    state = ops.sums(state, w.creative_hidden)
    given = w.creative_start
    past: list[tuple[Tensor, Tensor]] = []
    for layer in range(c.creative_code_layers):
        x = _block(w, encoded, state + given, (cos[layer], sin[layer]), past)
        x = ops.rms_norm(x, w.creative_norm, c.rms_eps)
        logits = ops.sums(x, w.creative_head[layer])
        code = _greedy(logits, codes[..., layer], open_rows)
        open_rows = open_rows & (codes[..., layer] == code.unsqueeze(2))
        given = w.creative_inputs[layer * c.codebook_size + code]
    rows = torch.where(open_rows, row, len(w.creative_codes)).amin(2)
    return torch.where(items >= 0, rows.view(items.shape), -1)


def _greedy(logits: Tensor, codes: Tensor, open_rows: Tensor) -> Tensor:
    """Of the open codes [B, M, creatives] the one with the highest logit, of equal ones the lowest."""
    scores = torch.where(open_rows, logits.gather(2, codes), -torch.inf)
    best = open_rows & (scores == scores.amax(2, keepdim=True))
    return torch.where(best, codes, logits.shape[2]).amin(2).clamp(max=logits.shape[2] - 1)


def _block(
    w: Weights, encoded: Encoded, x: Tensor, turn: tuple[Tensor, Tensor], past: list[tuple[Tensor, Tensor]]
) -> Tensor:
    """The decoder block at one position of each of M slots, x [B, M, d]; `past` gains its keys and values."""
    c, block = w.config, w.creative
    joint = ops.linear(ops.rms_norm(x, block.attention.norm, c.rms_eps), block.attention.qkv)
    q, k, v = (part.reshape(-1, c.num_heads, 1, part.shape[2] // c.num_heads) for part in joint.chunk(3, -1))
    past.append((ops.rotate(k, *turn), v))
    keys, values = (torch.cat(parts, 2) for parts in zip(*past, strict=True))
    mixed = ops.attend(ops.rotate(q, *turn), keys, values)
    x = x + ops.sums(mixed.reshape(x.shape), block.attention.out)
    q = ops.heads(ops.linear(ops.rms_norm(x, block.cross_norm, c.rms_eps), block.cross_query), c.num_heads)
    mixed = ops.attend(q, encoded.keys[-1], encoded.values[-1], encoded.bias)
    x = x + ops.sums(ops.joined(mixed), block.cross_out)
    return x + ops.swiglu(ops.rms_norm(x, block.ffn.norm, c.rms_eps), block.ffn.gate_up, block.ffn.down)
