"""Feedback on lists that were shown: what the reward model and the point-wise baseline learn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bidslate_train.catalog import Catalog
from bidslate_train.lines import Refused, get, integer, read, refuse

LABELS = ("click_poi", "click_creative", "conversion")
"""Outcomes of a slot, in the order of the reward model's towers."""


@dataclass(frozen=True)
class Feedback:
    """L lists of up to K slots. Rows of requests and of the catalog; -1 where a slot is empty."""

    request: np.ndarray  # [L] int64
    item: np.ndarray  # [L, K] int64
    creative: np.ndarray  # [L, K] int64
    label: np.ndarray  # [L, K, 3] float32, in the order of LABELS

    def __len__(self) -> int:
        return len(self.request)

    @property
    def filled(self) -> np.ndarray:
        """Which slots hold an item [L, K]."""
        return self.item >= 0

    def rows(self, index: np.ndarray) -> Feedback:
        """The lists of an index [M], or of a mask [L]."""
        return Feedback(self.request[index], self.item[index], self.creative[index], self.label[index])


def read_feedback(path: str | Path, requests: Mapping[Any, int], catalog: Catalog, slots: int) -> Feedback:
    """The lists of a file: `requests` gives the row of each id, `slots` is the model's K.

    A line is `{"request", "slots": [{"item", "creative", "click_poi", "click_creative", "conversion"}]}`.
    """
    lines = list(read(path))
    if not lines:
        raise Refused(f"{path}: no lists, expected at least one")
    request = np.empty(len(lines), np.int64)
    item = np.full((len(lines), slots), -1, np.int64)
    creative = np.full((len(lines), slots), -1, np.int64)
    label = np.zeros((len(lines), slots, len(LABELS)), np.float32)
    for i, (place, line) in enumerate(lines):
        name = get(place, line, "request")
        if name not in requests:
            raise refuse(place, "request", name, "the id of a request")
        request[i] = requests[name]
        entries = get(place, line, "slots")
        if not isinstance(entries, list) or not 1 <= len(entries) <= slots:
            raise refuse(place, "slots", entries, f"a list of 1 to {slots} slots")
        for k, entry in enumerate(entries):
            where = f"{place}: slot {k}"
            item[i, k], creative[i, k] = _shown(where, entry, catalog)
            if item[i, k] in item[i, :k]:
                raise refuse(where, "item", entry["item"], "an item that no slot before it shows")
            label[i, k] = [integer(where, name, get(where, entry, name), 0, 2) for name in LABELS]
    return Feedback(request, item, creative, label)


def _shown(place: str, entry: dict[str, Any], catalog: Catalog) -> tuple[int, int]:
    """Rows of a slot's item and creative."""
    item = catalog.row(get(place, entry, "item"))
    if item is None:
        raise refuse(place, "item", entry["item"], "the id of an item in the catalog")
    creative = catalog.creative_row(item, get(place, entry, "creative"))
    if creative is None:
        raise refuse(place, "creative", entry["creative"], f"the id of a creative of item {entry['item']}")
    return item, creative


def split(
    request: np.ndarray, validation: float, test: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows [.] to train on, to choose by and to report on, of rows with the requests given [L].

    The latter two hold these shares of the distinct requests, so that no request is on two sides.
    """
    distinct = np.random.default_rng(seed).permutation(np.unique(request))
    reported = max(1, round(test * len(distinct)))
    chosen = max(1, round(validation * len(distinct)))
    side = {int(r): 2 if i < reported else 1 for i, r in enumerate(distinct[: reported + chosen])}
    sides = np.array([side.get(int(r), 0) for r in request])
    train, choose, report = (np.flatnonzero(sides == number) for number in range(3))
    if not len(train):
        raise Refused(f"{len(distinct)} requests: none is left to train on, expected at least three")
    return train, choose, report


def smoothed_creative_rates(feedback: Feedback, creatives: int, prior: float = 20.0) -> np.ndarray:
    """Click rate of each creative [creatives] over all lists, drawn towards the overall rate by `prior` impressions."""
    filled = feedback.filled
    shown = feedback.creative[filled]
    clicked = feedback.label[filled][:, LABELS.index("click_creative")]
    views = np.bincount(shown, minlength=creatives)
    clicks = np.bincount(shown, weights=clicked, minlength=creatives)
    return (clicks + prior * clicked.mean()) / (views + prior)
