"""A run's directory: its configuration stays with it, and each step is done once. The whole is scripts/test-python."""

import json
import re
import subprocess
import tomllib

import pytest
from toy import AGES, toy_config, write_lines, write_toy

from bidslate_train import run as steps
from bidslate_train.__main__ import STEPS, main
from bidslate_train.config import Config
from bidslate_train.lines import Refused
from bidslate_train.pretrain import InterestData, PretrainSettings
from bidslate_train.run import Run
from bidslate_train.settings import Settings
from bidslate_train.tokens import TokenSettings


def settings(tmp_path, seed=1):
    path = tmp_path / "toy.toml"
    path.write_text(
        f"seed = {seed}\n[model]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in sizes().items())
    )
    return Settings.read(str(path))


def sizes():
    return {k: v for k, v in json.loads(toy_config().to_json()).items() if not isinstance(v, dict)}


def test_each_step_is_done_once(tmp_path):
    run = Run.open(settings(tmp_path), tmp_path / "out")
    calls = []
    for _ in range(2):
        run.perform("first", calls.append)
    assert calls == [run]
    again = Run.open(settings(tmp_path), tmp_path / "out")
    again.perform("first", calls.append)
    assert len(calls) == 1

    def fails(run):
        raise Refused("no")

    with pytest.raises(Refused):
        run.perform("second", fails)
    run.perform("second", calls.append)
    assert len(calls) == 2


def test_another_configuration_is_refused(tmp_path):
    Run.open(settings(tmp_path), tmp_path / "out")
    with pytest.raises(Refused, match=r"config.toml differs from .*toy.toml"):
        Run.open(settings(tmp_path, seed=2), tmp_path / "out")


def test_unknown_keys_of_a_configuration_are_named(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text("[pretrain]\nstepz = 4\n[model]\nhidden = 3\n[tokens]\nsteps = 3\n")
    found = Settings.read(str(path))
    with pytest.raises(ValueError, match=r"\[pretrain\] has unknown keys \['stepz'\]"):
        found.table("pretrain", PretrainSettings)
    with pytest.raises(
        ValueError, match=r"\[model\]: unknown keys \['hidden'\], missing keys \['history_len'"
    ):
        _ = found.model
    assert found.table("tokens", TokenSettings).steps == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed = 1\n[pretrian]\nsteps = 4\n", r"unknown keys \['pretrian'\], expected some of \["),
        ("sead = 1\n", r"unknown keys \['sead'\]"),
        ('seed = "1"\n', "`seed` is '1', expected a whole number"),
        ("seed = 1.5\n", "`seed` is 1.5, expected a whole number"),
        ('[payment]\nsteps = "many"\n', r"\[payment\]: `steps` is 'many', expected a whole number"),
        ("[reward]\nlearning_rate = true\n", r"\[reward\]: `learning_rate` is True, expected a number"),
        ("[import]\nusers = [1]\n", r"\[import\]: `users` is \[1\], expected a whole number"),
        ('[report]\nalphas = [1.2, "2"]\n', r"\[report\]: `alphas` is .*, expected a list of numbers"),
        ("[payment]\ntier = 3\n", r"\[payment\]: `tier` is 3, expected a text"),
        ("payment = 3\n", r"\[payment\] is 3, expected a table"),
        ("[end\n", r"x.toml: .*line 1"),
    ],
)
def test_a_faulty_configuration_is_refused_before_anything_runs(tmp_path, capsys, text, says):
    path = tmp_path / "x.toml"
    sizes_too = "[model]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in sizes().items())
    path.write_text(text + sizes_too)
    out = tmp_path / "out"
    assert main(["all", "--data", str(path), "--out", str(out), "--csv", str(tmp_path / "none")]) == 1
    error = capsys.readouterr().err
    assert str(path) in error
    assert re.search(says, error), error
    assert not out.exists(), "a run's directory keeps its configuration, and would keep this one"


def test_sizes_of_a_model_have_their_types(tmp_path):
    for key, value, says in [
        ("hidden_size", "64", "a whole number"),
        ("alpha", [1.2], "a number"),
        ("quantizer_hidden", 3, "a list of whole numbers"),
        ("context_features", {"hour": "24"}, "a table of whole numbers"),
    ]:
        with pytest.raises(ValueError, match=f"here: `{key}` is .*, expected {says}"):
            Config.from_dict(sizes() | {key: value}, "here")
    assert Config.from_dict(sizes() | {"alpha": 1, "currency": None}).alpha == 1


def test_a_program_that_fails_is_named(tmp_path, capsys, monkeypatch):
    def fails(run):
        subprocess.run(["false"], check=True)

    monkeypatch.setitem(STEPS, "data", fails)
    path = settings(tmp_path).path
    assert main(["data", "--data", str(path), "--out", str(tmp_path / "out")]) == 1
    assert "'false'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["nyc", "smoke", "beauty"])
def test_the_configurations_here_are_read(name):
    found = Settings.read(name)
    assert found.model.to_json()
    assert set(tomllib.loads(found.text)) >= {"seed", "model"}
    assert found.table("pretrain", PretrainSettings).steps > 0


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    path = settings(tmp_path).path
    assert main(["pretrain", "--data", str(path), "--out", str(tmp_path / "out")]) == 1
    assert "catalog.safetensors" in capsys.readouterr().err
    assert list(STEPS)[:3] == ["data", "tokens", "pretrain"]


def test_requests_that_differ_from_the_visits_are_refused(tmp_path):
    config = toy_config()
    (tmp_path / "data").mkdir()
    lines = write_toy(tmp_path / "data", config)
    run = Run.open(settings(tmp_path), tmp_path)
    (tmp_path / "data/catalog.safetensors").rename(run.catalog)
    data = InterestData.read(run.data, run.catalog, config)
    line = lines[2]
    history = [
        {
            "item": v["item"], "creative": v["creative"],
            "features": v["features"] | {"recency": sum(line["second"] - v["second"] >= age for age in AGES)},
        }
        for v in lines[:2]
    ]  # fmt: skip
    request = {"id": "r", "context": line["context"], "history": history, "candidates": []}
    write_lines(run.data / "heldout.jsonl", [{"id": "r", "user": 1, "visit": 2}])
    write_lines(run.data / "requests-train.jsonl", [request])
    object.__setattr__(run.settings, "tables", {"model": json.loads(config.to_json())})
    steps.check_requests(run, data)
    history[1]["features"]["recency"] ^= 1
    write_lines(run.data / "requests-train.jsonl", [request])
    with pytest.raises(Refused, match="request 'r' differs from the visits"):
        steps.check_requests(run, data)
