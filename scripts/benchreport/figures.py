"""Figures of the benches: from criterion's files to times held against the limits of a card."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Card:
    """What a card can do at most: FLOP/s by kind of operand, and bytes a second to and from its memory."""

    flops: dict[str, float]
    bandwidth: float
    source: str


# By the word of the device's name that tells it.
CARDS = {
    "H100": Card(
        {"bf16": 790e12, "f32": 66.9e12}, 3.0e12, "bf16 and memory measured on an H100 SXM, f32 by data sheet"
    ),
    "H200": Card(
        {"bf16": 790e12, "f32": 66.9e12},
        4.8e12,
        "arithmetic of the H100, the same chip; memory by data sheet",
    ),
}

# Which benchmark is which kernel: pattern of its name, and operands of its products. Groups of the pattern are the
# kernel, unless it is named here, its width d, its batch, and what else tells its sizes.
AT = r"d (?P<d>\d+), batch (?P<batch>\d+)(, (?P<what>[a-z ]+))?/(gpu|cpu|engine)"
KERNELS = (
    (rf"(?P<kernel>encoder|decode_step|creative|allocate) {AT}", None, "bf16"),
    (
        r"(?P<kernel>allocate) d (?P<d>\d+), batch (?P<batch>\d+)/(?P<what>\d+ at a time)",
        None,
        "bf16",
    ),
    (rf"(?P<kernel>reward|payment) {AT}", None, "f32"),
    (r"(?P<kernel>misreports) d (?P<d>\d+), (?P<what>\d+)/gpu", None, "f32"),
    (
        r"(?P<kernel>search_step(?:_hopper)?) d (?P<d>\d+), batch (?P<batch>\d+), (?P<what>.+)/gpu",
        None,
        "bf16",
    ),
    (r"(?P<kernel>whole_search) d (?P<d>\d+), batch (?P<batch>\d+), (?P<what>.+)/gpu", None, "bf16"),
    (r"search (?P<batch>\d+)x\d+ beams, (?P<what>.+)/(gpu|cpu)", "select", None),
    (r"auction (?P<what>\w+), (?P<batch>\d+) of .+/(gpu|cpu)", "auction", None),
    (r"auction_regret (?P<what>\w+), (?P<batch>\d+) of .+/(gpu|cpu)", "regret", None),
    (r"quantize (?P<batch>\d+)x(?P<what>[\dx]+)/(gpu|cpu)", "quantizer", "f32"),
    (r"(?P<kernel>linear|linear_norm|norm_linear|swiglu) (?P<what>[\dx]+)/gpu", None, "bf16"),
    (r"(?P<kernel>linear(?:_rotary|_swiglu|_norm)?_hopper) (?P<what>[\dx]+)/gpu", None, "bf16"),
    (r"(?P<kernel>(?:beam_)?attention(?:_hopper)?) (?P<what>.+)/gpu", None, "bf16"),
)
# The order of tables and plots.
ORDER = (
    "allocate",
    "encoder",
    "whole_search",
    "decode_step",
    "select",
    "search_step",
    "search_step_hopper",
    "creative",
    "reward",
    "payment",
    "misreports",
    "auction",
    "regret",
    "quantizer",
    "attention",
    "attention_hopper",
    "beam_attention",
    "beam_attention_hopper",
    "linear",
    "linear_hopper",
    "norm_linear",
    "swiglu",
    "linear_rotary_hopper",
    "linear_swiglu_hopper",
    "linear_norm",
    "linear_norm_hopper",
)


@dataclass(frozen=True)
class Figure:
    """The time of a kernel at one size, and the least that it does."""

    kernel: str
    d: int | None
    batch: int | None
    what: str
    median_ns: float
    low_ns: float
    high_ns: float
    flops: float
    bytes: float
    operands: str | None

    @property
    def label(self) -> str:
        """The kernel with all of its sizes but the batch."""
        return " ".join(filter(None, (self.kernel, f"d {self.d}" if self.d else "", self.what)))

    def floor_ns(self, card: Card) -> float:
        """The least time that the card's limits give."""
        arithmetic = self.flops / card.flops[self.operands] if self.operands else 0.0
        return max(arithmetic, self.bytes / card.bandwidth) * 1e9

    def bound(self, card: Card) -> str:
        """Which limit that is."""
        return "memory" if self.floor_ns(card) == self.bytes / card.bandwidth * 1e9 else "arithmetic"

    def share(self, card: Card) -> float:
        """The share of the card's limit that is reached: 1 is all of it."""
        return self.floor_ns(card) / self.median_ns


def criterion(home: Path) -> Json:
    """What criterion left in a folder, by benchmark: the median and its interval, all samples, the work of a run."""
    figures = {}
    for path in sorted(home.glob("**/new/benchmark.json")):
        about = json.loads(path.read_text())
        median = json.loads((path.parent / "estimates.json").read_text())["median"]
        sample = json.loads((path.parent / "sample.json").read_text())
        figures[about["full_id"]] = {
            "median_ns": median["point_estimate"],
            "low_ns": median["confidence_interval"]["lower_bound"],
            "high_ns": median["confidence_interval"]["upper_bound"],
            "samples_ns": [time / runs for time, runs in zip(sample["times"], sample["iters"], strict=True)],
            "throughput": about["throughput"],
        }
    return figures


def work(throughput: Json | None) -> tuple[float, float]:
    """FLOPs and bytes of a benchmark, as criterion writes them."""
    counts = throughput or {}
    both = counts.get("ElementsAndBytes", {})
    return both.get("elements", counts.get("Elements", 0)), both.get("bytes", counts.get("Bytes", 0))


def figure(name: str, measured: Json) -> Figure | None:
    """The figure of a benchmark, or none where it is no kernel's."""
    for pattern, kernel, operands in KERNELS:
        if match := re.fullmatch(pattern, name):
            found = match.groupdict()
            d, batch = (int(found[key]) if found.get(key) else None for key in ("d", "batch"))
            flops, moved = work(measured["throughput"])
            times = (measured[key] for key in ("median_ns", "low_ns", "high_ns"))
            kernel = kernel or found["kernel"]
            return Figure(kernel, d, batch, found.get("what") or "", *times, flops, moved, operands)
    return None


def per_second(name: str, measured: Json) -> float:
    """What is done in a second: requests of whole allocations, FLOPs of what computes, else bytes."""
    found = figure(name, measured)
    allocations = found.batch if found and found.kernel == "allocate" else 0
    flops, moved = work(measured["throughput"])
    return (allocations or flops or moved or 1) / measured["median_ns"] * 1e9


def figures(report: Json) -> list[Figure]:
    """All figures of a report of `gpu-check bench`, kernel by kernel."""

    def found() -> Iterator[Figure]:
        for group in report["benches"].values():
            for name, measured in group["figures"].items():
                if one := figure(name, measured):
                    yield one

    return sorted(found(), key=lambda f: (ORDER.index(f.kernel), f.d or 0, f.what, f.batch or 0))


def card(report: Json) -> Card | None:
    """The limits of the device of a report, or none where they are not known."""
    return next((card for word, card in CARDS.items() if word in report["device"]), None)
