"""The report of the benches, from files as criterion writes them, with figures that can be said by hand."""

import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from benchreport import figures as bench_figures
from benchreport import plots, runs, table

SVG = "{http://www.w3.org/2000/svg}"


def benchmark(home: Path, name: str, median_ns: float, throughput: dict) -> None:
    """A benchmark's files: ten runs a sample, the median known."""
    folder = home / name.replace("/", "_") / "new"
    folder.mkdir(parents=True)
    interval = {"lower_bound": 0.9 * median_ns, "upper_bound": 1.2 * median_ns}
    (folder / "benchmark.json").write_text(json.dumps({"full_id": name, "throughput": throughput}))
    (folder / "estimates.json").write_text(
        json.dumps({"median": {"point_estimate": median_ns, "confidence_interval": interval}})
    )
    (folder / "sample.json").write_text(
        json.dumps({"iters": [10, 20], "times": [10 * median_ns, 40 * median_ns]})
    )


def both(flops: float, moved: float) -> dict:
    return {"ElementsAndBytes": {"elements": flops, "bytes": moved}}


@pytest.fixture
def report(tmp_path: Path) -> dict:
    """An encoder bound by arithmetic and a payment bound by memory, on a device with the limits of an H100."""
    home = tmp_path / "criterion"
    # 790 GFLOP and 3 GB take 1 ms each at the limits: 2 ms of work are half of the one, and 1 % of the other.
    benchmark(home, "encoder d 512, batch 8/gpu", 2e6, both(790e9, 0.3e9))
    benchmark(home, "encoder d 512, batch 1/gpu", 1e6, both(79e9, 0.03e9))
    benchmark(home, "payment d 512, batch 8/gpu", 1e5, both(1.0, 3e6))
    benchmark(home, "search 8x64 beams, 30 steps, 20000 ads/gpu", 3e6, {"Bytes": 3e9})
    benchmark(home, "what is no kernel/gpu", 1.0, {"Elements": 1})
    clocks = [
        "clocks.current.sm [MHz], clocks.current.memory [MHz]",
        "1980 MHz, 2619 MHz",
        "345 MHz, 2619 MHz",
    ]
    return {
        "device": "NVIDIA H100 80GB HBM3",
        "driver": "1.2",
        "commit": "abc",
        "date": "2026-01-02",
        "benches": {"stages": {"figures": bench_figures.criterion(home), "clocks": clocks}},
    }


def test_samples_are_times_of_one_run(report: dict) -> None:
    figures = report["benches"]["stages"]["figures"]
    assert figures["encoder d 512, batch 8/gpu"]["samples_ns"] == [2e6, 4e6]
    payment = figures["payment d 512, batch 8/gpu"]
    assert (payment["low_ns"], payment["high_ns"]) == (9e4, 1.2e5)


def test_names_tell_what_they_are_of() -> None:
    measured = {"median_ns": 64e6, "low_ns": 6e7, "high_ns": 7e7, "throughput": both(1.0, 2.0)}
    few = "allocate d 512, batch 128/8 at a time"
    assert bench_figures.figure(few, measured).label == "allocate d 512 8 at a time"
    assert bench_figures.per_second(few, measured) == pytest.approx(2000)
    other = bench_figures.figure("decode_step d 512, batch 8, hopper programmatic/gpu", measured)
    assert (other.label, other.batch) == ("decode_step d 512 hopper programmatic", 8)
    misreports = bench_figures.figure("misreports d 512, 100/gpu", measured)
    assert (misreports.label, misreports.batch, misreports.operands) == ("misreports d 512 100", None, "f32")


def test_a_share_is_of_the_limit_that_binds(report: dict) -> None:
    card = bench_figures.card(report)
    figures = {(one.kernel, one.batch): one for one in bench_figures.figures(report)}
    assert list(figures) == [("encoder", 1), ("encoder", 8), ("select", 8), ("payment", 8)]
    encoder, payment, select = figures["encoder", 8], figures["payment", 8], figures["select", 8]
    assert encoder.share(card) == pytest.approx(0.5)
    assert payment.share(card) == pytest.approx(0.01)
    assert select.share(card) == pytest.approx(1 / 3)
    assert (encoder.bound(card), payment.bound(card), select.bound(card)) == (
        "arithmetic",
        "memory",
        "memory",
    )


def test_the_table_holds_every_kernel_and_its_figures(report: dict, tmp_path: Path) -> None:
    path, *drawn = table.write(report, tmp_path / "run.md")
    text = path.read_text()
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| encoder")]
    assert rows[1] == [
        *(
            "encoder",
            "512",
            "8",
            "2 ms",
            "1.8 ms to 2.4 ms",
            "4000",
            "395",
            "150",
            "1 ms",
            "50.0%",
            "arithmetic",
        )
    ]
    assert "no kernel" not in text
    assert (
        "- stages: clocks.current.sm [MHz] 345 MHz to 1980 MHz, clocks.current.memory [MHz] 2619 MHz" in text
    )
    assert [plot.name for plot in drawn] == ["run-latency.svg", "run-roofline.svg"]
    assert all(f"({plot.name})" in text for plot in drawn)


