"""Whether two contestants answer alike. Times of answers that differ say nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from .answer import Answer, Lists

LEAST_SHARE = {torch.float32: 1.0, torch.bfloat16: 0.95}
"""The share of requests that must have the same winner, by the type of the products. In f32 a request counts too whose
difference is a near-tie."""
SCORE_TIE = 1e-3
"""Scores this close to the last beam that is kept may fall on either side of the cut."""
REWARD_TIE = 1e-4
"""Rewards this close, relative to the higher one, may change places."""


@dataclass
class Agreement:
    """How far the answers to some requests agree."""

    requests: int = 0
    winners: int = 0  # the same items, slot by slot, with the same creatives
    items: int = 0  # the same items, slot by slot
    near_ties: int = 0  # other winners or lists, as a near-tie explains
    lists: int = 0  # candidate lists compared
    common_lists: int = 0  # and found by both
    payment_micros: int = 0  # the largest difference of a payment in lists with the same winner
    different: list[int] = field(default_factory=list)  # requests that neither agree nor are near-ties

    @property
    def share(self) -> float:
        """The share of requests with the same winner."""
        return self.winners / max(1, self.requests)

    def holds(self, dtype: torch.dtype) -> bool:
        """Whether times may be compared."""
        if dtype == torch.float32:
            return self.requests > 0 and not self.different
        return self.share >= LEAST_SHARE[dtype]

    def facts(self) -> dict[str, Any]:
        """All of it as JSON."""
        return asdict(self) | {"share": self.share}


def compare(ours: Sequence[Answer], theirs: Sequence[Answer]) -> Agreement:
    """Compares answer by answer; candidate lists where both have them."""
    found = Agreement()
    for row, (own, other) in enumerate(zip(ours, theirs, strict=True)):
        found.requests += 1
        same = own.shown == other.shown
        found.winners += same
        found.items += own.shown[0] == other.shown[0]
        if same:
            gaps = [abs(a - b) for a, b in zip(own.payments, other.payments, strict=True)]
            found.payment_micros = max(found.payment_micros, *gaps, 0)
        alike = same
        if own.lists is not None and other.lists is not None:
            a, b = own.lists, other.lists
            found.lists += len(a.shown)
            found.common_lists += len(set(a.shown) & set(b.shown))
            explained = near_cut(a, b) and near_cut(b, a)
            alike = explained and (same or near_winners(a, own, b, other))
            found.near_ties += alike and not (same and set(a.shown) == set(b.shown))
        if not alike:
            found.different.append(row)
    return found


def near_cut(a: Lists, b: Lists) -> bool:
    """Whether every list of `a` that `b` lacks scores about what the last of `b` does: either may have been kept."""
    known = set(b.shown)
    missing = [score for shown, score in zip(a.shown, a.log_prob, strict=True) if shown not in known]
    return len(a.shown) == len(b.shown) and all(score <= min(b.log_prob) + SCORE_TIE for score in missing)


def near_winners(a: Lists, own: Answer, b: Lists, other: Answer) -> bool:
    """Whether two winners may differ: one is missing on the other side, at the cut, or both are worth as much."""
    ours, theirs = dict(zip(a.shown, a.rewards, strict=True)), dict(zip(b.shown, b.rewards, strict=True))
    if other.shown not in ours or own.shown not in theirs:
        return True
    return all(
        abs(worth[own.shown] - worth[other.shown]) <= REWARD_TIE * abs(worth[own.shown])
        for worth in (ours, theirs)
    )
