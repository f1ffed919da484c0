"""Phase 2.3: the payment network, by an augmented Lagrangian on ex-post regret (Eq. 33-35).

Allocation does not depend on payments, so the engine writes once what every misreport would bring (`misreports`) and
the network trains on that table. Revenue and regret are divided by what first prices would bring per ad: rho, lambda
and the regret that they weigh are then shares of revenue, whatever the currency and the click rates.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bidslate_train.blocks import Mlp
from bidslate_train.feedback import split
from bidslate_train.misreports import Misreports, Rate, economics, outcome, truthful_economics
from bidslate_train.tables import write_csv
from bidslate_train.training import Diverged


@dataclass(frozen=True)
class PaymentSettings:
    """How phase 2.3 trains."""

    tier: str = "redecode"  # of the misreports: lists picked again (reselect) or the whole search run again
    requests: int = 800  # train requests in the table
    samples: int = 2  # N_v: samples of values for each
    sigma: float = 0.4  # of ln(value / bid)
    validation: float = 0.15  # share of the requests that chooses the step
    test: float = 0.15  # share of the requests that the printed figures are of
    steps: int = 800
    batch: int = 64  # requests
    learning_rate: float = 3e-3
    weight_decay: float = 0.3
    noise: float = 0.4  # in training, on features and others' bids, in their spreads
    rho: float = 10.0  # penalty on squared regret, and the multipliers' step
    update_every: int = 25  # steps between updates of the multipliers
    target: float = 0.01  # regret / utility to stay below on validation requests


@dataclass
class Split:
    """The table's requests: to train on, to choose by, to report on."""

    train: Misreports
    validation: Misreports
    test: Misreports

    @classmethod
    def of(cls, table: Misreports, settings: PaymentSettings, seed: int) -> Split:
        """Splits by request."""
        parts = split(table.request.numpy(), settings.validation, settings.test, seed)
        return cls(*(table.rows(torch.from_numpy(part)) for part in parts))


