"""What either version, or the engine, answers to a request: candidate lists, the winner, and what it pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bidslate_train.catalog import Catalog

Shown = tuple[tuple[int, ...], tuple[int, ...]]
"""A list: ids of its items, and of their creatives."""


@dataclass(frozen=True)
class Lists:
    """Candidate lists, best score first."""

    shown: list[Shown]
    log_prob: list[float]
    rewards: list[float]

    @classmethod
    def of_rows(
        cls,
        items: Sequence[Sequence[int]],
        creatives: Sequence[Sequence[int]],
        log_prob: list[float],
        rewards: list[float],
        catalog: Catalog,
    ) -> Lists:
        """Lists of rows of the catalog, -1 behind their ends."""
        shown = [
            (
                tuple(int(catalog.item_id[row]) for row in own if row >= 0),
                tuple(int(catalog.creative_id[row]) for row in spelled if row >= 0),
            )
            for own, spelled in zip(items, creatives, strict=True)
        ]
        return cls(shown, log_prob, rewards)


@dataclass(frozen=True)
class Answer:
    """The answer to one request."""

    shown: Shown
    payments: list[int]  # micros, slot by slot
    lists: Lists | None = None  # those it was chosen from, where they are known
