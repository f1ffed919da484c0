"""Times of batches: p50, p95, p99 and what they come to a second."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Times:
    """Times of one contestant at one batch size, in seconds, a sample a batch."""

    batch: int
    wall: list[float]  # by the host's clock, from the batch in host memory to the winners there
    device: list[float] | None = None  # by the GPU's events around the same

    def percentile(self, percent: float) -> float:
        """The sample that `percent` of them do not exceed."""
        ordered = sorted(self.wall)
        return ordered[math.ceil(len(ordered) * percent / 100) - 1]

    def facts(self) -> dict[str, Any]:
        """All of it as JSON, in milliseconds."""
        device = None if self.device is None else [seconds * 1e3 for seconds in self.device]
        return {
            "batch": self.batch,
            **{f"p{percent}_ms": self.percentile(percent) * 1e3 for percent in PERCENTILES},
            "requests_per_second": self.batch / self.percentile(50),
            "wall_ms": [seconds * 1e3 for seconds in self.wall],
            "device_ms": device,
        }


def measure(runs: Sequence[Callable[[], object]], batch: int, warm_up: int, device: torch.device) -> Times:
    """Times each of `runs`, of a batch each, after the first `warm_up` of them once more for nothing."""
    for run in runs[:warm_up]:
        run()
    if device.type != "cuda":
        return Times(batch, [wall(run) for run in runs])
    torch.cuda.synchronize()
    samples = [_events(run) for run in runs]
    return Times(batch, [host for host, _ in samples], [device for _, device in samples])


def wall(run: Callable[[], object]) -> float:
    """Seconds of one run by the host's clock."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _events(run: Callable[[], object]) -> tuple[float, float]:
    """The host's and the device's time of one run, which the device has finished."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def recorded() -> None:
        start.record()
        run()
        end.record()
        end.synchronize()

    host = wall(recorded)
    return host, start.elapsed_time(end) / 1e3
