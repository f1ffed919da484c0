"""Goldens: what is compared, and that a difference is seen. The whole is run against a built engine if there is one."""

import json
import os
from pathlib import Path

import pytest
import torch

from bidslate_train import engine, golden


def test_difference_is_relative_to_the_largest_magnitude():
    a = torch.tensor([100.0, 1.0, -torch.inf])
    assert golden.difference(a, torch.tensor([100.0, 1.01, -torch.inf])) == pytest.approx(1e-4, rel=1e-3)
    assert golden.difference(a, torch.tensor([100.0, 1.0, 0.0])) == float("inf")
    assert golden.difference(a, a[:2]) == float("inf")
    assert golden.difference(torch.tensor([1, 2]), torch.tensor([1, 3])) == float("inf")
    assert golden.difference(torch.tensor([1, 2]), torch.tensor([1, 2])) == 0


def response(rate=0.5, item=7):
    slot = {"item": item, "bid_micros": 1_000_000, "payment_micros": int(1_000_000 * rate), "z": 0.25}
    return {"id": "r", "slots": [slot | dict.fromkeys(("pctr_poi", "pctr_creative", "pcvr"), 0.125)]}


def own(payment=500_000):
    numbers = {name: torch.tensor([0.125, 0]) for name in ("pctr_poi", "pctr_creative", "pcvr")}
    numbers |= {
        "z": torch.tensor([0.25, 0]),
        "items": torch.tensor([7, -1]),
        "payment": torch.tensor([payment, 0]),
    }
    return {f"r/winner/{name}": tensor for name, tensor in numbers.items()}


def test_a_response_is_held_to_ids_probabilities_and_payments():
    assert max(golden.compare(own(), {}, [response()]).values()) == 0
    assert golden.compare(own(), {}, [response(item=8)])["r/winner/items"] == float("inf")
    assert golden.compare(own(500_200), {}, [response()])["r/winner/payment"] == pytest.approx(2e-4)
    with pytest.raises(ValueError, match="the engine refuses golden request r"):
        golden.compare(own(), {}, [{"id": "r", "error": {"kind": "invalid"}}])


def built():
    found = os.environ.get("BIDSLATE", str(engine.REPOSITORY / "target/release/bidslate"))
    return Path(found).exists()


@pytest.mark.skipif(not built(), reason="needs a built engine")
def test_the_engine_agrees_with_pytorch_on_a_random_model(tmp_path):
    made = tmp_path / "model"
    sizes = ("--items", 200, "--requests", 5, "--history-len", 16, "--codebook-size", 16, "--beam-width", 16)
    engine.bidslate("init-model", "--size", "tiny", "--seed", 3, *sizes, made)
    errors = golden.write(made, made / "requests.jsonl", tmp_path / "work")
    assert max(errors.values()) <= golden.TOLERANCE
    assert (made / "golden.safetensors").stat().st_size < 600_000
    kept = [json.loads(line) for line in (made / "golden-requests.jsonl").read_text().splitlines()]
    assert max(len(request["history"]) for request in kept) == golden.HISTORY


@pytest.mark.skipif(not built(), reason="needs a built engine")
def test_a_model_that_reads_something_else_is_caught(tmp_path, monkeypatch):
    made = tmp_path / "model"
    engine.bidslate("init-model", "--size", "tiny", "--seed", 3, "--items", 200, "--requests", 5, made)
    monkeypatch.setattr("bidslate_train.blocks.Memory.mean", lambda memory: memory.states.mean(1) * 1.001)
    with pytest.raises(ValueError, match="differs from the PyTorch model"):
        golden.write(made, made / "requests.jsonl", tmp_path / "work")
