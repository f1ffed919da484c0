#!/usr/bin/env python3
"""The whole model of the engine in PyTorch, from the same weights, beside the engine on the same requests.

    benches/peers/torch_ega.py --model DIR [--device cuda] [--gpu-kernels hopper ..] [--compile] [--graph] [--naive N]
                               [--out FILE]

Answers are compared, in f32 with all candidate lists and then as they are timed, and batches are timed.
Prints a table, and one JSON object with every sample (or writes that to --out). Where the answers agree too little, no
ratio is printed and the exit code is 1. The engine is the command that BIDSLATE names, or the release build. Needs
PyTorch, NumPy and safetensors; README.md says what is inside and outside of the times.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# Beside the benches in the repository, beside this file where it was staged for another machine.
sys.path[:0] = [str(HERE.parents[1] / "python"), str(HERE / "python")]

try:
    import torch

    from bidslate_train import export
    from bidslate_train.requests import Requests
    from ega import check, timing
    from ega.answer import Answer
    from ega.asked import World, repeated
    from ega.engine import Engine
    from ega.naive import Naive
    from ega.strong import Options, Strong
except ModuleNotFoundError as missing:
    print(f"torch_ega: {missing}; it needs torch, numpy and safetensors", file=sys.stderr)
    sys.exit(2)

TYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


@dataclass
class Run:
    """A model, requests that every contestant answers, and how they run."""

    world: World
    model: Any
    path: Path  # of the requests
    requests: Requests
    options: Options
    engine: Engine

    def strong(self, batch: int) -> Strong:
        """The strong version for batches of a size."""
        return Strong(self.world, self.model, self.requests, batch, self.options)

    def naive(self) -> Naive:
        """The naive version."""
        return Naive(self.world, self.model, self.requests, self.options.dtype, self.options.device)

    def first(self, count: int, work: Path) -> Run:
        """The same of the first requests alone."""
        path = work / f"first-{count}.jsonl"
        path.write_text("".join(self.path.read_text().splitlines(keepends=True)[:count]))
        return replace(self, path=path, requests=self.world.requests(path))

    def in_f32(self) -> Run:
        """The same in f32, against the engine on the CPU: a GPU's engine computes in bf16."""
        options = replace(self.options, dtype=torch.float32, compile=False, graph=False)
        return replace(self, options=options, engine=Engine(self.engine.model))

    def engines(self, kernels: Sequence[str]) -> dict[str, Engine]:
        """The engine, and the same with other kernels, by the names that their times get."""
        return {"bidslate": self.engine} | {
            f"bidslate, {name}": replace(self.engine, kernels=name) for name in kernels
        }


def strong_answers(strong: Strong) -> list[Answer]:
    """The answers to all requests."""
    count, size = len(strong.requests), strong.sizes.batch
    return [one for i in range(0, count, size) for one in strong.answers(range(i, min(i + size, count)))]


def in_f32(
    run: Run, arguments: argparse.Namespace, work: Path
) -> tuple[dict[str, check.Agreement], list[Answer]]:
    """What both versions have in common with the engine on the first requests in f32, all candidate lists compared.

    The engine's answers too.
    """
    exact = run.in_f32().first(arguments.exact, work)
    engine = exact.engine.answers(exact.path, lists=True)
    found = {"strong, f32": check.compare(strong_answers(exact.strong(len(engine))), engine)}
    if arguments.naive:
        naive, count = exact.naive(), min(arguments.naive, len(engine))
        found["naive, f32"] = check.compare([naive.answer(row) for row in range(count)], engine[:count])
    return found, engine


def strong_times(strong: Strong, runs: int, warm_up: int) -> tuple[timing.Times, timing.Times]:
    """Times of the strong version, and of the host's work before each batch, which these leave out."""
    count, size, prepared, host = len(strong.requests), strong.sizes.batch, [], []

    def prepare(start: int) -> None:
        prepared.append(strong.prepare([(start + i) % count for i in range(size)]))

    for i in range(runs):
        host.append(timing.wall(lambda start=i * size: prepare(start)))
    every = [lambda ready=ready: strong.run(ready) for ready in prepared]
    return timing.measure(every, size, warm_up, strong.options.device), timing.Times(size, host)


