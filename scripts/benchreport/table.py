"""The report of a run of the benches: one table and two plots."""

import re
from pathlib import Path

from . import loads, plots
from .figures import Card, Figure, Json, card, figures

HEAD = (
    "Kernel",
    "d",
    "Batch",
    "Median",
    "95 % interval",
    "A second",
    "TFLOP/s",
    "GB/s",
    "Floor",
    "Share",
    "Bound by",
)


def write(report: Json, path: Path) -> list[Path]:
    """Writes the table to `path`, a Markdown file, and the plots beside it; returns all three paths."""
    found, limits = figures(report), card(report)
    latency, roofline = (path.with_name(f"{path.stem}-{plot}.svg") for plot in ("latency", "roofline"))
    path.write_text(document(report, found, limits, (latency.name, roofline.name)))
    latency.write_text(plots.latency(found))
    roofline.write_text(plots.roofline(found, limits))
    return [path, latency, roofline]


def document(report: Json, found: list[Figure], limits: Card | None, plots: tuple[str, str]) -> str:
    """The report as Markdown."""
    run = f"Commit {report['commit']}, {report['date']}, driver {report['driver']}."
    unknown = "The limits of this device are not known: shares are left out."
    lines = [f"# {report['device']}", "", run, "", limits_line(limits) if limits else unknown, ""]
    lines += clocks(report)
    lines += [f"![Latency by batch]({plots[0]})", "", f"![Share of the roofline]({plots[1]})", ""]
    lines += [f"| {' | '.join(HEAD)} |", "|" + " --- |" * len(HEAD)]
    lines += [f"| {' | '.join(row(one, limits))} |" for one in found]
    lines += loads.section(report)
    return "\n".join(lines) + "\n"


def limits_line(limits: Card) -> str:
    """The limits that shares are of."""
    flops = ", ".join(f"{rate / 1e12:g} TFLOP/s in {operands}" for operands, rate in limits.flops.items())
    return (
        f"Floor: the least time by the card's limits, {flops}, {limits.bandwidth / 1e12:g} TB/s ({limits.source}). "
        "Share: floor over median."
    )


def clocks(report: Json) -> list[str]:
    """The clocks that nvidia-smi told while the groups ran: the least and the most of each of its columns."""
    lines = []
    for group, result in report["benches"].items():
        told = [[cell.strip() for cell in line.split(",")] for line in result.get("clocks", [])]
        head, rows = (told[0], told[1:]) if told else ([], [])
        spans = (
            [span(name, values) for name, values in zip(head, zip(*rows, strict=True), strict=True)]
            if rows
            else []
        )
        if spans:
            lines.append(f"- {group}: {', '.join(spans)}")
    return ["Clocks while each group ran:", "", *lines, ""] if lines else []


def span(name: str, values: tuple[str, ...]) -> str:
    """The least and the most of a column's values, by the numbers that they begin with."""

    def number(value: str) -> tuple[float, str]:
        found = re.match(r"\d+(\.\d+)?(?!x)", value)
        return (float(found[0]) if found else 0.0, value)

    distinct = sorted(set(values), key=number)
    return f"{name} {distinct[0]}" + (f" to {distinct[-1]}" if len(distinct) > 1 else "")


def row(one: Figure, limits: Card | None) -> tuple[str, ...]:
    """The cells of a figure."""
    seconds = one.median_ns / 1e9
    held = ("", "", "")
    if limits and (one.flops or one.bytes):
        held = (time(one.floor_ns(limits)), f"{one.share(limits):.1%}", one.bound(limits))
    return (
        " ".join(filter(None, (one.kernel, one.what))),
        str(one.d or ""),
        str(one.batch or ""),
        time(one.median_ns),
        f"{time(one.low_ns)} to {time(one.high_ns)}",
        f"{one.batch / seconds:.4g}" if one.batch else "",
        f"{one.flops / seconds / 1e12:.3g}" if one.flops else "",
        f"{one.bytes / seconds / 1e9:.4g}" if one.bytes else "",
        *held,
    )


def time(nanoseconds: float) -> str:
    """A time in the unit that suits it."""
    for unit, size in (("ms", 1e6), ("us", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.4g} {unit}"
    return f"{nanoseconds:.4g} ns"
