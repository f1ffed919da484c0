"""The loop that every phase trains in: schedule, checkpoints, metrics, data parallelism.

What a step draws (its rows, its dropout) is a function of seed, step and process alone. So a checkpoint needs no
state of a generator, and an interrupted run goes on to the same numbers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bidslate_train import checkpoint
from bidslate_train.distributed import Workers
from bidslate_train.metrics import Metrics


class Diverged(FloatingPointError):
    """A loss or a gradient that is not finite."""


@dataclass
class Schedule:
    """How long and how fast a phase trains."""

    steps: int = 1000
    batch: int = 32  # of all processes together
    rate: float = 1e-3  # the highest learning rate
    warm_up: int = 100  # steps of linear growth to it; from there it falls to 0 as a cosine
    weight_decay: float = 0.01
    clip: float = 1.0  # largest norm of the gradient
    log_every: int = 50
    validate_every: int = 500
    save_every: int = 500  # a multiple of log_every, so that a resumed run logs the same means

    def __post_init__(self) -> None:
        if self.save_every % self.log_every:
            raise ValueError(
                f"save_every is {self.save_every}, expected a multiple of log_every, {self.log_every}"
            )

    def rate_at(self, step: int) -> float:
        """The learning rate of step 0, 1, ..."""
        if step < self.warm_up:
            return self.rate * (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        return self.rate * 0.5 * (1 + math.cos(math.pi * done))


LossOf = Callable[[np.ndarray], tuple[Tensor, dict[str, float]]]
"""From rows of examples [n] to their mean loss and what to log beside it."""

Order = Callable[[int, int, int, int], np.ndarray]
"""From seed, step, batch and number of examples to the rows of the step: a function of these alone."""


def draw(seed: int, step: int, count: int, size: int) -> np.ndarray:
    """Rows [count] of a step from 0 to below `size`: passes over all rows, each in an order of its own."""
    rows = []
    at = step * count
    while len(rows) < count:
        turn, offset = divmod(at, size)
        order = np.random.default_rng((seed, turn)).permutation(size)
        rows.extend(order[offset : offset + count - len(rows)].tolist())
        at = step * count + len(rows)
    return np.array(rows)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seeds torch's generators (dropout, sampling) for a step."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0]))


class Training:
    """One phase: trains some parameters of a module on examples by number."""

    def __init__(
        self,
        name: str,
        module: nn.Module,
        parameters: Iterable[nn.Parameter],
        schedule: Schedule,
        out: Path,
        seed: int,
    ) -> None:
        """Files go to `out`: checkpoint.pt, NAME.csv, NAME-held-out.csv."""
        self.name, self.module, self.schedule, self.out, self.seed = name, module, schedule, out, seed
        self.parameters = list(parameters)
        self.workers = Workers()
        module.to(self.workers.device)
        matrices = [p for p in self.parameters if p.dim() > 1]
        vectors = [p for p in self.parameters if p.dim() <= 1]
        groups = [
            {"params": matrices, "weight_decay": schedule.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=schedule.rate, betas=(0.9, 0.98)
        )

    @property
    def path(self) -> Path:
        """The checkpoint."""
        return self.out / "checkpoint.pt"

    def resume(self, examples: int) -> int:
        """Loads the last checkpoint, if there is one, and returns the steps that are done."""
        done = checkpoint.resume(self.path, self.module, self.optimizer, self._about(examples))
        if done:
            self._say(f"resumes after step {done}")
        return done

    def _about(self, examples: int) -> dict[str, Any]:
        return {"phase": self.name, "seed": self.seed, "examples": examples, **asdict(self.schedule)}

    def run(
        self,
        loss_of: LossOf,
        examples: int,
        validate: Callable[[], dict[str, float]] | None = None,
        stop_at: int | None = None,
        order: Order = draw,
    ) -> None:
        """Trains from the last checkpoint, if there is one, to the last step (or `stop_at`, as if interrupted).

        Raises `Diverged` where a loss or a gradient is not finite: the last checkpoint stays as it is.
        """
        s = self.schedule
        start = self.resume(examples)
        first = self.workers.first
        metrics = Metrics(self.out / f"{self.name}.csv", start) if first else None
        held_out = Metrics(self.out / f"{self.name}-held-out.csv", start) if first and validate else None
        sums: dict[str, float] = {}
        clock = time.monotonic()
        self.module.train()
        for step in range(start, s.steps):
            rows = self.workers.share(order(self.seed, step, s.batch, examples))
            values = self._step(step, loss_of, rows)
            sums = {name: sums.get(name, 0.0) + value for name, value in values.items()}
            done = step + 1
            if done % s.log_every == 0 or done == s.steps:
                since = (done - 1) % s.log_every + 1
                means = {name: value / since for name, value in sums.items()}
                pace = (time.monotonic() - clock) / (done - start)
                if metrics:
                    metrics.write(done, means)
                self._say(f"step {done} of {s.steps}, {1000 * pace:.0f} ms each: {_told(means)}")
                sums = {}
            if validate and held_out and (done % s.validate_every == 0 or done == s.steps):
                self.module.eval()
                values = validate()
                self.module.train()
                held_out.write(done, values)
                self._say(f"held out: {_told(values)}")
            if done % s.save_every == 0 or done in (s.steps, stop_at):
                if first:
                    checkpoint.save(self.path, done, self.module, self.optimizer, self._about(examples))
                self.workers.wait()
            if done == stop_at:
                break
        self.module.eval()

    def _step(self, step: int, loss_of: LossOf, rows: np.ndarray) -> dict[str, float]:
        s = self.schedule
        seed_step(self.seed, step, self.workers.rank)
        loss, values = loss_of(rows)
        self.optimizer.zero_grad()
        loss.backward()
        self.workers.gradients(self.parameters)
        norm = nn.utils.clip_grad_norm_(self.parameters, s.clip)
        told = torch.tensor([loss.detach().item(), *values.values()], dtype=torch.float64)
        told = told.to(self.workers.device)
        self.workers.average([told])
        if not (torch.isfinite(told[0]) and torch.isfinite(norm)):
            kept = self.path.exists()
            last = f"the last good state is in {self.path}" if kept else "there is no earlier state"
            raise Diverged(
                f"{self.name}: loss {told[0]:.6g}, gradient norm {norm:.6g} in step {step + 1}; {last}"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = s.rate_at(step)
        self.optimizer.step()
        named = dict(zip(("loss", *values), told.tolist(), strict=True))
        return {**named, "gradient": float(norm), "rate": s.rate_at(step)}

    def _say(self, text: str) -> None:
        if self.workers.first:
            print(f"{self.name}: {text}", flush=True)


def _told(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
