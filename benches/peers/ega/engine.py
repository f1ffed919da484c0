"""The engine's answers to a file of requests, and its times: runs of `bidslate allocate`."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from bidslate_train import engine

from .answer import Answer, Lists
from .asked import repeated

TOGETHER = ("encode_us", "search_us", "creative_us", "reward_us")
"""Stages that a GPU runs for a whole batch at once, each response of the batch telling the same time."""
ALONE = ("resolve_us", "payment_us")
"""What the host does for one request after another."""


@dataclass(frozen=True)
class Engine:
    """An engine for a model directory: a device, the type of its products, and which kernels a GPU runs."""

    model: Path
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    kernels: str = "measured"

    def _allocate(self, requests: Path, *more: object) -> list[dict[str, Any]]:
        precision = "f32" if self.dtype == torch.float32 else "bf16"
        with tempfile.TemporaryDirectory() as work:
            out = Path(work) / "responses.jsonl"
            where = ("--device", self.device, "--gpu-kernels", self.kernels)
            fixed = ("--model", self.model, *where, "--precision", precision, "--out", out)
            engine.bidslate("allocate", *fixed, "--requests", requests, *more)
            return [json.loads(line) for line in out.read_text().splitlines()]

    def answers(self, requests: Path, lists: bool) -> list[Answer]:
        """The answers to a file, with all candidate lists where asked for."""
        if not lists:
            return [answer(response) for response in self._allocate(requests)]
        with tempfile.TemporaryDirectory() as work:
            trace = Path(work) / "trace.safetensors"
            responses = self._allocate(requests, "--trace", trace)
            tensors = load_file(trace)
        return [answer(response, traced(tensors, response)) for response in responses]

    def seconds(self, requests: Path, batch: int, runs: int, warm_up: int) -> list[float]:
        """The time of each of `runs` batches, made of a file's requests over and over, after some that do not count.

        On a GPU the stages of a batch run together; on a CPU its requests run one after another, on one thread.
        """
        with tempfile.TemporaryDirectory() as work:
            path = Path(work) / "requests.jsonl"
            repeated(requests, (runs + warm_up) * batch, path, {})
            threads = 1 if self.device == "cpu" else batch
            responses = self._allocate(path, "--timings", "--batch", batch, "--threads", threads)
        found = []
        for start in range(warm_up * batch, len(responses), batch):
            timings = [response["timings"] for response in responses[start : start + batch]]
            together = timings if self.device == "cpu" else timings[:1]
            micros = [t[stage] for t in timings for stage in ALONE]
            micros += [t[stage] for t in together for stage in TOGETHER]
            found.append(sum(micros) / 1e6)
        return found


def answer(response: dict[str, Any], lists: Lists | None = None) -> Answer:
    """The answer that a response holds."""
    if "error" in response:
        raise ValueError(f"the engine refuses request {response['id']}: {response['error']}")
    slots = response["slots"]
    shown = tuple(slot["item"] for slot in slots), tuple(slot["creative"] for slot in slots)
    return Answer(shown, [slot["payment_micros"] for slot in slots], lists)


def traced(tensors: dict[str, torch.Tensor], response: dict[str, Any]) -> Lists:
    """The candidate lists of a trace; ids above 2^63 come as negative numbers there."""
    count = response["lists"]
    items, creatives, log_prob, rewards = (
        tensors[f"{response['id']}/lists/{name}"][:count].tolist()
        for name in ("items", "creatives", "log_prob", "reward")
    )
    shown = [
        (own, tuple(spelled[: len(own)]))
        for own, spelled in (
            (tuple(i for i in row if i != -1), spelled) for row, spelled in zip(items, creatives, strict=True)
        )
    ]
    return Lists(shown, log_prob, rewards)
