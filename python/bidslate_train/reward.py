"""Phase 2.1: the reward model learns from feedback on lists (Eq. 30). Everything that it reads is frozen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 -- the customary name

from bidslate_train import scores
from bidslate_train.catalog import Catalog
from bidslate_train.feedback import LABELS, Feedback, split
from bidslate_train.model import TOWERS, Histories, Model
from bidslate_train.optimise import Epochs, calibrate, start_from_rates, train_only
from bidslate_train.tables import write_csv


@dataclass(frozen=True)
class RewardSettings:
    """How phase 2.1 trains."""

    epochs: int = 4
    batch: int = 128  # lists
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    validation: float = 0.1  # share of the requests that choose the epoch and calibrate
    test: float = 0.1  # share of the requests that the printed scores are of
    patience: int = 2  # epochs without a better validation loss before it stops


@dataclass
class Lists:
    """Lists as the reward model reads them, cut from feedback by row."""

    feedback: Feedback
    interest: Tensor  # [R, d]: mean of S_e of each request
    codes: Tensor  # [N, C_p]: of the catalog's items
    creative_codes: Tensor  # [M, C_c]: of its creatives
    embedding: Tensor  # [N, d_item]

    @classmethod
    def of(cls, feedback: Feedback, interest: Tensor, catalog: Catalog) -> Lists:
        """Feedback with what it points to."""
        tables = (catalog.codes, catalog.creative_codes, catalog.embedding)
        return cls(feedback, interest, *(torch.from_numpy(table) for table in tables))

    def logits(
        self, model: Model, index: np.ndarray, interest: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [n, K, 3] of the lists of an index [n], with their labels [n, K, 3] and filled slots [n, K].

        `interest` [n, d] stands in for the one that was computed before.
        """
        lists = self.feedback.rows(index)
        item, creative = torch.from_numpy(lists.item), torch.from_numpy(lists.creative)
        filled = item >= 0
        item, creative = item.clamp(min=0), creative.clamp(min=0)
        out = model.evaluate(
            self.interest[torch.from_numpy(lists.request)] if interest is None else interest,
            self.codes[item],
            self.creative_codes[creative],
            self.embedding[item],
            filled,
        )
        return out.logits, torch.from_numpy(lists.label), filled


@torch.no_grad()
def interests(model: Model, histories: Histories, batch: int = 64) -> Tensor:
    """Mean of S_e [R, d] of each request."""
    model.eval()
    parts = torch.arange(len(histories.length)).split(batch)
    return torch.cat([model.encode(histories.rows(part)).mean() for part in parts])


def reward_loss(logits: Tensor, label: Tensor, filled: Tensor) -> Tensor:
    """Binary cross-entropy over filled slots, summed over the three towers (Eq. 30)."""
    each = F.binary_cross_entropy_with_logits(logits, label, reduction="none").sum(-1)
    return each[filled].mean()


@torch.no_grad()
def predictions(
    model: Model, lists: Lists, index: np.ndarray, batch: int = 512
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels and filled slots of all lists of an index, as `Lists.logits`."""
    model.eval()
    parts = [lists.logits(model, part) for part in np.array_split(index, -(-len(index) // batch))]
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))  # type: ignore[return-value]


def train_reward(
    model: Model, lists: Lists, settings: RewardSettings, seed: int, out: Path | None = None
) -> dict[str, Any]:
    """Trains `reward.*` in place and returns the test scores of each tower.

    Writes `reward.csv` (losses by epoch) and `reward-scores.csv` (scores by tower and position) into `out`.
    """
    request = lists.feedback.request
    train, chosen_by, test = split(request, settings.validation, settings.test, seed)
    curve = _fit(model, lists, train, chosen_by, settings, seed)
    logits, label, filled = predictions(model, lists, chosen_by)
    calibrate(last_layers(model), logits[filled], label[filled])
    table = score_table(*predictions(model, lists, test))
    if out is not None:
        write_csv(out / "reward.csv", curve)
        write_csv(out / "reward-scores.csv", table)
    return {row["tower"]: row for row in table if row["position"] == "all"}


def _fit(
    model: Model, lists: Lists, train: np.ndarray, validation: np.ndarray, settings: RewardSettings, seed: int
) -> list[dict[str, Any]]:
    """Trains `reward.*` until the validation loss stops falling; returns the losses by epoch."""
    train_only(model, ["reward."])
    shown = lists.feedback.rows(train)
    start_from_rates(last_layers(model), shown.label[shown.filled])
    s = settings
    return Epochs(s.epochs, s.batch, s.learning_rate, s.weight_decay, s.patience).fit(
        model.reward,
        train,
        lambda part: reward_loss(*lists.logits(model, part)),
        lambda: float(reward_loss(*predictions(model, lists, validation))),
        seed,
    )


def last_layers(model: Model) -> list[nn.Linear]:
    """The last layer of each tower."""
    return [list(model.reward["towers"][tower].values())[-1] for tower in TOWERS]


def score_table(logits: Tensor, label: Tensor, filled: Tensor) -> list[dict[str, Any]]:
    """Scores of each tower over all slots and at each position."""
    rows: list[dict[str, Any]] = []
    probability, given, real = torch.sigmoid(logits).numpy(), label.numpy(), filled.numpy()
    for i, (tower, name) in enumerate(zip(TOWERS, LABELS, strict=True)):
        everywhere = scores.summary(given[real][:, i], probability[real][:, i])
        rows.append({"tower": tower, "label": name, "position": "all", **everywhere})
        for k in range(real.shape[1]):
            at = real[:, k]
            if at.any():
                found = scores.summary(given[at, k, i], probability[at, k, i])
                rows.append({"tower": tower, "label": name, "position": k, **found})
    return rows
