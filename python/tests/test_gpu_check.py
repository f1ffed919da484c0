"""`gpu-check all` from end to end on stand-ins for the GPU's programs, and what the probes make of their samples."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from benchreport import packed  # noqa: E402

NVIDIA_SMI = """
case "$*" in
*compute_cap*) echo "NVIDIA H100 80GB HBM3, 580.1, 9.0" ;;
*) echo "clocks.current.sm [MHz], power.draw [W]"; echo "1980 MHz, 70.00 W"; exec sleep 60 ;;
esac
"""
KERNELS = """
case "$*" in
*--list*) echo "linear::one: test"; echo "norm::two: test" ;;
*) echo "linear linear" >>"$BIDSLATE_LAUNCHED"; echo "test result: ok. 1 passed" ;;
esac
"""
# One benchmark for each group, as criterion writes it, or the latencies of a load.
BENCH = """
if [ "$BIDSLATE_BENCH" = loads ]; then
  times='"p50_ms": 2.0, "p90_ms": 2.1, "p99_ms": 2.5, "max_ms": 3.0, "p99_over_p50": 1.25'
  echo "{\\"d 512, poisson, 50 %\\": {$times, \\"rate\\": 200.0, \\"capacity\\": 400.0, \\"requests\\": 9,
    \\"callers\\": 2, \\"batch\\": 16, \\"mean_batch\\": 1.5}}" >"$BIDSLATE_LOADS"
  exit
