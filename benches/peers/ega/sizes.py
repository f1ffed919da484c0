"""The sizes that tensors, compiled functions and graphs are made for: the most that any request of a run needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bidslate_train.catalog import Catalog
from bidslate_train.config import Config
from bidslate_train.requests import Requests

from .candidates import Candidates


@dataclass(frozen=True)
class Sizes:
    """Sizes of a batch. A batch with fewer requests or smaller ones is padded."""

    batch: int
    behaviors: int
    full: bool  # every history has that many, so that no key needs a mask
    beams: int
    ads: int
    organics: int
    nodes: tuple[int, ...]  # by level
    children: tuple[int, ...]  # by level: of one node of the level above
    creatives: int  # of one item

    @classmethod
    def of(
        cls, batch: int, requests: Requests, asked: Sequence[Candidates], config: Config, catalog: Catalog
    ) -> Sizes:
        """Room for any `batch` of the requests."""
        lengths = requests.histories.length
        layers = range(config.poi_code_layers)
        levels = [[c.levels[layer] for c in asked] for layer in layers]
        return cls(
            batch,
            int(lengths.max()),
            bool((lengths == lengths.max()).all()),
            max(line.get("beam_width", config.beam_width) for line in requests.lines),
            max(1, *(len(c.ad_row) for c in asked)),
            max(1, *(len(c.organic_row) for c in asked)),
            tuple(max(1, *(len(level.code) for level in found)) for found in levels),
            tuple(
                max(1, *(int(np.diff(level.first_child).max(initial=0)) for level in found))
                for found in levels
            ),
            int(np.diff(catalog.offsets).max()),
        )
