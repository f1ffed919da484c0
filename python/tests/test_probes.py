"""The probes of a Hopper card on threads of the host: their logic, and that each of their checks can fail."""

import json
import re
import subprocess
from pathlib import Path

import pytest

PROBES = Path(__file__).resolve().parents[2] / "benches/probes"
# Sizes that suit a few threads of the host: what they are replaced by.
SIZES = {
    "THREADS": 1,
    "SAMPLES": 3,
    "WARM_UP": 1,
    "FEW": 5,
    "MANY": 15,
    "STAY_CYCLES": 50_000_000,
    "CLUSTER_SHARED": 4096,
}
# A kernel's dynamic shared memory, and an array of as much.
DYNAMIC = ("extern __shared__ uint4 own[];", "__shared__ uint4 own[4096 / sizeof(uint4)];")
SOURCES = ("barriers", "launches", "reads", "residency", "main")


def shrunk(source: str) -> str:
    """A source with small sizes, and memory reads of a thousandth."""
    for name, value in SIZES.items():
        source = re.sub(rf"\b{name} = [\d']+( << \d+)?", f"{name} = {value}", source)
    return source.replace("megabytes * 1000 * 1000", "megabytes * 1000").replace(*DYNAMIC)


def compiled(folder: Path, name: str, text: str) -> Path:
    """The object of a source."""
    path = folder / f"{name}.cpp"
    path.write_text(text)
    includes = [f"-I{folder}", f"-I{PROBES / 'on_threads'}", f"-I{PROBES}"]
    command = ["g++", "-std=c++20", "-pthread", *includes, "-c", path, "-o", path.with_suffix(".o")]
    subprocess.run(command, check=True)
    return path.with_suffix(".o")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The probes, compiled for threads of the host."""
    folder = tmp_path_factory.mktemp("probes")
    (folder / "probe.h").write_text(shrunk((PROBES / "probe.h").read_text()))
    return {name: compiled(folder, name, shrunk((PROBES / f"{name}.cu").read_text())) for name in SOURCES}


def run(objects: dict[str, Path], name: str) -> subprocess.CompletedProcess:
    """One probe."""
    program = objects["main"].parent / "probe"
    subprocess.run(["g++", "-pthread", *objects.values(), "-o", program], check=True)
    return subprocess.run([program, name], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("name", "units", "count"),
    [
        ("grid_barriers", {"us"}, 4),
        ("cluster_barriers", {"us"}, 12),
        ("memory_reads", {"GB/s"}, 4),
        ("cluster_reads", {"GB/s"}, 18),
        ("graph_nodes", {"us"}, 4),
        ("resident_clusters", {""}, 18),
    ],
)
def test_a_probe_writes_its_figures(objects: dict[str, Path], name: str, units: set[str], count: int) -> None:
    found = run(objects, name)
    assert found.returncode == 0, found.stderr
    figures = json.loads(found.stdout)
    assert len({figure["what"] + str(figure["parameters"]) for figure in figures}) == count
    assert {figure["unit"] for figure in figures} == units
    if name == "resident_clusters":
        told, seen = figures[::2], figures[1::2]
        assert all(figure["samples"] == [2] for figure in told)
        # Never more than fit; fewer where the host's threads began too late.
        assert all(set(figure["samples"]) <= {1, 2} for figure in seen)
    else:
        assert all(len(figure["samples"]) == SIZES["SAMPLES"] for figure in figures)


@pytest.mark.parametrize(
    ("probe", "source", "right", "wrong", "told"),
    [
        (
            "grid_barriers",
            "barriers",
            "(round + 1) * gridDim.x",
            "round * gridDim.x",
            "lets blocks pass early",
        ),
        ("grid_barriers", "barriers", "{ cg::this_grid().sync(); }", "{}", "lets blocks pass early"),
        ("cluster_barriers", "barriers", "round % 2", "0", "lets blocks pass early"),
        ("memory_reads", "reads", "i += threads", "i += threads + 1", "another sum"),
        ("cluster_reads", "reads", "(rank + distance) % cluster.num_blocks()", "rank", "another sum"),
        ("graph_nodes", "launches", "i < nodes; i++", "i < nodes; i += 2", "ran too early"),
        ("resident_clusters", "residency", "atomicAdd(begun, 1u)", "*begun = 1", "not all have run"),
    ],
)
def test_a_probe_that_times_something_else_says_so(
    objects: dict[str, Path], tmp_path: Path, probe: str, source: str, right: str, wrong: str, told: str
) -> None:
    text = shrunk((PROBES / f"{source}.cu").read_text())
    assert right in text
    (tmp_path / "probe.h").write_text((objects["main"].parent / "probe.h").read_text())
    faulty = compiled(tmp_path, source, text.replace(right, wrong))
    found = run(objects | {source: faulty}, probe)
    assert found.returncode == 1
    assert told in found.stderr