def naive_times(run: Run, runs: int) -> timing.Times:
    """Times of the naive version, a request each."""
    naive, count = run.naive(), len(run.requests)
    every = [lambda row=i: naive.answer(row % count) for i in range(runs)]
    return timing.measure(every, 1, 1, run.options.device)


Times = dict[str, list[timing.Times]]


def contest(run: Run, arguments: argparse.Namespace, work: Path) -> tuple[dict[str, check.Agreement], Times]:
    """Compares answers and takes times, one contestant after the other at each size, so that none waits for another."""
    agreed, exact = in_f32(run, arguments, work) if arguments.exact else ({}, [])
    engines = run.engines(arguments.gpu_kernels)
    theirs = {name: engine.answers(run.path, lists=False) for name, engine in engines.items()}
    times: Times = {name: [] for name in (*engines, "strong", "strong, host before", "naive")}
    for batch in arguments.batch:
        strong = run.strong(batch)
        ours = strong_answers(strong)
        for name, engine in engines.items():
            beside = name.removeprefix("bidslate")
            agreed[f"strong, batch {batch}{beside}"] = one = check.compare(ours, theirs[name])
            if run.options.dtype != torch.float32 and exact:
                one.exact = check.against(ours, theirs[name], exact)
            if not arguments.check_only:
                seconds = engine.seconds(run.path, batch, arguments.runs, arguments.warm_up)
                times[name].append(timing.Times(batch, seconds))
        if not arguments.check_only:
            own, host = strong_times(strong, arguments.runs, arguments.warm_up)
            times["strong"].append(own)
            times["strong, host before"].append(host)
    if arguments.naive and not arguments.check_only:
        times["naive"].append(naive_times(run, arguments.naive))
    return agreed, times


def ratios(times: Times) -> dict[str, float]:
    """The engine's p50 over the others', its own with other kernels too: below 1 the engine is faster."""
    engine = {one.batch: one.percentile(50) for one in times["bidslate"]}
    return {
        f"{name}, batch {one.batch}": engine[one.batch] / one.percentile(50)
        for name, measured in times.items()
        if name not in ("bidslate", "strong, host before")
        for one in measured
        if one.batch in engine
    }


def table(times: Times, found: dict[str, float]) -> str:
    """Markdown: a row for each contestant and batch; ratios where they may be told."""
    rows = [
        "| | batch | p50 ms | p95 ms | p99 ms | requests/s | bidslate / it |",
        "| --- " + "| --: " * 6 + "|",
    ]
    for name, measured in times.items():
        for one in measured:
            p50, p95, p99 = (f"{one.percentile(percent) * 1e3:.2f}" for percent in timing.PERCENTILES)
            ratio = found.get(f"{name}, batch {one.batch}")
            cells = (name, one.batch, p50, p95, p99, f"{one.batch / one.percentile(50):.1f}")
            rows.append(f"| {' | '.join(map(str, cells))} | {'-' if ratio is None else f'{ratio:.2f}'} |")
    return "\n".join(rows)


