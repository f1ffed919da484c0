"""MCA, the multi-stage baseline: recall, ranking, creative selection, auction and fixed ad slots, each on its own.

- Recall: the generative model of phase 1 without bids, its beams the items. All candidates with the codes of a beam
  are taken, so that recall depends on no bid.
- Ranking: a point-wise model of clicks on POIs, trained on the same feedback as the reward model.
- Auction: ads ranked by bid x pctr fill the ad slots; a payment network with the inputs and the training of EGA's.
- Creative selection: a point-wise model of clicks on creatives.
- Organic items fill the other slots in their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from bidslate_train import engine
from bidslate_train.blocks import Mlp
from bidslate_train.catalog import Catalog
from bidslate_train.config import Config
from bidslate_train.misreports import GRID
from bidslate_train.payment import PaymentSettings, train_payment
from bidslate_train.pointwise import Inputs, PointModel
from bidslate_train.requests import Requests
from bidslate_train.slot_auction import AD_SLOTS, Candidates, Table
from bidslate_train.tables import write_lines

UNBOUND = {"alpha": 0.0, "beta": 1e6}
"""Token-level bidding without bids: every code weighs the same, to a millionth."""


@dataclass
class Stages:
    """The trained stages, over one set of requests."""

    config: Config
    catalog: Catalog
    requests: Requests
    inputs: Inputs
    ranking: PointModel
    selection: PointModel
    payment: Mlp
    recalled: list[np.ndarray]  # of each request: rows of the catalog, by id

    @torch.no_grad()
    def candidates(self, request: int) -> Candidates:
        """The recalled ads of a request, with what ranking says about them in each ad slot."""
        row, slots = self.recalled[request], self.ad_slots(request)
        count = len(row)
        inputs = self.inputs.ranking(np.full(count, request), row)
        features, pctr, pcvr = [], [], []
        for slot in slots:
            f, logits = self.ranking(inputs, torch.full((count,), slot))
            probability = torch.sigmoid(logits.double()).numpy()
            features.append(f.numpy())
            pctr.append(probability[:, 0])
            pcvr.append(probability[:, 1])
        unit = self.config.bid_unit_micros
        bid, reserve = self.catalog.bid_micros[row] / unit, self.catalog.reserve_micros[row] / unit
        stacked = (np.stack(values, 1) for values in (pctr, pcvr, features))
        return Candidates(row, bid, reserve, *stacked)

    def ad_slots(self, request: int) -> list[int]:
        """The ad slots that a request's list length, organic items and policy leave; at least one."""
        line = self.requests.lines[request]
        most = (line.get("policy") or {}).get("max_ads")
        free = min(len(line.get("organic", [])), len(AD_SLOTS) if most is None else most)
        slots = [slot for slot in AD_SLOTS[:free] if slot < self.list_len(request)]
        if not slots:
            raise ValueError(f"request {line['id']!r} leaves no ad slot of {AD_SLOTS}")
        return slots

    def list_len(self, request: int) -> int:
        """Slots of a request's list."""
        return self.requests.lines[request].get("list_len") or self.config.list_len


def recall(
    model: Path, catalog_path: Path, catalog: Catalog, requests: Requests, work: Path
) -> list[np.ndarray]:
    """The ads that each request's candidates are narrowed to; rows of the catalog by id.

    They are those with the codes of the beams of a search for one item without bids.
    """
    work.mkdir(parents=True, exist_ok=True)
    file, out = work / "recall.jsonl", work / "recall.safetensors"
    alone = {**UNBOUND, "list_len": 1, "organic": [], "policy": {}, "audit": "none"}
    write_lines(file, ({**line, **alone} for line in requests.lines))
    engine.bidslate(
        "generate", "--lists", "--model", model, "--catalog", catalog_path, "--requests", file, "--out", out,
        check=False,
    )  # fmt: skip
    found = load_file(out)["lists.item"][:, :, 0].numpy()
    return [
        expand(catalog, line["candidates"], beams) for line, beams in zip(requests.lines, found, strict=True)
    ]


def expand(catalog: Catalog, candidates: list[int] | str, found: np.ndarray) -> np.ndarray:
    """Rows of the candidates that share their codes with an item found, by id."""
    codes = {tuple(catalog.codes[catalog.rows[int(item)]]) for item in found if item >= 0}
    named = [int(i) for i in catalog.item_id[catalog.is_ad]] if candidates == "all" else candidates
    rows = [catalog.rows[item] for item in sorted(named)]
    biddable = catalog.bid_micros >= catalog.reserve_micros
    return np.array([row for row in rows if biddable[row] and tuple(catalog.codes[row]) in codes], np.int64)


def train_mca_payment(
    stages: Stages, settings: PaymentSettings, seed: int, out: Path | None = None
) -> dict[str, Any]:
    """Trains the payment network of `stages` in place on the regret of its own auction, as phase 2.3 does."""
    generator = np.random.default_rng(seed)
    table = Table(np.array(GRID), stages.config.list_len)
    count = min(settings.requests, len(stages.requests))
    for request in np.sort(generator.choice(len(stages.requests), count, replace=False)):
        candidates = stages.candidates(int(request))
        for sample in range(settings.samples):
            noise = generator.normal(size=len(candidates.bid)) * settings.sigma * (sample > 0)
            table.add(int(request), sample, candidates, candidates.bid * np.exp(noise))
    return train_payment(stages.payment, table.misreports(), settings, seed, out)
