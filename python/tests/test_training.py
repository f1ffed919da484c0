"""The loop: exact resume, the stop at NaN, data parallelism, the order of rows."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import toy_config, write_toy

from bidslate_train.model import Model
from bidslate_train.pretrain import (
    InterestData,
    PretrainSettings,
    interest_loss,
    interest_parameters,
    train,
    without_state,
)
from bidslate_train.training import Diverged, Schedule, Training, draw

SETTINGS = {
    "steps": 6,
    "batch": 4,
    "rate": 0.01,
    "warm_up": 2,
    "log_every": 2,
    "save_every": 2,
    "validate_every": 3,
}


@pytest.fixture
def toy(tmp_path):
    config = toy_config()
    write_toy(tmp_path, config)
    return config, InterestData.read(tmp_path, tmp_path / "catalog.safetensors", config)


def run(config, data, out, dropout, stop_at=None, dtype=torch.float32):
    torch.manual_seed(0)
    model = Model(config, dropout).to(dtype)
    training = Training("pretrain", model, interest_parameters(model), Schedule(**SETTINGS), out, seed=3)
    training.run(interest_loss(model, data.training), len(data.training), stop_at=stop_at)
    return model


def test_an_interrupted_run_goes_on_to_the_same_bits(toy, tmp_path):
    whole = run(*toy, tmp_path / "whole", dropout=0.2)
    run(*toy, tmp_path / "parts", dropout=0.2, stop_at=4)
    with open(tmp_path / "parts" / "pretrain.csv", "a") as file:
        file.write("6,9,9,9,9,9\n")  # logged after the checkpoint, before the interruption
    resumed = run(*toy, tmp_path / "parts", dropout=0.2)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert (tmp_path / "whole/pretrain.csv").read_text() == (tmp_path / "parts/pretrain.csv").read_text()


def test_other_settings_do_not_resume(toy, tmp_path):
    run(*toy, tmp_path, dropout=0.0, stop_at=2)
    with pytest.raises(ValueError, match=r"rate: 0.01 then, 0.02 now"):
        model = Model(toy[0])
        schedule = Schedule(**(SETTINGS | {"rate": 0.02}))
        data = toy[1].training
        Training("pretrain", model, interest_parameters(model), schedule, tmp_path, 3).run(
            interest_loss(model, data), len(data)
        )


def test_nan_stops_with_the_last_good_state_kept(toy, tmp_path):
    config, data = toy
    model = Model(config)
    training = Training("pretrain", model, interest_parameters(model), Schedule(**SETTINGS), tmp_path, seed=3)
    loss_of, calls = interest_loss(model, data.training), []

    def spoilt(rows):
        calls.append(rows)
        loss, values = loss_of(rows)
        return (loss * torch.nan if len(calls) == 5 else loss), values

    with pytest.raises(Diverged, match=r"step 5; the last good state is in .*checkpoint.pt"):
        training.run(spoilt, len(data.training))
    state = torch.load(tmp_path / "checkpoint.pt")
    assert state["step"] == 4
    assert all(torch.isfinite(tensor).all() for tensor in state["module"].values())
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_rows_are_drawn_in_whole_passes():
    drawn = np.concatenate([draw(1, step, 4, 10) for step in range(5)])
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert drawn[:10].tolist() != drawn[10:].tolist()


WORKER = """
import sys, torch
sys.path[:0] = [{tests!r}, {package!r}]
torch.set_num_threads(1)
from pathlib import Path
from test_training import run
from toy import toy_config
from bidslate_train.pretrain import InterestData
data, out = Path({data!r}), Path({out!r})
config = toy_config()
run(config, InterestData.read(data, data / "catalog.safetensors", config), out, 0.0, dtype=torch.float64)
"""


def test_two_processes_train_as_one(toy, tmp_path):
    # In float64: Adam divides by the size of a gradient, and so makes much of what rounding leaves of a zero one.
    alone = run(*toy, tmp_path / "alone", dropout=0.0, dtype=torch.float64)
    tests = Path(__file__).parent
    script = tmp_path / "worker.py"
    out = tmp_path / "pair"
    script.write_text(
        WORKER.format(tests=str(tests), package=str(tests.parent), data=str(tmp_path), out=str(out))
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # What torchrun sets for its processes (the one of torch 1.13 fails on Python 3.11).
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    launched = [
        subprocess.Popen(
            [sys.executable, str(script)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **world, "RANK": rank},
        )
        for rank in ("0", "1")
    ]
    for process in launched:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-2000:]
    pair = torch.load(out / "checkpoint.pt")["module"]
    for name, tensor in alone.state_dict().items():
        assert (tensor - pair[name]).abs().max() <= 1e-6 * max(1, tensor.abs().max()), name
    # Adam does not mind a gradient of twice the size; its norm in the log would tell.
    told = [
        np.loadtxt(path / "pretrain.csv", delimiter=",", skiprows=1) for path in (tmp_path / "alone", out)
    ]
    np.testing.assert_allclose(told[0], told[1], rtol=1e-4)


def test_pretraining_learns_and_saves_a_model_directory(toy, tmp_path):
    config, data = toy
    settings = PretrainSettings(
        **(SETTINGS | {"steps": 60, "validate_every": 60, "held_out": 3, "dropout": 0.0})
    )
    model = train(config, settings, data, tmp_path / "out", seed=1)
    losses = [
        float(line.split(",")[1]) for line in (tmp_path / "out/pretrain.csv").read_text().split("\n")[1:-1]
    ]
    assert losses[-1] < 0.8 * losses[0]
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "config.json",
        "tokenizer.json",
        "model.safetensors",
    }
    assert "hit_10" in (tmp_path / "out/pretrain-held-out.csv").read_text()
    assert not model.training


def test_without_state_only_the_creative_decoder_trains(toy, tmp_path):
    config, data = toy
    before = Model(config)
    kept = {name: tensor.clone() for name, tensor in before.state_dict().items()}
    settings = PretrainSettings(**(SETTINGS | {"state_free_steps": 4}))
    after = without_state(before, settings, data, tmp_path, seed=1).state_dict()
    assert (after["creative.hidden_norm.weight"] == 0).all()
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, kept[name])}
    assert changed == {name for name in kept if name.startswith(("creative.", "creative_head."))}
    memory = before.encode(data.training.histories(np.arange(2)))
    codes = torch.zeros(2, config.list_len, config.creative_code_layers, dtype=torch.int64)
    states = torch.randn(2, config.list_len, config.hidden_size)
    seen, unseen = (
        before.decode_creative(memory, states, codes),
        before.decode_creative(memory, 0 * states, codes),
    )
    assert torch.equal(seen, unseen)
