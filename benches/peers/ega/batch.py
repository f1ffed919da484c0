"""A batch of requests as tensors of fixed sizes: B requests, N ads, O organic items, n_j nodes of level j."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bidslate_train.allocation import Ask
from bidslate_train.model import Histories

from .candidates import Candidates, Level
from .sizes import Sizes

FAR = 1 << 40
"""More than any number of ads or slots: a policy without a limit."""


@dataclass
class Nodes:
    """`candidates.Level` of each request, padded behind its end."""

    code: Tensor  # [B, n]
    first_ad: Tensor  # [B, n + 1]
    ln_w: Tensor  # [B, n] f64
    first_child: Tensor  # [B, nodes of the level above + 1]
    node: Tensor  # [B, N]
    order: Tensor  # [B, N]
    rank: Tensor  # [B, N]


@dataclass
class Batch:
    """What the device reads; int64 where nothing else is said."""

    histories: Histories
    levels: list[Nodes]
    ad_row: Tensor  # [B, N]
    ad_bid: Tensor  # [B, N] micros
    ad_hash: Tensor  # [B, N]
    ad_ln_w: Tensor  # [B, N] f64
    organic_row: Tensor  # [B, O]
    organic_hash: Tensor  # [B, O]
    organics: Tensor  # [B]: how many of them there are
    ln_beta: Tensor  # [B] f64
    list_len: Tensor  # [B]
    beam_width: Tensor  # [B]
    max_ads: Tensor  # [B]
    min_gap: Tensor  # [B]
    first_ad_slot: Tensor  # [B]
    objective: Tensor  # [B, 4] f64: revenue, ctr_poi, ctr_creative, cvr

    def map(self, f: Callable[[Tensor], Tensor]) -> Batch:
        """The same with `f` applied to every tensor."""
        return _map(self, f)

    def copy_(self, other: Batch) -> None:
        """Takes over the numbers of another batch of the same sizes, into the memory that it has."""
        for own, new in zip(_tensors(self), _tensors(other), strict=True):
            own.copy_(new, non_blocking=True)


def _map(value: Any, f: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return f(value)
    if isinstance(value, list):
        return [_map(one, f) for one in value]
    if isinstance(value, dict):
        return {name: _map(one, f) for name, one in value.items()}
    if is_dataclass(value):
        return type(value)(*(_map(getattr(value, field.name), f) for field in fields(value)))
    raise TypeError(type(value))


def _tensors(value: Any) -> list[Tensor]:
    found: list[Tensor] = []
    _map(value, lambda tensor: found.append(tensor) or tensor)
    return found


def _padded(rows: Sequence[np.ndarray], width: int, last: bool = False) -> Tensor:
    """Rows as a table, filled up with 0 or with each row's last value."""
    table = np.zeros((len(rows), width), rows[0].dtype)
    for place, row in zip(table, rows, strict=True):
        place[: len(row)] = row
        if last:
            place[len(row) :] = row[-1]
    return torch.from_numpy(table)


def _nodes(levels: Sequence[Level], sizes: Sizes, layer: int) -> Nodes:
    above, own = (sizes.nodes[layer - 1] if layer else 1), sizes.nodes[layer]
    widths = {"code": own, "first_ad": own + 1, "ln_w": own, "first_child": above + 1}
    return Nodes(
        *(
            _padded(
                [getattr(level, field.name) for level in levels],
                widths.get(field.name, sizes.ads),
                last=field.name.startswith("first_"),
            )
            for field in fields(Nodes)
        )
    )


def _histories(histories: Histories, rows: Sequence[int], behaviors: int) -> Histories:
    picked = histories.rows(torch.tensor(rows))
    return picked.map(lambda tensor: tensor[:, :behaviors].contiguous() if tensor.dim() > 1 else tensor)


def collate(
    options: Sequence[Ask], own: Sequence[Candidates], histories: Histories, rows: Sequence[int], sizes: Sizes
) -> Batch:
    """The batch of requests with these options, tables, and rows of the histories."""

    def whole(values: Sequence[float]) -> Tensor:
        return torch.tensor([int(min(value, FAR)) for value in values])

    return Batch(
        _histories(histories, rows, sizes.behaviors),
        [_nodes([c.levels[layer] for c in own], sizes, layer) for layer in range(len(sizes.nodes))],
        _padded([c.ad_row for c in own], sizes.ads),
        _padded([c.ad_bid for c in own], sizes.ads),
        _padded([c.ad_hash for c in own], sizes.ads),
        _padded([c.ad_ln_w for c in own], sizes.ads),
        _padded([c.organic_row for c in own], sizes.organics),
        _padded([c.organic_hash for c in own], sizes.organics),
        whole([len(c.organic_row) for c in own]),
        torch.tensor([math.log(ask.beta) if ask.beta else -math.inf for ask in options], dtype=torch.float64),
        whole([ask.list_len for ask in options]),
        whole([ask.beam_width for ask in options]),
        whole([ask.max_ads for ask in options]),
        whole([ask.min_gap for ask in options]),
        whole([ask.first_ad_slot for ask in options]),
        torch.tensor([ask.objective for ask in options], dtype=torch.float64),
    )
