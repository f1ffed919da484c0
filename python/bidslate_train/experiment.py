"""The paper's tables and figures: variants x seeds, judged by the world; `python -m bidslate_train report --data nyc`.

Variants share phases 0 and 1. A seed draws the feedback, and everything that trains on it. Each step is done once, so
that a report that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from bidslate_train import baselines, engine, export, sweeps
from bidslate_train import run as steps
from bidslate_train.alignment import Alignment, Overrides
from bidslate_train.end_to_end import train_end_to_end
from bidslate_train.mca import UNBOUND
from bidslate_train.requests import Requests
from bidslate_train.run import Run, WorldSettings
from bidslate_train.tables import write_lines


@dataclass(frozen=True)
class ReportSettings:
    """Table `report` of a run."""

    seeds: int = 3
    end_seeds: int = 1  # of -end, which trains everything anew
    tests: int = 382  # test requests, spread evenly over all
    alphas: list[float] = field(default_factory=lambda: [0.0, 1.2, 2.0, 3.0])
    betas: list[float] = field(default_factory=lambda: [0.5, 2.0, 5.0, 10.0, 20.0])
    rhos: list[float] = field(default_factory=lambda: [1.0, 3.0, 10.0, 30.0])


MEAN = {"bid_aggregate": "mean"}
GSP = {"payment": "gsp"}
GR = {**UNBOUND, "objective": {"revenue": 0.0, "ctr_poi": 1.0}, **GSP}
"""GR generates without bids and picks the list of the most expected clicks."""
NOTES = [
    "Histories are real check-ins; bids, creatives and clicks are made up (docs/data.md, docs/world.md).",
    "Seeds draw the feedback and all training after phase 1; phases 0 and 1 are shared.",
    "EGA's payment network trains on misreports of the tier that the run's settings name, with what a new search or "
    "another choice among the candidate lists would bring.",
    "MCA narrows the candidates to the items of as many beams as EGA searches with; its audit and the training of its "
    "payment network run its own auction again.",
    "GR: generation where all codes weigh the same whatever the bids, the list with the most expected clicks, for each "
    "item its creative with the best smoothed click rate, GSP.",
    "EGA-mtp: the creative decoder sees no state of the POI decoder and L_MTP leaves phase 2.2; it keeps the encoder "
    "that was pre-trained with both losses, which makes the ablation weaker than the paper's.",
    "EGA-policy leaves phase 2.2 out: the decoder of phase 1, with a payment network of its own.",
    "Over alpha: the same decoder, each point with a payment network of its own, because alpha decides what a "
    "lower bid would change.",
    "EGA-end trains from random weights on all losses at once; its seeds are `end_seeds` of the configuration.",
]


class Experiment:
    """Runs what is missing and collects the rows of `experiment.json`."""

    def __init__(self, run: Run) -> None:
        self.run, self.a = run, Alignment(run)
        self.settings = run.settings.table("report", ReportSettings)
        self.out = run.out / "report"
        self.rows: list[dict[str, Any]] = []

    def step(self, name: str, work: Callable[[], None]) -> None:
        """Does a step, unless it is done."""
        self.run.perform(f"report-{name}", lambda _: work())

    @cached_property
    def tests(self) -> Requests:
        """The requests that everything is judged on."""
        count = len(self.a.test)
        rows = np.unique(np.linspace(0, count - 1, min(self.settings.tests, count)).astype(int))
        return self.a.test.subset(rows)

    def requests(self, path: Path, overrides: Overrides, by_codes: bool = False) -> Path:
        """The test requests with some keys replaced, as a file; `by_codes`: past creatives by their codes."""
        found = (baselines.by_codes(self.a.catalog, line) if by_codes else line for line in self.tests.lines)
        write_lines(path, ({**line, **overrides} for line in found))
        return path

    def judge(
        self,
        table: str,
        variant: str,
        seed: int,
        model: Path,
        overrides: Overrides,
        x: float | None = None,
        catalog: Path | None = None,
    ) -> None:
        """Lets the engine answer the test requests and the world judge the answers."""
        name = "-".join(str(part) for part in (table, variant, seed, x) if part is not None)
        work = self.out / "outcomes" / name

        def answer() -> None:
            requests = self.requests(work / "requests.jsonl", overrides, by_codes=catalog is not None)
            engine.bidslate(
                "allocate", "--model", model, "--catalog", catalog or self.run.catalog, "--requests", requests,
                "--out", work / "responses.jsonl",
            )  # fmt: skip
            self.evaluate(work)

        self.step(name, answer)
        self.add(table, variant, seed, x, work)

    def evaluate(self, work: Path) -> None:
        """The world's judgement of the responses in a directory."""
        engine.lab(
            "evaluate", "--data", self.run.data, "--world", self.run.world, "--requests", work / "requests.jsonl",
            "--responses", work / "responses.jsonl", "--out", work / "outcomes.jsonl",
        )  # fmt: skip

    def add(self, table: str, variant: str, seed: int, x: float | None, work: Path) -> None:
        """Notes a row of the report."""
        row: dict[str, Any] = {"table": table, "variant": variant, "seed": seed}
        if x is not None:
            row["x"] = x
        self.rows.append({**row, "outcomes": os.path.relpath(work / "outcomes.jsonl", self.out)})

    def perform(self) -> None:
        """Everything, and the report."""
        self.step("without-state", lambda: steps.without_state(self.run))
        for number in range(self.settings.seeds):
            self.seed(self.run.seed + number)
            self.write()
        self.bounds()
        self.sweeps()
        self.publish()
        for number in range(self.settings.end_seeds):
            seed = self.run.seed + number
            self.judge("3", "EGA-end", seed, Seed(self, seed).end_to_end(), {"audit": "redecode"})
        self.publish()

    def publish(self) -> None:
        """Writes what there is so far, and the report on it."""
        self.write()
        report = engine.lab("report", "--experiment", self.out / "experiment.json", "--out", self.out)
        print(report, end="", flush=True)

    def seed(self, seed: int) -> None:
        """All variants of one seed."""
        s = Seed(self, seed)
        redecode, reselect = {"audit": "redecode"}, {"audit": "reselect"}
        ega = s.ega()
        self.judge("2", "EGA", seed, ega, redecode)
        self.judge("psi", "EGA", seed, ega, reselect)
        self.judge("2", "GR", seed, s.reward(), {**GR, **redecode}, catalog=s.gr_catalog())
        s.mca()
        self.judge("3", "EGA-mtp", seed, s.without_states(), redecode)
        self.judge("3", "EGA-bid", seed, s.mean_bids(), {**MEAN, **redecode})
        self.judge("3", "EGA-policy", seed, s.without_policy(), redecode)
        self.judge("3", "EGA-gsp", seed, ega, {**GSP, **redecode})
        self.judge("psi", "EGA-gsp", seed, ega, {**GSP, **reselect})

    def bounds(self) -> None:
        """Random lists and the world's own choice."""
        for policy in ("random", "oracle"):
            work = self.out / "outcomes" / policy

            def answer(policy: str = policy, work: Path = work) -> None:
                requests = self.requests(work / "requests.jsonl", {})
                engine.lab(
                    "lists", "--data", self.run.data, "--world", self.run.world, "--requests", requests,
                    "--policy", policy, "--out", work / "responses.jsonl",
                )  # fmt: skip
                self.evaluate(work)

            self.step(policy, answer)
            self.add("bound", policy, self.run.seed, None, work)

    def sweeps(self) -> None:
        """Figure 5 and the penalty of the payment network, on the first seed."""
        seed = self.run.seed
        s = Seed(self, seed)
        for alpha in self.settings.alphas:
            overrides = {"alpha": alpha, "audit": "redecode"}
            self.judge("alpha", "EGA", seed, s.at_alpha(alpha), overrides, x=alpha)
        for beta in self.settings.betas:
            self.judge("beta", "EGA", seed, s.ega(), {"beta": beta}, x=beta)
        models = self.out / "rho"
        self.step("rho", lambda: sweeps.payment_networks(self.a, self.settings.rhos, models, seed))
        for rho in self.settings.rhos:
            self.judge("rho", "EGA", seed, models / f"{rho:g}", {"audit": "redecode"}, x=rho)

    def write(self) -> None:
        """Writes `experiment.json`."""
        out, run = self.out, self.run.out
        curves = [
            ("Phase 1: losses", run / "pretrain" / "pretrain.csv", "step", ["ntp", "mtp"]),
            ("Phase 1: held out", run / "pretrain" / "pretrain-held-out.csv", "step", ["ntp", "hit_10"]),
            ("Phase 2.1: reward model", run / "reward" / "reward.csv", "epoch", ["train_loss", "validation_loss"]),
            ("Phase 2.2: allocation", run / "policy" / "work" / "policy.csv", "round",
             ["held_reward", "held_clicks", "entropy"]),
            ("Phase 2.3: payments", run / "payment" / "payment.csv", "step",
             ["validation_revenue", "validation_rate", "validation_regret_share", "multiplier"]),
            ("Payments over rho, requests held out", out / "rho" / "rho.csv", "rho",
             ["revenue_over_gsp", "rate", "regret_share"]),
        ]  # fmt: skip
        experiment = {
            "title": f"EGA on {self.run.settings.path.stem}",
            "rows": self.rows,
            "curves": [
                {"name": name, "csv": os.path.relpath(csv, out), "x": x, "y": y}
                for name, csv, x, y in curves
                if csv.exists()
            ],
            "notes": NOTES,
        }
        out.mkdir(parents=True, exist_ok=True)
        export.replace(out / "experiment.json", json.dumps(experiment, indent=1) + "\n")


