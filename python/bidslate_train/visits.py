"""Visits of users (`visits.jsonl`), and the examples of phase 1 that are cut from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bidslate_train import lines
from bidslate_train.catalog import Catalog
from bidslate_train.config import Config
from bidslate_train.lines import Refused, refuse
from bidslate_train.model import Histories

TRAIN_BACK = 11
"""Training sees a user's visits but the last TRAIN_BACK - 1; the requests on those are for tests alone."""


@dataclass
class Visits:
    """All visits, user after user, in time order. Items and creatives are rows of the catalog."""

    start: np.ndarray  # [U + 1]: user u owns visits start[u] to start[u + 1]
    users: list[int]  # [U]: the ids in the file
    item: np.ndarray  # [n]
    creative: np.ndarray  # [n]
    second: np.ndarray  # [n]
    features: dict[str, np.ndarray]  # each [n], -1 where not given
    context: dict[str, np.ndarray]  # each [n], -1 where not given

    @classmethod
    def read(cls, path: str | Path, catalog: Catalog, config: Config) -> Visits:
        """Reads the file; what does not fit the catalog, the features or time's order is refused."""
        own = {name: size for name, size in config.behavior_features.items() if name != "recency"}
        users: list[int] = []
        start: list[int] = []
        rows: list[tuple[int, int, int]] = []
        features: list[dict[str, int]] = []
        context: list[dict[str, int]] = []
        for place, line in lines.read(path):
            user = lines.integer(place, "user", lines.get(place, line, "user"))
            if not users or user != users[-1]:
                if users and user < users[-1]:
                    raise refuse(place, "user", user, f"{users[-1]} or a later user")
                users.append(user)
                start.append(len(rows))
            index = len(rows) - start[-1]
            if lines.get(place, line, "visit") != index:
                raise refuse(place, "visit", line["visit"], f"{index}, the user's next")
            second = lines.integer(place, "second", lines.get(place, line, "second"))
            if index and second < rows[-1][2]:
                raise refuse(place, "second", second, f"at least {rows[-1][2]}, that of the visit before")
            rows.append((*_bought(place, line, catalog), second))
            features.append(lines.features(place, "features", lines.get(place, line, "features"), own))
            context.append(
                lines.features(place, "context", lines.get(place, line, "context"), config.context_features)
            )
        if not rows:
            raise Refused(f"{path}: no visits")
        item, creative, second = np.array(rows, dtype=np.int64).T
        return cls(
            np.array([*start, len(rows)]),
            users,
            item,
            creative,
            second,
            {name: np.array([f.get(name, -1) for f in features]) for name in own},
            {name: np.array([c.get(name, -1) for c in context]) for name in config.context_features},
        )


def _bought(place: str, line: dict, catalog: Catalog) -> tuple[int, int]:
    """Rows of a line's item and creative."""
    item = catalog.row(lines.get(place, line, "item"))
    if item is None:
        raise refuse(place, "item", line["item"], "an item of the catalog")
    creative = catalog.creative_row(item, lines.get(place, line, "creative"))
    if creative is None:
        raise refuse(place, "creative", line["creative"], f"a creative of item {line['item']}")
    return item, creative


@dataclass
class Targets:
    """Y: where the users went next, up to K items each."""

    poi_codes: Tensor  # [N, K, C_p] int64, 0 where there is none
    creative_codes: Tensor  # [N, K, C_c] int64
    item: Tensor  # [N, K] int64: rows of the catalog, -1 where there is none

    def to(self, device: torch.device | str) -> Targets:
        """The same on a device."""
        return Targets(self.poi_codes.to(device), self.creative_codes.to(device), self.item.to(device))

    @property
    def real(self) -> Tensor:
        """Which targets there are [N, K]."""
        return self.item >= 0