class Standardised(nn.Module):
    """A payment MLP over inputs of mean 0 and spread 1: z pctr is a hundred times smaller than the features.

    In training each row's features and others' bids carry noise, the same for all its misreports: without it the
    network learns single requests by heart. What tells its own bid, z pctr, stays as it is.
    """

    def __init__(self, mlp: Mlp, table: Misreports, noise: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        self.mlp, self.noise = mlp, noise
        self.generator = torch.Generator().manual_seed(seed)
        shown = table.shown > 0
        inputs = _inputs(table.features[shown], table.others[shown], table.zq[shown])
        self.register_buffer("mean", inputs.mean(0))
        self.register_buffer("spread", inputs.std(0, unbiased=False).clamp(min=1e-6))

    def forward(self, features: Tensor, others: Tensor, zq: Tensor) -> Tensor:
        """Rates [...]."""
        x = (_inputs(features, others, zq) - self.mean) / self.spread
        if self.training and self.noise:
            draws = torch.randn(len(x), 1, x.shape[2], generator=self.generator)
            draws[..., -1] = 0
            x = x + self.noise * draws
        return torch.sigmoid(self.mlp(x)).squeeze(-1)

    @torch.no_grad()
    def folded(self) -> dict[str, Tensor]:
        """The weights of the same function of inputs as they come."""
        state = {name: tensor.clone() for name, tensor in self.mlp.state_dict().items()}
        state["0.weight"] = state["0.weight"] / self.spread
        state["0.bias"] = state["0.bias"] - state["0.weight"] @ self.mean
        return state


def _inputs(features: Tensor, others: Tensor, zq: Tensor) -> Tensor:
    return torch.cat([features, others, zq.unsqueeze(-1)], -1)


def train_payment(
    mlp: Mlp,
    table: Misreports,
    settings: PaymentSettings,
    seed: int,
    out: Path | None = None,
    last: bool = False,
) -> dict[str, Any]:
    """Trains a payment MLP in place. Returns its figures on requests that neither trained nor chose it.

    Kept is the state with the most revenue on the validation requests among those below the target, or the last where
    none is; with `last` always that. `payment.csv` in `out` logs rate, revenue, regret and multipliers. Beside the
    figures stand those of truthful payments for the same lists.
    """
    parts = Split.of(table, settings, seed)
    network = Standardised(mlp, parts.train, settings.noise, seed)
    curve = []
    best, kept = (False, -float("inf")), copy.deepcopy(network.mlp.state_dict())
    for row in lagrangian(network, parts.train, settings, seed):
        found = economics(parts.validation, network.eval())
        curve.append({**row, **{f"validation_{name}": value for name, value in found._asdict().items()}})
        below = found.regret_share < settings.target
        rank = (below, found.revenue if below else float(row["step"]))
        if last or rank > best:
            best, kept = rank, copy.deepcopy(network.mlp.state_dict())
    network.mlp.load_state_dict(kept)
    tested = economics(parts.test, network.eval())
    mlp.load_state_dict(network.folded())
    if out is not None:
        write_csv(out / "payment.csv", curve)
    truthful = truthful_economics(parts.test)
    return {
        "rho": settings.rho,
        "below_target": best[0],
        **tested._asdict(),
        "truthful_revenue": truthful.revenue,
        "truthful_regret_share": truthful.regret_share,
        "settings": asdict(settings),
    }


@dataclass
class Penalty:
    """The augmented Lagrangian: a multiplier for each slot, and everything in shares of first prices per ad."""

    multipliers: Tensor  # [slots]
    rho: float
    scale: float

    @classmethod
    def of(cls, table: Misreports, rho: float, slots: int) -> Penalty:
        """Multipliers of 0, and the scale of a table."""
        return cls(torch.zeros(slots), rho, float((table.value * table.pctr[:, table.truth]).mean()))

    def loss(self, revenue: Tensor, regret: Tensor) -> Tensor:
        """L_pay (Eq. 33) from revenue [n] and regret by slot [n, slots]."""
        regret = regret / self.scale
        penalty = (self.multipliers * regret + self.rho / 2 * regret.square()).sum(1)
        return (penalty - revenue / self.scale).mean()

    def update(self, regret: Tensor) -> None:
        """Raises the multipliers by rho times the mean regret by slot [slots] (Eq. 35)."""
        self.multipliers += self.rho * regret / self.scale


def lagrangian(
    network: Standardised, table: Misreports, settings: PaymentSettings, seed: int
) -> Iterator[dict[str, float]]:
    """Alternates steps of the network (Eq. 34) with updates of the multipliers (Eq. 35), which it yields to log."""
    generator = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(
        network.mlp.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    slots, samples = int(table.slot.max()) + 1, int(table.sample.max()) + 1
    penalty = Penalty.of(table, settings.rho, slots)
    batches = Batches(table, settings.batch, generator)
    seen: list[tuple[float, Tensor]] = []
    for step in range(1, settings.steps + 1):
        part, request, requests = batches.draw()
        revenue, regret = slot_regrets(part, request, requests, slots, samples, network.train())
        loss = penalty.loss(revenue, regret)
        if not torch.isfinite(loss):
            raise Diverged(f"phase 2.3, step {step}: loss {loss.item()}")
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * (1 - 0.9 * step / settings.steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append((float(revenue.detach().mean()), regret.detach().mean(0)))
        if step % settings.update_every == 0:
            mean = torch.stack([regret for _, regret in seen]).mean(0)
            penalty.update(mean)
            yield {
                "step": step,
                "revenue": float(np.mean([revenue for revenue, _ in seen])),
                "regret": float(mean.sum()),
                "multiplier": float(penalty.multipliers.max()),
                **{f"multiplier_{k}": float(value) for k, value in enumerate(penalty.multipliers)},
            }
            seen = []


class Batches:
    """Draws the rows of some requests at a time."""

    def __init__(self, table: Misreports, size: int, generator: np.random.Generator) -> None:
        order = np.argsort(table.request.numpy(), kind="stable")
        _, first = np.unique(table.request.numpy()[order], return_index=True)
        self.groups = np.split(order, first[1:])
        self.table, self.size, self.generator = table, min(size, len(first)), generator

    def draw(self) -> tuple[Misreports, Tensor, int]:
        """Rows of a batch, the request of each as its number in the batch, and how many requests there are."""
        chosen = self.generator.choice(len(self.groups), self.size, replace=False)
        rows = [self.groups[i] for i in chosen]
        request = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        return self.table.rows(torch.from_numpy(np.concatenate(rows))), torch.from_numpy(request), len(rows)


def slot_regrets(
    table: Misreports, request: Tensor, requests: int, slots: int, samples: int, rate: Rate
) -> tuple[Tensor, Tensor]:
    """Revenue [n] and regret by slot [n, slots] of each request, means over the samples of values (Eq. 7)."""
    found = outcome(table, rate)
    paid = found.payment * table.pctr[:, table.truth]
    revenue = paid.new_zeros(requests).index_add(0, request, paid) / samples
    regret = (
        paid.new_zeros(requests * slots).index_add(0, request * slots + table.slot, found.regret) / samples
    )
    return revenue, regret.view(requests, slots)