def parsed() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", type=Path, required=True, help="a model directory of the engine, with a catalog"
    )
    parser.add_argument("--requests", type=Path, help="default: requests.jsonl of the model directory")
    parser.add_argument(
        "--all-ads", action="store_true", help="as the bench `gpu`: all ads are candidates, no policy"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--dtype", choices=TYPES, help="of the products; default: f32 on a CPU, bf16 on a GPU"
    )
    parser.add_argument(
        "--gpu-kernels",
        nargs="*",
        default=[],
        help="also time the engine with these kernels of a GPU: hopper ..",
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--runs", type=int, default=50, help="batches timed at each size")
    parser.add_argument("--warm-up", type=int, default=5, help="batches before them that do not count")
    parser.add_argument(
        "--naive", type=int, default=0, metavar="N", help="also time N requests of the naive version"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile the strong version")
    parser.add_argument(
        "--graph", action="store_true", help="one CUDA graph of the strong version's whole run"
    )
    parser.add_argument(
        "--exact", type=int, default=32, metavar="N", help="requests compared in f32 first, list by list"
    )
    parser.add_argument("--check-only", action="store_true", help="compare answers, time nothing")
    parser.add_argument(
        "--threads", type=int, default=1, help="of PyTorch on a CPU; the engine's are 1 there"
    )
    parser.add_argument("--out", type=Path, help="where the JSON object goes; default: printed last")
    arguments = parser.parse_args()
    if arguments.device != "cpu" and not torch.cuda.is_available():
        print(
            f"torch_ega: torch {torch.__version__} sees no GPU for --device {arguments.device}",
            file=sys.stderr,
        )
        sys.exit(2)
    if arguments.graph and arguments.device == "cpu":
        parser.error("--graph needs --device cuda")
    if arguments.compile and not hasattr(torch, "compile"):
        parser.error(f"--compile needs torch 2.0 or later, this is {torch.__version__}")
    arguments.dtype = TYPES[arguments.dtype or ("f32" if arguments.device == "cpu" else "bf16")]
    return arguments


def opened(arguments: argparse.Namespace, work: Path) -> Run:
    """What the arguments ask for."""
    path = arguments.requests or arguments.model / "requests.jsonl"
    if arguments.all_ads:
        count = len(path.read_text().splitlines())
        repeated(path, count, work / "all-ads.jsonl", {"candidates": "all", "policy": None})
        path = work / "all-ads.jsonl"
    world = World.of(arguments.model)
    options = Options(arguments.dtype, torch.device(arguments.device), arguments.compile, arguments.graph)
    device = "cpu" if arguments.device == "cpu" else "cuda:0"
    engine = Engine(arguments.model, device, arguments.dtype)
    return Run(world, export.load(arguments.model).eval(), path, world.requests(path), options, engine)


def facts(run: Run, arguments: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on."""
    gpu = run.options.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name()
        if gpu
        else f"cpu, {os.cpu_count()} cores, {arguments.threads} threads",
        "torch": torch.__version__,
        "dtype": str(run.options.dtype).removeprefix("torch."),
        "compile": run.options.compile,
        "graph": run.options.graph,
        "model": str(arguments.model),
        "config": asdict(run.world.config),
        "requests": len(run.requests),
        "all_ads": arguments.all_ads,
    }


def main() -> None:
    """Compares, times, and prints."""
    arguments = parsed()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as work:
        run = opened(arguments, Path(work))
        found = facts(run, arguments)
        agreed, times = contest(run, arguments, Path(work))
        holds = {
            name: one.holds(torch.float32 if name.endswith("f32") else run.options.dtype)
            for name, one in agreed.items()
        }
        found["agreement"] = {name: one.facts() | {"holds": holds[name]} for name, one in agreed.items()}
        for name, one in agreed.items():
            verdict = "" if holds[name] else "; too few: no ratios"
            ties = f", {one.near_ties} near-ties" if one.near_ties else ""
            told = one.exact
            exact = (
                f"; f32's winner for {told.ours} of {told.requests}, by the engine for {told.theirs}"
                if told
                else ""
            )
            print(
                f"{name}: {one.winners} of {one.requests} winners as the engine's{ties}{exact}{verdict}",
                flush=True,
            )
        if not arguments.check_only:
            found["ratios"] = ratios(times) if all(holds.values()) else {}
            found["times"] = {name: [one.facts() for one in measured] for name, measured in times.items()}
            print(table(times, found["ratios"]))
    text = json.dumps(found)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    else:
        print(text)
    sys.exit(0 if all(holds.values()) else 1)


if __name__ == "__main__":
    main()
