"""A run's directory, and its steps: each is done once, and a run that was interrupted goes on with the next."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from bidslate_train import engine, export, golden, tokens
from bidslate_train.config import Config
from bidslate_train.export import replace
from bidslate_train.lines import Refused
from bidslate_train.pretrain import InterestData, PretrainSettings
from bidslate_train.pretrain import train as pretrain_model
from bidslate_train.pretrain import without_state as state_free
from bidslate_train.requests import Requests
from bidslate_train.settings import Settings
from bidslate_train.tokens import TokenSettings


@dataclass
class ImportSettings:
    """Table `import` of a run: options of `bidslate import check-ins`."""

    pois: int = 3000
    history: int = 32
    requests: int = 5500
    users: int | None = None


@dataclass
class WorldSettings:
    """Table `world` of a run: options of `lab logs`."""

    lists: int = 8  # logged for each training request


@dataclass(frozen=True)
class Run:
    """Settings and the directory that everything of the run lies in."""

    settings: Settings
    out: Path
    csv: Path | None = None  # the check-ins; fetched if not given

    @classmethod
    def open(cls, settings: Settings, out: Path, csv: Path | None = None) -> Run:
        """Makes the directory and keeps the configuration in it; one of another configuration is refused."""
        out.mkdir(parents=True, exist_ok=True)
        kept = out / "config.toml"
        if not kept.exists():
            replace(kept, settings.text)
        elif kept.read_text() != settings.text:
            raise Refused(f"{kept} differs from {settings.path}: name another --out, or remove {out}")
        return cls(settings, out, csv)

    @property
    def config(self) -> Config:
        """The model's sizes."""
        return self.settings.model

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.settings.seed

    @property
    def data(self) -> Path:
        """What the importer wrote."""
        return self.out / "data"

    @property
    def world(self) -> Path:
        """What the lab wrote: the truth."""
        return self.out / "world"

    @property
    def feedback(self) -> Path:
        """The logged lists and their clicks."""
        return self.out / "logs" / "feedback.jsonl"

    @property
    def catalog(self) -> Path:
        """The catalog with the codes of phase 0."""
        return self.out / "catalog.safetensors"

    @property
    def interest(self) -> Path:
        """The model directory of phase 1."""
        return self.out / "pretrain"

    def perform(self, name: str, step: Callable[[Run], None]) -> None:
        """Does a step, unless it is done; says how long it took."""
        done = self.out / "done" / name
        if done.exists():
            print(f"{name}: done before", flush=True)
            return
        clock = time.monotonic()
        step(self)
        done.parent.mkdir(exist_ok=True)
        seconds = time.monotonic() - clock
        done.write_text(f"{seconds:.1f} seconds\n")
        print(f"{name}: {seconds:.1f} s", flush=True)


def import_data(run: Run) -> None:
    """Check-ins to visits, items and requests, split; and the world, which is there before any model."""
    csv = run.csv or Path(
        subprocess.run(
            [engine.REPOSITORY / "scripts" / "fetch-nyc"], stdout=subprocess.PIPE, text=True, check=True
        ).stdout.strip()
    )
    options = run.settings.table("import", ImportSettings)
    sizes = [("--pois", options.pois), ("--history", options.history), ("--requests", options.requests)]
    if options.users is not None:
        sizes.append(("--users", options.users))
    flags = [part for pair in sizes for part in pair]
    engine.bidslate("import", "check-ins", "--csv", csv, "--out", run.data, "--seed", run.seed, *flags)
    engine.lab("split", "--data", run.data)
    engine.lab("world", "--data", run.data, "--out", run.world, "--seed", run.seed)


def make_tokens(run: Run) -> None:
    """Phase 0: quantizers, and the catalog with their codes."""
    directory = run.out / "tokens"
    quantizer = directory / "quantizer.safetensors"
    items = run.data / "items.jsonl"
    uses = tokens.train(run.config, run.settings.table("tokens", TokenSettings), items, quantizer, run.seed)
    replace(
        directory / "use.json", json.dumps({kind: asdict(use) for kind, use in uses.items()}, indent=2) + "\n"
    )
    replace(directory / "config.json", run.config.to_json())
    build = ("catalog", "build", "--model", directory, "--items", items, "--quantizer", quantizer)
    print(engine.bidslate(*build, "--out", run.catalog), end="", flush=True)


def pretrain(run: Run) -> None:
    """Phase 1: interest."""
    data = InterestData.read(run.data, run.catalog, run.config)
    check_requests(run, data)
    settings = run.settings.table("pretrain", PretrainSettings)
    pretrain_model(
        run.config, settings, data, run.interest, run.seed, run.out / "tokens" / "quantizer.safetensors"
    )


def check_requests(run: Run, data: InterestData) -> None:
    """Refuses data whose training requests are not what examples of the same visits are."""
    path = run.data / "requests-train.jsonl"
    requests = Requests.read(path, data.catalog, run.config)
    examples = data.examples_of(run.data / "heldout.jsonl", requests.ids)
    histories = examples.histories(np.arange(len(examples)))
    for row, name in enumerate(requests.ids):
        if requests.histories.plain(row) != histories.plain(row):
            raise Refused(f"{path}: request {name!r} differs from the visits that it stands behind")


def log_feedback(run: Run) -> None:
    """The lists that the logging policy shows, with the world's clicks."""
    options = run.settings.table("world", WorldSettings)
    run.feedback.parent.mkdir(exist_ok=True)
    inputs = ("--data", run.data, "--world", run.world, "--requests", run.data / "requests-train.jsonl")
    engine.lab("logs", *inputs, "--lists", options.lists, "--seed", run.seed, "--out", run.feedback)


def export_model(run: Run, requests: int = 128) -> None:
    """What ships: weights in BF16, catalog, a sample of the test requests, what items are, and goldens.

    Goldens are of the rounded model.
    """
    directory = run.out / "export"
    model = export.load(run.out / "payment")
    export.save(model, directory, torch.bfloat16, f"bidslate_train {run.settings.path.stem}")
    shutil.copyfile(run.catalog, directory / "catalog.safetensors")
    test = run.data / "requests-test.jsonl"
    lines = test.read_text().splitlines(keepends=True)
    count = min(requests, len(lines))
    sample = [lines[number * len(lines) // count] for number in range(count)]
    replace(directory / "requests.jsonl", "".join(sample))
    ids = {json.loads(line)["id"] for line in sample}
    replace(directory / "heldout.jsonl", "".join(_next_visits(run, ids)))
    shutil.copyfile(run.data / "labels.jsonl", directory / "labels.jsonl")
    golden.write(directory, test, run.out / "golden")


def _next_visits(run: Run, ids: set[str]) -> Iterator[str]:
    """Where the users of some requests went next; whose visit it was, and when, stays behind."""
    for line in (run.data / "heldout.jsonl").read_text().splitlines():
        visit = json.loads(line)
        if visit["id"] in ids:
            kept = {name: visit[name] for name in ("id", "item", "creative", "kind", "shown")}
            yield json.dumps(kept) + "\n"


def without_state(run: Run) -> None:
    """The creative decoder of the -mtp variant, on the model of phase 1."""
    data = InterestData.read(run.data, run.catalog, run.config)
    settings = run.settings.table("pretrain", PretrainSettings)
    state_free(export.load(run.interest), settings, data, run.out / "without-state", run.seed)
