"""Runs of whole requests beside PyTorch, on stand-ins for the program and the engine."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from benchreport import whole_peer  # noqa: E402

PROGRAM = """
import json, sys
options = dict(zip(sys.argv, sys.argv[1:]))
medians = {"bidslate": 2.0, "strong": 8.0}
if "hopper" in sys.argv:
    medians["bidslate, hopper"] = 1.0
times = {name: [{"p50_ms": ms, "wall_ms": [ms]}] for name, ms in medians.items()}
json.dump({"times": times, "arguments": sys.argv[1:]}, open(options["--out"], "w"))
"""


def place(tmp_path, ending, model="nyc"):
    (tmp_path / "models" / model).mkdir(parents=True)
    (tmp_path / "models" / model / "requests.jsonl").touch()
    (tmp_path / "torch_ega.py").write_text(PROGRAM + ending)
    return tmp_path


def test_times_count_where_answers_agree(tmp_path):
    found = whole_peer.run(place(tmp_path, "", "base"), "base", 8, 60)
    assert found["passed"] and found["figures"].keys() == found["peer"]["figures"].keys()
    assert list(found["figures"]) == ["allocate d 512, batch 8/engine"]
    arguments = found["found"]["arguments"]
    assert {"--graph", "--compile", "--all-ads"} < set(arguments) and "--naive" not in arguments


def test_other_kernels_are_figures_of_their_own_beside_the_same_peer(tmp_path):
    found = whole_peer.run(place(tmp_path, "", "base"), "base", 1, 60, ("hopper",))
    medians = {name: figure["median_ns"] for name, figure in found["figures"].items()}
    assert medians == {"allocate d 512, batch 1/engine": 2e6, "allocate d 512, batch 1, hopper/engine": 1e6}
    assert {figure["median_ns"] for figure in found["peer"]["figures"].values()} == {8e6}
    assert found["peer"]["figures"].keys() == medians.keys()


def test_the_most_telling_runs_come_first():
    runs = list(whole_peer.RUNS.values())
    first = [(model, batch) for batch in (1, 128) for model in ("small", "base", "large")]
    assert runs[:6] == first == list(whole_peer.FIRST.values())
    assert set(runs) == {(model, batch) for model in whole_peer.MODELS for batch in (1, 8, 32, 128, None)}
    assert [batch for _, batch in runs[-4:]] == [None] * 4


def test_the_naive_version_is_apart(tmp_path):
    there = place(tmp_path, "")
    arguments = whole_peer.run(there, "nyc", 1, 60)["found"]["arguments"]
    assert not {"--naive", "--exact", "--all-ads"} & set(arguments)
    found = whole_peer.run(there, "nyc", None, 60)
    assert "--naive" in found["found"]["arguments"] and "--graph" not in found["found"]["arguments"]
    assert found["passed"] and not found["figures"]


def test_no_ratio_where_answers_differ(tmp_path):
    found = whole_peer.run(place(tmp_path, "print('too few')\nsys.exit(1)"), "nyc", 32, 60)
    assert not found["passed"] and "too few" in found["output"]
    assert list(found["figures"]) == ["allocate nyc, batch 32/engine"] and not found["peer"]["figures"]


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(whole_peer.Missing, match="no torch here"):
        whole_peer.run(place(tmp_path, "print('no torch here')\nsys.exit(2)"), "nyc", 1, 60)


def test_a_run_that_takes_too_long_is_no_result(tmp_path):
    there = place(tmp_path, "")
    (there / "torch_ega.py").write_text("import time\ntime.sleep(60)\n")
    found = whole_peer.run(there, "nyc", 1, 0.5)
    assert not found["passed"] and not found["figures"] and "ran for more than" in found["output"]


def test_all_that_the_program_imports_is_staged(tmp_path):
    whole_peer.stage(ROOT, tmp_path)
    assert (tmp_path / "models/nyc/catalog.safetensors").stat().st_size > 100_000
    program = "import torch_ega, bidslate_train, ega; print(bidslate_train.__file__, ega.__file__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(path.startswith(str(tmp_path)) for path in done.stdout.split())


def test_ctranslate2_is_timed_where_its_wheel_is(tmp_path, monkeypatch):
    line = '{"name": "CTranslate2 4", "type": "float16", "ms_median": 3.0, "ms_min": 2.0}'
    (tmp_path / "ct2.py").write_text(f"print('loading')\nprint('{line}')\n")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert whole_peer.run_ct2(tmp_path, 8, 60)["output"] == "ctranslate2 is not installed"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    found = whole_peer.run_ct2(tmp_path, 8, 60)
    assert found["passed"]
    figure = found["figures"]["CTranslate2 4 float16, encoder and search, d 512, batch 8"]
    assert (figure["median_ns"], figure["low_ns"]) == (3e6, 2e6)
    (tmp_path / "ct2.py").write_text("raise SystemExit('no driver')")
    found = whole_peer.run_ct2(tmp_path, 8, 60)
    assert not found["passed"] and "no driver" in found["output"]
