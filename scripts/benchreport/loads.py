"""Latencies under load, as the bench `load` writes them: by name, `MODEL, ARRIVALS, SHARE %`."""

from .figures import Json

HEAD = ("Load", "Requests/s", "Capacity", "p50", "p90", "p99", "Longest", "p99 / p50", "A batch")


def found(report: Json) -> dict[str, Json]:
    """All loads of a report of `gpu-check bench`, by name."""
    return {name: one for group in report["benches"].values() for name, one in group.get("loads", {}).items()}


def told(load: Json) -> str:
    """A load in a line."""
    return (
        f"p99 {load['p99_over_p50']:.2f} of p50 ({load['p99_ms']:.2f} of {load['p50_ms']:.2f} ms) "
        f"at {load['rate']:.4g} requests/s"
    )


def section(report: Json) -> list[str]:
    """What a report says of loads, as Markdown; nothing where there are none."""
    loads = found(report)
    if not loads:
        return []
    rows = [f"| {' | '.join(row(name, one))} |" for name, one in loads.items()]
    one = next(iter(loads.values()))
    what = (
        f"Latency from arrival to answer of {one['requests']} requests at each load, a share of what the engine serves "
        f"when a full batch always waits; {one['callers']} callers, up to {one['batch']} requests a call."
    )
    return ["", "## Under load", "", what, "", f"| {' | '.join(HEAD)} |", "|" + " --- |" * len(HEAD), *rows]


def row(name: str, one: Json) -> tuple[str, ...]:
    """The cells of a load."""
    times = (f"{one[key]:.2f} ms" for key in ("p50_ms", "p90_ms", "p99_ms", "max_ms"))
    rates = (f"{one[key]:.4g}" for key in ("rate", "capacity"))
    return (name, *rates, *times, f"{one['p99_over_p50']:.2f}", f"{one['mean_batch']:.1f}")
