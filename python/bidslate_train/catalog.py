"""The catalog file, as `bidslate catalog build` writes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from bidslate_train.lines import Refused


class Catalog:
    """Items and creatives by row. Ids in files are external; everything else here speaks of rows."""

    def __init__(self, path: str | Path) -> None:
        columns = load_file(path)
        self.item_id = columns["item.id"]  # [N] uint64
        self.is_ad = columns["item.kind"] == 1  # [N]
        self.bid_micros = np.where(self.is_ad, columns["item.bid_micros"], 0).astype(np.int64)  # [N]
        self.reserve_micros = columns["item.reserve_micros"].astype(np.int64)  # [N]
        self.codes = columns["item.codes"].astype(np.int64)  # [N, C_p]
        self.embedding = columns["item.embedding"].astype(np.float32)  # [N, d_item]
        self.offsets = columns["item.creative_offsets"].astype(np.int64)  # [N + 1]
        self.creative_id = columns["creative.id"]  # [M] uint64
        self.creative_codes = columns["creative.codes"].astype(np.int64)  # [M, C_c]
        bad = np.flatnonzero(~np.isfinite(self.embedding).all(1))
        if len(bad):
            raise Refused(
                f"{path}: `item.embedding` of item {self.item_id[bad[0]]} is not finite, expected numbers"
            )
        self.rows = {int(item): row for row, item in enumerate(self.item_id)}
        owner = np.repeat(np.arange(len(self.item_id)), np.diff(self.offsets))
        pairs = zip(owner.tolist(), self.creative_id.tolist(), strict=True)
        self._creatives = {pair: row for row, pair in enumerate(pairs)}

    def row(self, item: object) -> int | None:
        """Row of an item id, `None` if there is none."""
        return self.rows.get(item) if isinstance(item, int) else None

    def creative_row(self, item_row: int, creative: object) -> int | None:
        """Row of a creative id among those of the item in a row, `None` if there is none."""
        return self._creatives.get((item_row, creative)) if isinstance(creative, int) else None