def test_the_latency_plot_rises_with_time(report: dict) -> None:
    root = ElementTree.fromstring(plots.latency(bench_figures.figures(report)))
    encoder, payment, select = root.iter(f"{SVG}polyline")
    (x1, y1), (x8, y8) = (map(float, point.split(",")) for point in encoder.get("points").split())
    assert x1 < x8
    assert y1 > y8, "a longer time stands higher"
    names = [text.text for text in root.iter(f"{SVG}text")]
    assert {"encoder", "payment", "select 30 steps, 20000 ads", "d 512: latency in us by batch"} <= set(names)


def test_the_roofline_plot_has_a_dot_at_each_share(report: dict) -> None:
    card = bench_figures.card(report)
    root = ElementTree.fromstring(plots.roofline(bench_figures.figures(report), card))
    dots = {dot.find(f"{SVG}title").text: float(dot.get("cx")) for dot in root.iter(f"{SVG}circle")}
    assert dots["encoder d 512, batch 8: 50.0%"] == pytest.approx(260 + 500 * 0.5)
    assert dots["payment d 512, batch 8: 1.0%"] == pytest.approx(260 + 500 * 0.01)
    assert len(dots) == 4


def test_a_device_without_known_limits_has_no_shares(report: dict, tmp_path: Path) -> None:
    path, _, roofline = table.write(report | {"device": "another"}, tmp_path / "run.md")
    assert "not known" in path.read_text()
    assert "%" not in path.read_text().split("| --- |")[-1]
    assert "No figure with known limits." in roofline.read_text()


def test_what_has_run_is_told_from_the_reports(report: dict) -> None:
    run = {key: report[key] for key in ("device", "driver", "commit", "date")}
    passed = {"passed": True, "kernels": ["linear linear_tile"]}
    failed = {"passed": False, "kernels": ["norm norm"]}
    barrier = {
        "what": "a barrier",
        "unit": "us",
        "value": 1.25,
        "parameters": {"blocks": 4.0},
        "samples": [1.25],
    }
    reports = [
        run | {"check": "conformance", "tests": {"one": passed, "two": failed}},
        run | {"check": "probe", "probes": {"barriers": {"figures": [barrier]}}},
        report | {"check": "bench"},
    ]
    text = runs.document(reports)
    assert "| `linear.cu` | linear_tile | NVIDIA H100 80GB HBM3 | 1.2 | abc | 2026-01-02 |" in text
    assert "norm.cu" not in text
    assert "| a barrier | 4 blocks | 1.25 us | NVIDIA H100 80GB HBM3 | abc |" in text
    assert "| reward | 20 us at batch 1 | not measured |" in text
    # 8 searches of 3 GB in 3 ms: the aim is at one, which was not taken.
    assert "| selection, 30 steps | 180 us at batch 1 | not measured |" in text
    figure = {"median_ns": 2e5, "low_ns": 1e5, "high_ns": 3e5, "throughput": {"Bytes": 1e6}}
    names = {"search 1x64 beams, 30 steps, 20000 ads/gpu": figure}
    assert "| steady load, d 256, Poisson arrivals | p99 within 1.3 times p50 | not measured |" in text
    load = {"p99_over_p50": 1.2, "p99_ms": 3.6, "p50_ms": 3.0, "rate": 150.0}
    loads = {"loads": {"figures": {}, "loads": {"d 256, poisson, 50 %": load, "d 256, poisson, 70 %": load}}}
    told = runs.document([report | {"check": "bench", "benches": loads}])
    line = next(line for line in told.splitlines() if "steady load, d 256, Poisson" in line)
    assert line.count("p99 1.20 of p50 (3.60 of 3.00 ms) at 150 requests/s (NVIDIA H100 80GB HBM3, abc)") == 1
    reached = runs.document([report | {"check": "bench", "benches": {"searches": {"figures": names}}}])
    assert "| 180 us at batch 1 | 200.0 us, 5e+09/s (NVIDIA H100 80GB HBM3, abc) |" in reached


def test_the_page_that_ships_is_what_the_kept_reports_make() -> None:
    root = Path(__file__).resolve().parents[2]
    kept = [json.loads(path.read_text()) for path in sorted((root / "benches/reports").glob("*.json"))]
    told = (root / "docs/gpus.md").read_text()
    assert told == runs.document(kept), "scripts/gpu-check table writes it anew"
