"""Phases 2.1 to 2.3 of a run: reward model, generative allocation, payment network.

Each reads the model directory of the phase before it and writes its own, so that variants share what they have in
common.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor

from bidslate_train import export, misreports
from bidslate_train.catalog import Catalog
from bidslate_train.config import Config
from bidslate_train.feedback import Feedback, read_feedback
from bidslate_train.misreports import Misreports
from bidslate_train.model import Model
from bidslate_train.payment import PaymentSettings, train_payment
from bidslate_train.policy import Phase, PolicySettings, train_policy
from bidslate_train.pretrain import InterestData
from bidslate_train.requests import Requests
from bidslate_train.reward import Lists, RewardSettings, interests, train_reward
from bidslate_train.run import Run
from bidslate_train.tables import write_lines
from bidslate_train.visits import Examples

Overrides = dict[str, Any]
"""Keys that replace those of the requests, e.g. `bid_aggregate`."""


@dataclass(frozen=True)
class Alignment:
    """What the phases read of a run, and how they are set."""

    run: Run

    @property
    def config(self) -> Config:
        """The model's sizes."""
        return self.run.config

    @cached_property
    def catalog(self) -> Catalog:
        """The catalog with the codes of phase 0."""
        return Catalog(self.run.catalog)

    @cached_property
    def train(self) -> Requests:
        """The training requests."""
        return Requests.read(self.run.data / "requests-train.jsonl", self.catalog, self.config)

    @cached_property
    def test(self) -> Requests:
        """The test requests."""
        return Requests.read(self.run.data / "requests-test.jsonl", self.catalog, self.config)

    @cached_property
    def interest_data(self) -> InterestData:
        """What phase 1 trains on."""
        return InterestData.read(self.run.data, self.run.catalog, self.config)

    @cached_property
    def examples(self) -> Examples:
        """The training requests as examples of phase 1."""
        return self.interest_data.examples_of(self.run.data / "heldout.jsonl", self.train.ids)

    def feedback(self, path: Path) -> Feedback:
        """A file of feedback on training requests."""
        rows = {name: row for row, name in enumerate(self.train.ids)}
        return read_feedback(path, rows, self.catalog, self.config.list_len)

    def interest(self, model: Model, requests: Requests, name: str) -> Tensor:
        """Mean of S_e of requests under phase 1's encoder, computed once: whatever trains later leaves it as it is."""
        path = self.run.out / "interest" / f"{name}.safetensors"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            save_file({"interest": interests(model, requests.histories)}, path)
        return load_file(path)["interest"]

    def train_reward(self, base: Path, feedback: Path, out: Path, seed: int) -> None:
        """Phase 2.1."""
        model = export.load(base)
        lists = Lists.of(self.feedback(feedback), self.interest(model, self.train, "train"), self.catalog)
        found = train_reward(model, lists, self.run.settings.table("reward", RewardSettings), seed, out)
        _finish(model, out, found)

    def train_policy(
        self,
        base: Path,
        out: Path,
        seed: int,
        overrides: Overrides | None = None,
        with_creatives: bool = True,
    ) -> None:
        """Phase 2.2."""
        model = export.load(base)
        settings = self.run.settings.table("policy", PolicySettings)
        settings = replace(settings, overrides={**settings.overrides, **(overrides or {})})
        phase = Phase(model, self.train, self.examples, self.run.catalog, out / "work", with_creatives)
        _finish(model, out, train_policy(phase, settings, seed))

    def train_payment(self, base: Path, out: Path, seed: int, overrides: Overrides | None = None) -> None:
        """Phase 2.3."""
        settings = self.run.settings.table("payment", PaymentSettings)
        table = self.misreports(base, out, seed, overrides)
        model = export.load(base)
        found = train_payment(model.payment["mlp"], table, settings, seed, out)
        _finish(model, out, found)

    def misreports(self, base: Path, out: Path, seed: int, overrides: Overrides | None = None) -> Misreports:
        """The table that the payment network of a model trains on, on a sample of the training requests."""
        settings = self.run.settings.table("payment", PaymentSettings)
        generator = np.random.default_rng(seed)
        count = min(settings.requests, len(self.train))
        rows = np.sort(generator.choice(len(self.train), count, replace=False))
        file = out / "requests.jsonl"
        write_lines(file, ({**self.train.lines[row], **(overrides or {})} for row in rows))
        table = out / "misreports.safetensors"
        draws = (settings.tier, settings.samples, settings.sigma, seed)
        return misreports.write(base, self.run.catalog, file, table, *draws)


def _finish(model: Model, out: Path, metrics: dict[str, Any]) -> None:
    export.save(model, out)
    text = json.dumps(metrics, indent=2) + "\n"
    export.replace(out / "metrics.json", text)
    print(f"{out.name}: {json.dumps(metrics)}", flush=True)


def step(work: Callable[[Alignment], None]) -> Callable[[Run], None]:
    """A step of a run."""

    def perform(run: Run) -> None:
        work(Alignment(run))

    perform.__doc__ = work.__doc__
    return perform


@step
def reward(a: Alignment) -> None:
    """Phase 2.1: the reward model, on feedback."""
    a.train_reward(a.run.interest, a.run.feedback, a.run.out / "reward", a.run.seed)


@step
def policy(a: Alignment) -> None:
    """Phase 2.2: generative allocation, on the engine's own lists."""
    a.train_policy(a.run.out / "reward", a.run.out / "policy", a.run.seed)


@step
def payment(a: Alignment) -> None:
    """Phase 2.3: the payment network, on the engine's table of misreports."""
    a.train_payment(a.run.out / "policy", a.run.out / "payment", a.run.seed)
