"""What EGA is compared with: MCA from its stages, GR's catalog, and what its ablations change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bidslate_train import export, lines
from bidslate_train.alignment import Alignment
from bidslate_train.blocks import Mlp
from bidslate_train.catalog import Catalog
from bidslate_train.feedback import smoothed_creative_rates
from bidslate_train.lines import get
from bidslate_train.mca import Stages, recall, train_mca_payment
from bidslate_train.mca_responses import answer
from bidslate_train.model import TOWER_SIZES
from bidslate_train.payment import PaymentSettings
from bidslate_train.pointwise import Inputs, train_point_model
from bidslate_train.requests import Requests
from bidslate_train.reward import RewardSettings
from bidslate_train.tables import write_csv, write_lines


def multi_stage(alignment: Alignment, feedback: Path, tests: Requests, out: Path, seed: int) -> None:
    """Trains the stages of MCA and writes its responses to the test requests, `responses.jsonl`."""
    a = alignment
    out.mkdir(parents=True, exist_ok=True)
    model = export.load(a.run.interest)
    inputs = Inputs.of(model, a.interest(model, a.train, "train"), a.catalog)
    shown = a.feedback(feedback)
    settings = a.run.settings.table("reward", RewardSettings)
    ranking, curve = train_point_model(a.config, inputs, shown, False, settings, seed)
    write_csv(out / "ranking.csv", curve)
    selection, curve = train_point_model(a.config, inputs, shown, True, settings, seed + 1)
    write_csv(out / "selection.csv", curve)
    torch.manual_seed(seed)
    payment = Mlp([a.config.reward_hidden_size + a.config.list_len, *TOWER_SIZES])

    def stages(requests: Requests, name: str) -> Stages:
        found = recall(a.run.interest, a.run.catalog, a.catalog, requests, out / name)
        own = Inputs(a.interest(model, requests, name), inputs.item, inputs.creative)
        return Stages(a.config, a.catalog, requests, own, ranking, selection, payment, found)

    metrics = train_mca_payment(
        stages(a.train, "train"), a.run.settings.table("payment", PaymentSettings), seed, out
    )
    export.replace(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    answer(stages(tests, "test"), out / "responses.jsonl")


def top_creatives(alignment: Alignment, feedback: Path, out: Path) -> None:
    """GR's creative selection: the items of the import with one creative each, that of the best smoothed click rate.

    The engine builds GR's catalog from them, with the codes of the run's catalog.
    """
    a = alignment
    catalog = a.catalog
    rates = smoothed_creative_rates(a.feedback(feedback), len(catalog.creative_id))

    def kept(place: str, item: dict[str, Any]) -> dict[str, Any]:
        row = catalog.rows[get(place, item, "id")]
        span = np.arange(catalog.offsets[row], catalog.offsets[row + 1])
        best = int(span[rates[span].argmax()])
        creative = {"id": int(catalog.creative_id[best]), "codes": catalog.creative_codes[best].tolist()}
        return {**item, "codes": catalog.codes[row].tolist(), "creatives": [creative]}

    write_lines(out, (kept(place, item) for place, item in lines.read(a.run.data / "items.jsonl")))


def by_codes(catalog: Catalog, request: dict[str, Any]) -> dict[str, Any]:
    """A request whose past creatives are given by their codes, for a catalog that no longer holds them all."""

    def codes(behavior: dict[str, Any]) -> dict[str, Any]:
        rest = {key: value for key, value in behavior.items() if key != "creative"}
        creative = catalog.creative_row(catalog.rows[behavior["item"]], behavior["creative"])
        return {**rest, "creative_codes": catalog.creative_codes[creative].tolist()}

    return {**request, "history": [codes(behavior) for behavior in request["history"]]}


def with_reward(base: Path, reward: Path, out: Path) -> None:
    """A model directory with the reward model of another; both read the same encoder and embeddings."""
    model = export.load(base)
    state = export.load(reward).state_dict()
    model.load_state_dict({n: v for n, v in state.items() if n.startswith("reward.")}, strict=False)
    export.save(model, out)
