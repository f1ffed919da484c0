"""What ads would get by other bids: the table that `bidslate misreports` writes, and regret on it (Eq. 6-7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from bidslate_train import engine

GRID = tuple(round(0.2 * j, 1) for j in range(1, 11))
"""The paper's misreports: gamma x value."""

Rate = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A payment network: rates [...] from features [..., d_r], ln(1 + b) of the others [..., K - 1] and z pctr [...]."""


@dataclass
class Misreports:
    """P rows, one for each (request, sample of values, winning ad), by G misreports. Money in bid units."""

    request: Tensor  # [P] i64
    sample: Tensor  # [P] i64: 0 is the catalog's bids
    slot: Tensor  # [P] i64: where the truth shows it
    value: Tensor  # [P] f32
    reserve: Tensor  # [P] f32
    gamma: Tensor  # [G] f32
    bid: Tensor  # [P, G] f32
    shown: Tensor  # [P, G] u8
    features: Tensor  # [P, G, d_r] f32
    others: Tensor  # [P, G, K - 1] f32
    zq: Tensor  # [P, G] f32
    pctr: Tensor  # [P, G] f32

    PER_ROW = (
        "request",
        "sample",
        "slot",
        "value",
        "reserve",
        "bid",
        "shown",
        "features",
        "others",
        "zq",
        "pctr",
    )

    def rows(self, index: Tensor) -> Misreports:
        """The rows of an index, or of a mask [P]."""
        return Misreports(gamma=self.gamma, **{name: getattr(self, name)[index] for name in self.PER_ROW})

    @property
    def truth(self) -> int:
        """Which misreport is the value itself."""
        return int((self.gamma - 1).abs().argmin())

    @classmethod
    def read(cls, path: Path) -> Misreports:
        """Reads what the engine wrote; a grid without 1, no rows and numbers that are not finite are refused."""
        tensors = load_file(path)
        missing = [name for name in (*cls.PER_ROW, "gamma") if name not in tensors]
        if missing:
            raise ValueError(f"{path}: no tensors {missing}")
        table = cls(gamma=tensors["gamma"], **{name: tensors[name] for name in cls.PER_ROW})
        if not len(table.value):
            raise ValueError(f"{path}: no rows, expected at least one ad that won")
        if abs(float(table.gamma[table.truth]) - 1) > 1e-6:
            raise ValueError(f"{path}: `gamma` is {table.gamma.tolist()}, expected 1 among them")
        for name in ("value", "bid", "features", "others", "zq", "pctr"):
            if not torch.isfinite(getattr(table, name)).all():
                raise ValueError(f"{path}: `{name}` holds numbers that are not finite")
        return table


def write(
    model: Path, catalog: Path, requests: Path, out: Path, tier: str, samples: int, sigma: float, seed: int
) -> Misreports:
    """The table of the requests of a file under the model of a directory, made by the engine."""
    engine.bidslate(
        "misreports", "--model", model, "--catalog", catalog, "--requests", requests, "--out", out,
        "--tier", tier, "--samples", samples, "--sigma", sigma, "--seed", seed,
    )  # fmt: skip
    return Misreports.read(out)


class Outcome(NamedTuple):
    """Of each row: payment per click, utility by the truth and regret per impression, and the rate [P]."""

    payment: Tensor
    utility: Tensor
    regret: Tensor
    rate: Tensor


def outcome(table: Misreports, rate: Rate) -> Outcome:
    """Payments and regret under a payment network. Gradients flow into it alone."""
    return priced(table, rate(table.features, table.others, table.zq))


def priced(table: Misreports, rates: Tensor) -> Outcome:
    """Payments and regret where each bid pays its share rates [P, G]."""
    reserve = table.reserve.unsqueeze(1)
    payment = torch.minimum(table.bid, torch.maximum(reserve, rates * table.bid))
    utility = (table.value.unsqueeze(1) - payment) * table.pctr * table.shown
    truth = utility[:, table.truth]
    regret = (utility.max(1).values - truth).clamp(min=0)
    return Outcome(payment[:, table.truth], truth, regret, rates[:, table.truth])


class Economics(NamedTuple):
    """What a payment rule brings on a table, per request where not a share."""

    revenue: float  # sum of payment x pctr, bid units
    first_price: float  # the same if all paid their bids
    rate: float  # mean payment / bid
    regret: float
    regret_share: float  # sum of regrets / sum of utilities


def truthful_rates(table: Misreports) -> Tensor:
    """Rates [P, G] of the payment that makes the truth the best bid (Myerson 1981): 1 - integral of q to b / (b q(b)).

    q, clicks per impression by bid, is taken as linear between the grid's bids, from 0 at a bid of 0. Where q falls as
    the bid rises no payment is truthful, and these are not.
    """
    clicks = table.pctr * table.shown
    bid = torch.nn.functional.pad(table.gamma, (1, 0))
    mean = torch.nn.functional.pad(clicks, (1, 0)).unfold(1, 2, 1).mean(2)
    area = (mean * bid.diff()).cumsum(1)
    worth = table.gamma * clicks
    return torch.where(worth > 0, 1 - area / worth.clamp(min=1e-12), 0.0).clamp(0, 1)


@torch.no_grad()
def economics(table: Misreports, rate: Rate) -> Economics:
    """Figures by the truthful bids of the catalog (sample 0)."""
    base = table.rows(table.sample == 0)
    return _summary(base, outcome(base, rate))


@torch.no_grad()
def truthful_economics(table: Misreports) -> Economics:
    """The same where truthful payments are charged: what the lists admit, whatever a network can tell."""
    base = table.rows(table.sample == 0)
    return _summary(base, priced(base, truthful_rates(base)))


def _summary(base: Misreports, found: Outcome) -> Economics:
    requests = max(1, len(np.unique(base.request.numpy())))
    pctr = base.pctr[:, base.truth]
    utility = float(found.utility.sum())
    return Economics(
        float((found.payment * pctr).sum()) / requests,
        float((base.value * pctr).sum()) / requests,
        float((found.payment / base.value).mean()),
        float(found.regret.sum()) / requests,
        float(found.regret.sum()) / utility if utility > 0 else float("nan"),
    )
