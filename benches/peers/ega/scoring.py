"""Reward model over all lists, winner, payment network and prices (sections 5 and 6 of the model); networks in f32."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 -- the customary name

from . import ops
from .encoder import encode_block
from .weights import Weights


class Rewards(NamedTuple):
    """What the reward model says of lists."""

    features: Tensor  # [B, Q, K, d_r]: f
    probabilities: Tensor  # [B, Q, K, 3]: in the order of `bidslate_train.model.TOWERS`
    rewards: Tensor  # [B, Q] f64; -inf where there is no list


class Bill(NamedTuple):
    """What the ads of the winning lists [B, K] pay."""

    rates: Tensor  # f32, 0 if organic
    payments: Tensor  # micros


def evaluate(
    w: Weights, interest: Tensor, items: Tensor, creatives: Tensor, score: Tensor, objective: Tensor
) -> Rewards:
    """Rewards of lists of items and creatives [B, Q, K] (rows, -1 for none).

    `interest` [B, d] is the mean of S_e, `score` [B, Q] is -inf where there is no list, `objective` [B, 4] weighs
    revenue and the three probabilities.
    """
    filled = (items >= 0).unsqueeze(-1)
    slots = w.reward_position[: items.shape[2]]
    x = w.reward_item[items.clamp(min=0)] + w.reward_creative[creatives.clamp(min=0)] + slots
    x = (x + F.linear(interest, w.reward_interest)[:, None, None]).flatten(0, 1)
    real = filled.flatten(0, 1)
    # An empty list looks at its first slot, so that nothing turns to NaN.
    keys = real.squeeze(-1) | (torch.arange(items.shape[2], device=x.device) == 0)
    bias = torch.zeros(keys.shape, device=x.device).masked_fill(~keys, -torch.inf)[:, None, None]
    for block in w.reward_blocks:
        x = encode_block(block, x, w.config.reward_heads, bias, w.config.rms_eps, None)
    f = ops.rms_norm(x, w.reward_norm, w.config.rms_eps)
    total = (f * real).sum(1, keepdim=True).expand_as(f)
    probabilities = _towers(w, torch.cat([f, total], -1)).unflatten(0, items.shape[:2])
    bids = w.item_bid[items.clamp(min=0)].double() / w.config.bid_unit_micros
    revenue, *others = objective[:, None, None].unbind(-1)
    p = probabilities.double().unbind(-1)
    worth = revenue * bids * p[0] + sum(weight * q for weight, q in zip(others, p, strict=True))
    rewards = torch.where(filled.squeeze(-1), worth, 0.0).sum(2)
    rewards = torch.where(score > -torch.inf, rewards, -torch.inf)
    return Rewards(f.unflatten(0, items.shape[:2]), probabilities, rewards)


def _towers(w: Weights, x: Tensor) -> Tensor:
    """Probabilities [lists, K, 3] from joint features [lists, K, 2 d_r]."""
    y = x.flatten(0, 1).expand(3, -1, -1)
    for i, (weight, bias) in enumerate(w.towers.layers):
        y = torch.baddbmm(bias, F.relu(y) if i else y, weight)
    return torch.sigmoid(y.squeeze(-1).t()).unflatten(0, x.shape[:2])


def winners(rewards: Tensor, score: Tensor) -> Tensor:
    """The list [B] of highest reward; ties: higher score, then the lower beam."""
    best = rewards == rewards.amax(1, keepdim=True)
    score = torch.where(best, score, -torch.inf)
    best = best & (score == score.amax(1, keepdim=True))
    beam = torch.arange(rewards.shape[1], device=rewards.device)
    return torch.where(best, beam, rewards.shape[1]).amin(1)


def charge(w: Weights, items: Tensor, ln_z: Tensor, pctr: Tensor, features: Tensor) -> Bill:
    """Rates of the payment network and what they come to, for one list [B, K] of each request."""
    slots = w.config.list_len
    row = items.clamp(min=0)
    filled, is_ad = items >= 0, w.item_is_ad[row] & (items >= 0)
    bid = torch.where(is_ad, w.item_bid[row], 0)
    logs = (bid.double() / w.config.bid_unit_micros).log1p().float()
    index = torch.arange(slots, device=items.device)
    # The other slots of slot i, in slot order: those from i on are one further.
    others = index[:-1] + (index[:-1] >= index.unsqueeze(1))
    zq = torch.where(filled, ln_z, -torch.inf).float().exp() * pctr
    x = torch.cat([features, logs[:, others], zq.unsqueeze(-1)], -1)
    for i, (weight, bias) in enumerate(w.payment):
        x = F.linear(F.relu(x) if i else x, weight, bias)
    rates = torch.where(is_ad, torch.sigmoid(x.squeeze(-1)), 0.0)
    unit = w.config.billable_unit_micros
    price = (rates.double() * bid * (1 + 2.0**-44)).floor().long()
    price = torch.div(price, unit, rounding_mode="floor") * unit
    payments = torch.minimum(torch.maximum(price, w.item_reserve[row]), bid)
    return Bill(rates, torch.where(is_ad, payments, 0))