fi
home="$CRITERION_HOME/one/new"
mkdir -p "$home"
case "$BIDSLATE_BENCH" in
stages) name="encoder d 512, batch 8/gpu" ;;
allocations) name="allocate d 512, batch 128/engine" ;;
*) name="$BIDSLATE_BENCH/gpu" ;;
esac
work='{"ElementsAndBytes": {"elements": 790000000000, "bytes": 3}}'
echo "{\\"full_id\\": \\"$name\\", \\"throughput\\": $work}" >"$home/benchmark.json"
interval='{"lower_bound": 1e6, "upper_bound": 3e6}'
echo "{\\"median\\": {\\"point_estimate\\": 2e6, \\"confidence_interval\\": $interval}}" >"$home/estimates.json"
echo '{"iters": [1, 2], "times": [2e6, 6e6]}' >"$home/sample.json"
"""
PROBE = """
[ "$1" != --list ] || { echo barriers; exit; }
echo '[{"what": "a barrier", "unit": "us", "value": 1.5, "parameters": {}, "samples": [1, 2]}]'
"""
# What init-model makes, as far as gpu-check looks at it.
BIDSLATE = """
for directory; do :; done
mkdir -p "$directory"
touch "$directory/requests.jsonl"
"""
TORCH_EGA = """
import json, os, sys
options = dict(zip(sys.argv, sys.argv[1:]))
assert os.path.exists(options["--model"] + "/requests.jsonl") and os.environ["BIDSLATE"].endswith("bidslate")
names = {"bidslate": 2.0, "strong": 8.0}
times = {name: [{"p50_ms": ms, "wall_ms": [ms, ms + 1]}] for name, ms in names.items()}
json.dump({"times": times}, open(options["--out"], "w"))
print("a table")
"""
TORCH = "import json\nprint(json.dumps({'torch': '2', 'device': 'stand-in', 'figures': {}}))\n"


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """What `gpu-check stage` makes, with shell scripts for its programs, two of them packed, and an `nvidia-smi`."""
    for name, text in {
        "kernels": KERNELS,
        "bench": BENCH,
        "probe": PROBE,
        "bidslate": BIDSLATE,
        "models/nyc/requests.jsonl": "",
        "bin/nvidia-smi": NVIDIA_SMI,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)
    shutil.copy2(ROOT / "scripts/gpu-check", tmp_path / "gpu-check")
    shutil.copytree(ROOT / "scripts/benchreport", tmp_path / "benchreport")
    (tmp_path / "torch_kernels.py").write_text(TORCH)
    (tmp_path / "torch_ega.py").write_text(TORCH_EGA)
    (tmp_path / "commit").write_text("abc\n")
    for program in ("bench", "bidslate"):
        packed.pack(tmp_path / program)
    return tmp_path


def gpu_check(stage: Path, command: str, **environment: str) -> subprocess.CompletedProcess:
    path = f"{stage / 'bin'}:{os.environ['PATH']}"
    return subprocess.run(
        [sys.executable, stage / "gpu-check", command],
        env=os.environ | {"PATH": path} | environment,
        capture_output=True,
        text=True,
    )


def test_all_runs_every_part_and_reports(stage: Path) -> None:
    run = gpu_check(stage, "all")
    assert run.returncode == 0, run.stdout + run.stderr
    reports = {path.stem: json.loads(path.read_text()) for path in stage.glob("*.json")}
    assert {"conformance", "probe", "bench", "peer"} <= set(reports)
    assert reports["conformance"]["tests"]["norm::two"]["kernels"] == ["linear linear"]
    found = reports["probe"]["probes"]["barriers"]["figures"]
    assert (found[0]["value"], found[0]["samples"]) == (1.5, [1, 2])
    stages = reports["bench"]["benches"]["stages"]
    assert stages["figures"]["encoder d 512, batch 8/gpu"]["samples_ns"] == [2e6, 3e6]
    assert stages["clocks"] == ["clocks.current.sm [MHz], power.draw [W]", "1980 MHz, 70.00 W"]
    whole = reports["peer"]["benches"]["requests of base, batch 128"]
    name = "allocate d 512, batch 128/engine"
    assert whole["figures"][name]["median_ns"] == 2e6
    assert whole["peer"]["figures"][name]["samples_ns"] == [8e6, 9e6]
    assert (stage / "models/large/requests.jsonl").exists()
    # 790 GFLOP in 2 ms are half of the card's rate; 128 allocations in 2 ms.
    assert "| encoder | 512 | 8 | 2 ms | 1 ms to 3 ms | 4000 | 395 " in run.stdout
    assert "6.400e+04/s  allocate d 512, batch 128/engine" in run.stdout
    assert (stage / "bench-roofline.svg").exists()
    assert "p99 1.25 of p50 (2.50 of 2.00 ms) at 200 requests/s" in run.stdout
    assert (
        "| d 512, poisson, 50 % | 200 | 400 | 2.00 ms | 2.10 ms | 2.50 ms | 3.00 ms | 1.25 | 1.5 |"
        in run.stdout
    )


def test_what_a_card_cannot_run_is_told_apart(stage: Path) -> None:
    reason = "its architecture is sm_80, and kernels for Hopper run on sm_90 alone"
    text = (
        f'#!/bin/sh\ncase "$*" in\n*--list*) echo "linear_hopper::one: test" ;;\n'
        f'*) printf "test result: ok. 1 passed\\nskipped: {reason}\\n" ;;\nesac\n'
    )
    (stage / "kernels").write_text(text)
    run = gpu_check(stage, "conformance")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 passed, 1 skipped, 0 failed" in run.stdout
    tests = json.loads((stage / "conformance.json").read_text())["tests"]
    assert tests["linear_hopper::one"]["skipped"] == reason


def test_a_part_that_fails_is_told_and_the_others_run(stage: Path) -> None:
    probe = stage / "probe"
    probe.write_text(
        '#!/bin/sh\n[ "$1" != --list ] || { echo barriers; exit; }\necho "a fault" >&2\nexit 1\n'
    )
    run = gpu_check(stage, "all")
    assert run.returncode == 1
    report = json.loads((stage / "probe.json").read_text())["probes"]["barriers"]
    assert (report["passed"], report["output"]) == (False, "a fault\n")
    assert (stage / "peer.json").exists()


def test_time_that_is_up_ends_all_of_it_and_is_taken_up_again(stage: Path) -> None:
    run = gpu_check(stage, "bench", GPU_CHECK_STARTED="-1e9")
    assert run.returncode == 75
    assert "run the same command again" in run.stdout
    assert "left of this part: allocations; allocations_hopper; " in run.stdout
    assert gpu_check(stage, "bench").returncode == 0


def test_the_peer_goes_on_where_it_ended(stage: Path) -> None:
    # It ends at its second run, where the machine lacks something.
    log, lacking = stage / "log", stage / "lacking"
    lines = (
        "import os, sys",
        f"if 'models/base' in ' '.join(sys.argv) and os.path.exists({str(lacking)!r}): sys.exit(2)",
        f"print(*sys.argv[1:], file=open({str(log)!r}, 'a'))",
    )
    (stage / "torch_ega.py").write_text("\n".join(lines) + TORCH_EGA)
    lacking.touch()
    assert gpu_check(stage, "peer").returncode == 2
    assert list(json.loads((stage / "peer.json").read_text())["benches"]) == ["requests of small, batch 1"]
    lacking.unlink()
    run = gpu_check(stage, "peer")
    assert run.returncode == 0, run.stdout + run.stderr
    done = list(json.loads((stage / "peer.json").read_text())["benches"])
    first = [
        f"requests of {model}, batch {batch}" for batch in (1, 128) for model in ("small", "base", "large")
    ]
    assert done[:9] == [*first, "products", "attentions", "quantizer"]
    asked = log.read_text().splitlines()
    assert len(asked) == len(set(asked)) == 20


def test_without_a_gpu_nothing_begins(stage: Path) -> None:
    (stage / "bin/nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    run = gpu_check(stage, "all")
    assert run.returncode == 2
    assert "there is no GPU here" in run.stderr
    assert not list(stage.glob("*.json"))


@pytest.mark.parametrize("command", ["conformance", "sanitize", "probe", "bench", "peer", "all"])
def test_what_runs_on_a_gpu_machine_says_so_in_a_checkout(stage: Path, command: str) -> None:
    (stage / "commit").unlink()
    run = gpu_check(stage, command)
    assert run.returncode == 2
    assert "gpu-check stage" in run.stderr and f"target/gpu-check/gpu-check {command}" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_report_that_is_not_there_is_named(stage: Path) -> None:
    run = gpu_check(stage, "report")
    assert run.returncode == 2
    assert f"{stage / 'bench.json'} is not there" in run.stderr


def test_help_is_no_fault(stage: Path) -> None:
    run = gpu_check(stage, "--help")
    assert (run.returncode, run.stderr) == (0, "")
    assert "gpu-check conformance" in run.stdout


def test_figures_of_probes_are_medians_of_differences(tmp_path: Path) -> None:
    source = tmp_path / "main.cpp"
    source.write_text(
        '#include "figures.h"\n'
        "int main() {\n"
        "  auto costs = probes::per_step({10, 11, 10, 50}, {30, 32, 34, 130}, 100, 110);\n"
        '  std::puts(probes::json({"a node", "us", costs, {{"nodes", 110}}}).c_str());\n'
        "}\n"
    )
    command = [
        "g++",
        "-std=c++17",
        "-Wall",
        "-Werror",
        f"-I{ROOT / 'benches/probes'}",
        source,
        "-o",
        tmp_path / "main",
    ]
    subprocess.run(command, check=True)
    found = json.loads(subprocess.run([tmp_path / "main"], check=True, capture_output=True).stdout)
    assert found["samples"] == pytest.approx([2.0, 2.1, 2.4, 8.0])
    assert found["value"] == pytest.approx(2.25)
    assert (found["what"], found["unit"], found["parameters"]) == ("a node", "us", {"nodes": 110})
