"""Requests (`docs/formats.md`) as the encoder reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bidslate_train import lines
from bidslate_train.catalog import Catalog
from bidslate_train.config import Config
from bidslate_train.lines import Refused, refuse
from bidslate_train.model import Histories


@dataclass
class Requests:
    """The requests of a file, in its order."""

    lines: list[dict[str, Any]]  # as they stand in the file
    histories: Histories

    @property
    def ids(self) -> list[str | int]:
        """The requests' ids."""
        return [line["id"] for line in self.lines]

    def __len__(self) -> int:
        return len(self.lines)

    def subset(self, rows: np.ndarray) -> Requests:
        """The requests in some rows [N]."""
        return Requests([self.lines[row] for row in rows], self.histories.rows(torch.from_numpy(rows)))

    @classmethod
    def read(cls, path: str | Path, catalog: Catalog, config: Config) -> Requests:
        """Reads a file of requests; one without lines is refused."""
        found: list[dict[str, Any]] = []
        past, context = [], []
        for place, line in lines.read(path):
            lines.get(place, line, "id")
            history = lines.get(place, line, "history")
            kept = history[max(0, len(history) - config.history_len) :]
            past.append(
                [_behavior(f"{place}, behaviour {i}", b, catalog, config) for i, b in enumerate(kept)]
            )
            context.append(lines.features(place, "context", line.get("context", {}), config.context_features))
            found.append(line)
        if not found:
            raise Refused(f"{path}: no requests")
        return cls(found, _histories(past, context, config))


Behavior = tuple[list[int], list[int], dict[str, int]]


def _behavior(place: str, entry: dict[str, Any], catalog: Catalog, config: Config) -> Behavior:
    """Codes, creative codes and features of a past behaviour."""
    given = lines.features(place, "features", entry.get("features", {}), config.behavior_features)
    if "codes" in entry:
        codes, row = entry["codes"], None
    else:
        row = catalog.row(lines.get(place, entry, "item"))
        if row is None:
            raise refuse(place, "item", entry["item"], "an item of the catalog")
        codes = catalog.codes[row].tolist()
    if "creative_codes" in entry:
        return codes, entry["creative_codes"], given
    creative = None if row is None else catalog.creative_row(row, lines.get(place, entry, "creative"))
    if creative is None:
        raise refuse(place, "creative", entry.get("creative"), "a creative of the item")
    return codes, catalog.creative_codes[creative].tolist(), given


def _histories(past: list[list[Behavior]], context: list[dict[str, int]], config: Config) -> Histories:
    longest = max(1, max(len(history) for history in past))
    none: Behavior = ([0] * config.poi_code_layers, [0] * config.creative_code_layers, {})
    padded = [history + [none] * (longest - len(history)) for history in past]
    names = config.behavior_features
    return Histories(
        torch.tensor([[codes for codes, _, _ in history] for history in padded]),
        torch.tensor([[creative for _, creative, _ in history] for history in padded]),
        {n: torch.tensor([[given.get(n, -1) for _, _, given in h] for h in padded]) for n in names},
        {n: torch.tensor([given.get(n, -1) for given in context]) for n in config.context_features},
        torch.tensor([len(history) for history in past]),
    )
