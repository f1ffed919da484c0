"""Whole requests here and in PyTorch, by `torch_ega.py`: which are run, and what a report keeps of a run."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Json = dict[str, Any]

# The models by their width d: random ones that `bidslate init-model` makes, and the one that ships.
MODELS = {"nyc": None, "small": 256, "base": 512, "large": 1024}
BATCHES = (1, 8, 32, 128)
# The most telling first, since time may end before all have run: the sizes of the paper's model, one request at a time
# and many. Then the model that ships, and what lies between.
TELLING = (1, 128)


def _runs(models: Iterable[str], batches: Iterable[int]) -> dict[str, tuple[str, int | None]]:
    return {f"requests of {model}, batch {batch}": (model, batch) for batch in batches for model in models}


SIZES = tuple(model for model, d in MODELS.items() if d)
FIRST = _runs(SIZES, TELLING)
RUNS = FIRST | _runs(MODELS, TELLING) | _runs(MODELS, BATCHES)
# Last and apart, since it may take longer than it is given: the naive version.
RUNS |= {f"requests of {model}, naive": (model, None) for model in MODELS}
MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "catalog.safetensors",
    "requests.jsonl",
)
CT2_BATCHES = (1, 8, 32)
# Kernels that a card of this compute capability runs only where they are asked for.
KERNELS = {"9.0": ("hopper", "persistent")}
MISSING = 2
"""Exit code of `torch_ega.py` where it lacks what it needs."""


class Missing(Exception):
    """What this machine lacks, in words."""


def stage(root: Path, place: Path) -> None:
    """Copies the programs, the trainer's modules that they read models with, and the model that ships."""
    for program in ("torch_ega.py", "ct2.py", "work.py"):
        shutil.copy2(root / "benches/peers" / program, place)
    for package, name in (("benches/peers/ega", "ega"), ("python/bidslate_train", "python/bidslate_train")):
        shutil.copytree(root / package, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    (place / "models/nyc").mkdir(parents=True)
    for name in MODEL_FILES:
        shutil.copy2(root / "weights/nyc" / name, place / "models/nyc")


def model_directory(place: Path, model: str) -> Path:
    """The directory of a model; a random one is made where it is not there, as the bench makes its own."""
    directory = place / "models" / model
    if not (directory / "requests.jsonl").exists():
        shutil.rmtree(directory, ignore_errors=True)
        sizes = ("--size", model, "--seed", "1", "--dtype", "bf16", "--items", "20000", "--requests", "128")
        subprocess.run([place / "bidslate", "init-model", *sizes, directory], check=True)
    return directory


def run(place: Path, model: str, batch: int | None, seconds: float, kernels: Sequence[str] = ()) -> Json:
    """Runs one model at one size of batches; its times count as the engine's and PyTorch's where answers agree.

    Without a batch the naive version is timed. With it, the engine is timed with `kernels` too, one after the other.
    """
    out = place / "torch_ega.json"
    out.unlink(missing_ok=True)
    naive = ("--naive", "1", "--exact", "1", "--runs", "5")
    version = naive if batch is None else ("--compile", "--graph", "--gpu-kernels", *kernels)
    shape = ("--all-ads",) if MODELS[model] else ()
    fixed = ("--device", "cuda", "--out", out)
    program = [sys.executable, place / "torch_ega.py", "--model", model_directory(place, model)]
    command = [*program, "--batch", str(batch or 1), *fixed, *version, *shape]
    environment = os.environ | {"BIDSLATE": str(place / "bidslate")}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
        )
        code, text = done.returncode, done.stdout
    except subprocess.TimeoutExpired:
        code, text = None, f"ran for more than {seconds} s"
    if code == MISSING:
        raise Missing(text.strip())
    found = json.loads(out.read_text()) if out.exists() else None
    passed = code == 0 and found is not None
    measured = {"figures": {}} if batch is None else figures(model, batch, found, passed)
    return {"passed": passed, "output": text[-4000:], "found": found, **measured}


def run_ct2(place: Path, batch: int, seconds: float) -> Json:
    """Times CTranslate2's encoder and search at d 512 in float16, or says that its wheel is not here.

    Its model is plain and random: a figure beside the engine's encoder and search, not the same work.
    """
    if importlib.util.find_spec("ctranslate2") is None:
        return {"passed": True, "figures": {}, "output": "ctranslate2 is not installed"}
    shape = (
        "--model",
        place / "models/ct2",
        "--device",
        "cuda",
        "--compute",
        "float16",
        "--batch",
        str(batch),
    )
    command = [sys.executable, place / "ct2.py", *shape, "--runs", "10"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        passed, text, errors = done.returncode == 0, done.stdout, done.stderr
    except subprocess.TimeoutExpired:
        passed, text, errors = False, "", f"ran for more than {seconds} s"
    if not passed:
        return {"passed": False, "figures": {}, "output": errors[-4000:]}
    found = json.loads(text.splitlines()[-1])
    median, best = (found[key] * 1e6 for key in ("ms_median", "ms_min"))
    figure = {"median_ns": median, "low_ns": best, "high_ns": median, "throughput": None}
    name = f"{found['name']} {found['type']}, encoder and search, d 512, batch {batch}"
    return {"passed": True, "figures": {name: figure}, "output": text}


def figures(model: str, batch: int, found: Json | None, agree: bool) -> Json:
    """Figures of the engine and, where answers agree, of the strong version, by the name that the bench gives it."""
    if found is None:
        return {"figures": {}}
    size = f"d {MODELS[model]}" if MODELS[model] else model
    ours = {
        f"allocate {size}, batch {batch}{name.removeprefix('bidslate')}/engine": figure(times[0])
        for name, times in found["times"].items()
        if name.startswith("bidslate")
    }
    strong = figure(found["times"]["strong"][0]) | {"what": "torch_ega, strong"}
    return {"figures": ours, "peer": {"figures": dict.fromkeys(ours, strong) if agree else {}}}


def figure(times: Json) -> Json:
    """Times of `torch_ega.py` as a figure of the bench; low and high are the range of the samples."""
    samples = [ms * 1e6 for ms in times["wall_ms"]]
    return {
        "median_ns": times["p50_ms"] * 1e6,
        "low_ns": min(samples),
        "high_ns": max(samples),
        "samples_ns": samples,
        "throughput": None,
    }
