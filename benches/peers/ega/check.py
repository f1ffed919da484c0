"""Whether two contestants answer alike. Times of answers that differ say nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from .answer import Answer, Lists

LEAST_SHARE = 0.95
"""The share of requests with the same winner that says enough by itself in bf16."""
LEAST_REQUESTS = 32
"""Requests that it takes to hold two contestants against f32."""
SCORE_TIE = 1e-3
"""Scores this close to the last beam that is kept may fall on either side of the cut."""
REWARD_TIE = 1e-4
"""Rewards this close, relative to the higher one, may change places."""


@dataclass
class Exact:
    """How often two contestants in bf16 show what the engine does in f32, on the same requests."""

    requests: int = 0
    ours: int = 0
    theirs: int = 0
    only_ours: int = 0  # requests of which the other misses f32's winner
    only_theirs: int = 0

    def holds(self) -> bool:
        """Whether we miss no more of f32's winners than they do, but for chance.

        Two standard deviations of chance (McNemar): of the requests that one alone misses, either misses half.
        """
        apart = self.only_theirs + self.only_ours
        return self.requests >= LEAST_REQUESTS and self.only_theirs - self.only_ours <= 2 * math.sqrt(apart)


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
    exact: Exact | None = None  # both in bf16, against f32

    @property
    def share(self) -> float:
        """The share of requests with the same winner."""
        return self.winners / max(1, self.requests)

    def holds(self, dtype: torch.dtype) -> bool:
        """Whether times may be compared: in f32 all agree or are near-ties, in bf16 as many as rounding lets."""
        if dtype == torch.float32:
            return self.requests > 0 and not self.different
        return self.share >= LEAST_SHARE or (self.exact is not None and self.exact.holds())

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


def against(ours: Sequence[Answer], theirs: Sequence[Answer], exact: Sequence[Answer]) -> Exact:
    """Holds two contestants against the f32 answers to the first of their requests."""
    found = Exact()
    for own, other, true in zip(ours, theirs, exact, strict=False):
        hit, other_hit = own.shown == true.shown, other.shown == true.shown
        found.requests += 1
        found.ours += hit
        found.theirs += other_hit
        found.only_ours += hit and not other_hit
        found.only_theirs += other_hit and not hit
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