class Seed:
    """The models of one seed; those of the run's own seed are the run's."""

    def __init__(self, experiment: Experiment, seed: int) -> None:
        self.e, self.a, self.seed = experiment, experiment.a, seed
        self.own = seed == experiment.run.seed
        self.out = experiment.out / f"seed-{seed}"

    def _step(self, name: str, work: Callable[[], None]) -> None:
        self.e.step(f"{name}-{self.seed}", work)

    def feedback(self) -> Path:
        """The logged feedback of the seed."""
        run = self.e.run
        if self.own:
            return run.feedback
        path = self.out / "feedback.jsonl"

        def log() -> None:
            lists = run.settings.table("world", WorldSettings).lists
            path.parent.mkdir(parents=True, exist_ok=True)
            engine.lab(
                "logs", "--data", run.data, "--world", run.world, "--requests", run.data / "requests-train.jsonl",
                "--lists", lists, "--seed", self.seed, "--out", path,
            )  # fmt: skip

        self._step("logs", log)
        return path

    def reward(self) -> Path:
        """The model with the reward model of the seed."""
        if self.own:
            return self.e.run.out / "reward"
        out = self.out / "reward"
        feedback = self.feedback()
        self._step("reward", lambda: self.a.train_reward(self.e.run.interest, feedback, out, self.seed))
        return out

    def ega(self) -> Path:
        """All phases."""
        if self.own:
            return self.e.run.out / "payment"
        return self._aligned("ega", self.reward(), {})

    def at_alpha(self, alpha: float) -> Path:
        """All phases, with a payment network for another weight of the bids."""
        ega = self.ega()  # which trains the policy that all share
        if alpha == self.a.config.alpha:
            return ega
        out = self.out / f"alpha-{alpha:g}-payment"
        policy = self.e.run.out / "policy" if self.own else self.out / "ega-policy"
        work = partial(self.a.train_payment, policy, out, self.seed, {"alpha": alpha})
        self._step(f"alpha-{alpha:g}-payment", work)
        return out

    def without_policy(self) -> Path:
        """-policy: phase 2.3 on the decoder of phase 1."""
        out, reward = self.out / "policy-payment", self.reward()
        self._step("policy-payment", lambda: self.a.train_payment(reward, out, self.seed))
        return out

    def mean_bids(self) -> Path:
        """-bid: phases 2.2 and 2.3 where a code's bid is the mean of what stands behind it."""
        return self._aligned("bid", self.reward(), MEAN)

    def without_states(self) -> Path:
        """-mtp: phases 2.2 and 2.3 on the creative decoder without states."""
        base, reward = self.out / "mtp-base", self.reward()
        self._step("mtp-base", lambda: baselines.with_reward(self.e.run.out / "without-state", reward, base))
        return self._aligned("mtp", base, {}, with_creatives=False)

    def _aligned(self, name: str, base: Path, overrides: Overrides, with_creatives: bool = True) -> Path:
        policy, payment = self.out / f"{name}-policy", self.out / f"{name}-payment"
        self._step(
            f"{name}-policy",
            lambda: self.a.train_policy(base, policy, self.seed, overrides, with_creatives),
        )
        self._step(f"{name}-payment", lambda: self.a.train_payment(policy, payment, self.seed, overrides))
        return payment

    def end_to_end(self) -> Path:
        """-end: one stage."""
        out, feedback = self.out / "end", self.feedback()
        self._step("end", lambda: train_end_to_end(self.a, feedback, out, self.seed))
        return out

    def gr_catalog(self) -> Path:
        """GR's catalog: of each item the creative with the best smoothed click rate."""
        path, items, feedback = self.out / "gr.safetensors", self.out / "gr-items.jsonl", self.feedback()

        def build() -> None:
            baselines.top_creatives(self.a, feedback, items)
            engine.bidslate(
                "catalog", "build", "--model", self.e.run.interest, "--items", items, "--out", path
            )

        self._step("gr-catalog", build)
        return path

    def mca(self) -> None:
        """The multi-stage baseline, judged."""
        work, feedback = self.e.out / "outcomes" / f"MCA-{self.seed}", self.feedback()

        def answer() -> None:
            self.e.requests(work / "requests.jsonl", {})
            baselines.multi_stage(self.a, feedback, self.e.tests, work, self.seed)
            self.e.evaluate(work)

        self._step("mca", answer)
        self.e.add("2", "MCA", self.seed, None, work)


def report(run: Run) -> None:
    """Variants, seeds and sweeps, judged by the world: report/index.html."""
    Experiment(run).perform()