class Examples:
    """A history and the visits that followed it, for each of some positions.

    An example at a visit t has the (up to) B visits before t as its history and the context of t. Its targets are
    the next K different items from t on: a list shows no item twice, so the second visit to one is no target.
    """

    def __init__(
        self,
        visits: Visits,
        catalog: Catalog,
        config: Config,
        recency_seconds: list[int],
        positions: np.ndarray,
        targets_end: np.ndarray,
    ) -> None:
        """`positions` [E] are indices of visits, `targets_end` [E] the visits at which their targets end."""
        self.visits, self.catalog, self.config = visits, catalog, config
        self.recency = np.array(recency_seconds)
        user = np.searchsorted(visits.start, positions, side="right") - 1
        self.positions = positions
        self.first = np.maximum(visits.start[user], positions - config.history_len)
        self.targets_at = _targets(
            visits.item, positions, targets_end, config.list_len
        )  # [E, K], -1 for none

    def __len__(self) -> int:
        return len(self.positions)

    @classmethod
    def training(
        cls, visits: Visits, catalog: Catalog, config: Config, recency_seconds: list[int]
    ) -> Examples:
        """Every position whose visit is for training, no target later than that."""
        ends = visits.start[1:] - (TRAIN_BACK - 1)
        spans = [np.arange(a, b) for a, b in zip(visits.start[:-1], ends, strict=True) if b > a]
        if not spans:
            raise Refused(f"no user has more than {TRAIN_BACK - 1} visits: nothing to train on")
        limits = [np.full(len(span), span[-1] + 1) for span in spans]
        return cls(visits, catalog, config, recency_seconds, np.concatenate(spans), np.concatenate(limits))

    @classmethod
    def held_out(
        cls, visits: Visits, catalog: Catalog, config: Config, recency_seconds: list[int], back: range
    ) -> Examples:
        """The positions with `back` visits to come, of users that have as many."""
        users = range(len(visits.users))
        pairs = [(visits.start[u + 1] - b, visits.start[u + 1]) for u in users for b in back]
        pairs = [
            (at, end)
            for u, (at, end) in zip(np.repeat(users, len(back)), pairs, strict=True)
            if at >= visits.start[u]
        ]
        if not pairs:
            raise Refused(f"no user has {min(back)} visits: nothing is held out")
        positions, ends = np.array(pairs).T
        return cls(visits, catalog, config, recency_seconds, positions, ends)

    @classmethod
    def of_requests(
        cls,
        visits: Visits,
        catalog: Catalog,
        config: Config,
        recency_seconds: list[int],
        held_out: str | Path,
        ids: Sequence[str | int],
    ) -> Examples:
        """The examples of requests by their ids: row i stands just before the visit that `heldout.jsonl` names for it.

        Targets end where those of training do, so an example later than that has none.
        """
        places = {line["id"]: (place, line) for place, line in lines.read(held_out)}
        users = {user: row for row, user in enumerate(visits.users)}
        positions, ends = [], []
        for name in ids:
            if name not in places:
                raise Refused(f"{held_out}: no line for request {name!r}")
            place, line = places[name]
            user = users.get(lines.get(place, line, "user"))
            if user is None:
                raise refuse(place, "user", line["user"], "a user of visits.jsonl")
            start, end = int(visits.start[user]), int(visits.start[user + 1])
            positions.append(
                start + lines.integer(place, "visit", lines.get(place, line, "visit"), 0, end - start)
            )
            ends.append(end - (TRAIN_BACK - 1))
        return cls(visits, catalog, config, recency_seconds, np.array(positions), np.array(ends))

    def histories(self, index: np.ndarray, most: int | None = None) -> Histories:
        """What the encoder reads of the examples in an index [N]: all behaviours, or the last `most`."""
        at, first = self.positions[index], self.first[index]
        if most is not None:
            first = np.maximum(first, at - most)
        length = at - first
        steps = np.arange(max(1, length.max()))
        past = np.minimum(first[:, None] + steps, len(self.visits.item) - 1)  # [N, B']
        v = self.visits
        features = {name: v.features[name][past] for name in v.features}
        if "recency" in self.config.behavior_features:
            age = v.second[at][:, None] - v.second[past]
            features["recency"] = np.searchsorted(self.recency, age, side="right")
        return Histories(
            torch.from_numpy(self.catalog.codes[v.item[past]]),
            torch.from_numpy(self.catalog.creative_codes[v.creative[past]]),
            {name: torch.from_numpy(values) for name, values in features.items()},
            {name: torch.from_numpy(values[at]) for name, values in v.context.items()},
            torch.from_numpy(length),
        )

    def targets(self, index: np.ndarray) -> Targets:
        """Where the users of the examples in an index [N] went next."""
        at = self.targets_at[index]
        item, creative = self.visits.item[at], self.visits.creative[at]
        none = at < 0
        return Targets(
            torch.from_numpy(np.where(none[..., None], 0, self.catalog.codes[item])),
            torch.from_numpy(np.where(none[..., None], 0, self.catalog.creative_codes[creative])),
            torch.from_numpy(np.where(none, -1, item)),
        )


def _targets(item: np.ndarray, positions: np.ndarray, ends: np.ndarray, count: int) -> np.ndarray:
    """Visits [E, K] at which the next `count` different items are first visited, -1 behind the last."""
    table = np.full((len(positions), count), -1)
    for row, (at, end) in enumerate(zip(positions.tolist(), ends.tolist(), strict=True)):
        seen: dict[int, int] = {}
        for visit in range(at, end):
            seen.setdefault(int(item[visit]), visit)
            if len(seen) == count:
                break
        table[row, : len(seen)] = list(seen.values())
    return table


def recency_seconds(summary: str | Path) -> list[int]:
    """Upper ends (exclusive) of the buckets of the feature `recency` but the last, from `summary.json`."""
    values = json.loads(Path(summary).read_text()).get("recency_seconds")
    if not isinstance(values, list) or sorted(set(values)) != values:
        raise refuse(str(summary), "recency_seconds", values, "growing ages in seconds")
    return values
