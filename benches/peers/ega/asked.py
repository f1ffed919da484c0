"""Requests as both versions read them: which items each may show, and its options.

They know the aggregate `max`, the scope `prefix` and the payment `network`; what else a request asks for is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from bidslate_train.catalog import Catalog
from bidslate_train.config import Config
from bidslate_train.lines import Refused
from bidslate_train.requests import Requests

KNOWN = {
    "id", "context", "history", "candidates", "organic", "policy", "alpha", "beta", "objective", "list_len",
    "beam_width", "tie_seed",
}  # fmt: skip
UNKNOWN_COLUMNS = ("item.active", "advertiser.budget_micros", "advertiser.pacing")
"""What may switch an ad off or change its bid, which neither version looks at."""


def open_catalog(path: Path) -> Catalog:
    """The catalog of a file; one with switches, budgets or pacing is refused."""
    with safe_open(path, "np") as file:
        found = sorted(set(file.keys()) & set(UNKNOWN_COLUMNS))
    if found:
        raise Refused(f"{path}: columns {found}, expected a catalog without them")
    return Catalog(path)


def plain(line: dict[str, Any], catalog: Catalog) -> dict[str, Any]:
    """A request that names its candidates and organic items one by one, without those that may not be shown."""
    unknown = set(line) - KNOWN
    if unknown:
        raise Refused(f"request {line['id']}: {sorted(unknown)}, expected a request without them")
    candidates = line["candidates"]
    if candidates == "all":
        candidates = [int(item) for item in catalog.item_id[catalog.is_ad]]

    def showable(item: int) -> bool:
        row = catalog.rows[item]
        return catalog.offsets[row] < catalog.offsets[row + 1]

    def pays(item: int) -> bool:
        row = catalog.rows[item]
        return catalog.bid_micros[row] >= catalog.reserve_micros[row]

    ads = [item for item in candidates if showable(item) and pays(item)]
    return line | {"candidates": ads, "organic": [item for item in line.get("organic", []) if showable(item)]}


@dataclass
class World:
    """What does not change from request to request."""

    config: Config
    catalog: Catalog

    @classmethod
    def of(cls, directory: Path) -> World:
        """The world of a model directory."""
        config = Config.from_json(directory / "config.json")
        return cls(config, open_catalog(directory / "catalog.safetensors"))

    def requests(self, path: Path) -> Requests:
        """The requests of a file, made plain."""
        found = Requests.read(path, self.catalog, self.config)
        return Requests([plain(line, self.catalog) for line in found.lines], found.histories)


def repeated(path: Path, count: int, out: Path, changes: dict[str, Any]) -> None:
    """Writes `count` lines, those of a file again and again, with some keys changed (`None`: left out)."""
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    kept = []
    for i in range(count):
        line = {**lines[i % len(lines)], **changes, "id": f"{i}"}
        kept.append(json.dumps({key: value for key, value in line.items() if value is not None}) + "\n")
    out.write_text("".join(kept))
