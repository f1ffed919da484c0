"""Allocation in PyTorch against the numpy reading of the whole model, in float64, on random requests."""

import json

import numpy as np
import pytest
import torch
from reference import REFERENCE, NumpyModel
from safetensors.numpy import load_file
from toy import toy_config, write_catalog
from worlds import random_model

from bidslate_train.allocation import Ask, allocate
from bidslate_train.catalog import Catalog
from bidslate_train.requests import Requests

OPTIONS = [
    {},
    {"alpha": 2.0, "beta": 0.5, "policy": {"max_ads": 1}, "list_len": 2},
    {"history": [], "beam_width": 1, "organic": []},
    {"alpha": 0.0, "beta": 0.0, "organic": []},
    {"beta": 0, "policy": {"first_ad_slot": 0}},
    {"objective": {"revenue": 0.3, "ctr_poi": 1, "ctr_creative": 0.5, "cvr": 2}, "tie_seed": 99},
    {"candidates": [], "beam_width": 9},
    {"candidates": [], "organic": []},
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    path = tmp_path_factory.mktemp("allocation")
    config = toy_config(codebook_size=3, billable_unit_micros=1000)
    write_catalog(path / "catalog.safetensors", config, items=40)
    model = random_model(config, seed=4)
    numpy_model = NumpyModel(model)
    table = load_file(path / "catalog.safetensors")
    numpy_model.items = {int(i): REFERENCE.Item(table, row) for row, i in enumerate(table["item.id"])}
    return path, model, numpy_model, Catalog(path / "catalog.safetensors")


def request(options, seed):
    rng = np.random.default_rng(seed)
    ads = [100 + i for i in range(0, 40, 3)]
    organic = [100 + int(i) for i in rng.permutation(40) if i % 3][:5]
    history = [
        {"item": int(i), "creative": 0, "features": {"action": 1, "recency": 2}}
        for i in 100 + rng.integers(0, 40, 3)
    ]
    policy = {"max_ads": 2, "min_gap": 1, "first_ad_slot": 1}
    line = {"id": "r", "context": {"hour": 5}, "history": history, "candidates": ads, "organic": organic}
    return line | {"policy": policy, "tie_seed": 3} | options


@pytest.mark.parametrize("case", range(len(OPTIONS)))
def test_same_lists_same_winner_same_payments(world, case):
    path, model, numpy_model, catalog = world
    line = request(OPTIONS[case], case)
    (path / "request.jsonl").write_text(json.dumps(line))
    requests = Requests.read(path / "request.jsonl", catalog, model.config)
    ask = Ask.of(line, catalog, model.config)
    memory = model.encode(requests.histories)
    ours = allocate(model, memory, ask, catalog)

    reference = REFERENCE.Allocation(numpy_model, REFERENCE.Request(numpy_model, line))
    assert [[i.id for i in b.items] for b in ours.beams] == [[i.id for i in b.items] for b in reference.lists]
    np.testing.assert_allclose([b.score for b in ours.beams], [b.score for b in reference.lists], atol=1e-9)
    np.testing.assert_allclose(ours.rewards, [b.reward for b in reference.lists], atol=1e-9)
    chosen = [[row - catalog.offsets[i.row] for i, row in zip(b.items, rows, strict=True)]
              for b, rows in zip(ours.beams, ours.creatives, strict=True)]  # fmt: skip
    assert chosen == [b.creatives for b in reference.lists]

    response = reference.response("r")
    assert ours.winner == response["beam"]
    slots = response["slots"]
    np.testing.assert_allclose(ours.rates, [slot["rate"] for slot in slots], atol=1e-9)
    assert ours.payments == [slot["payment_micros"] for slot in slots]
    np.testing.assert_allclose(ours.probabilities[:, 0], [slot["pctr_poi"] for slot in slots], atol=1e-9)
    np.testing.assert_allclose(ours.beams[ours.winner].zs, [slot["z"] for slot in slots], atol=1e-9)


def test_ln_w_along_the_winner_gives_its_score(world):
    path, model, _, catalog = world
    line = request({}, 1)
    (path / "request.jsonl").write_text(json.dumps(line))
    memory = model.encode(Requests.read(path / "request.jsonl", catalog, model.config).histories)
    out = allocate(model, memory, Ask.of(line, catalog, model.config), catalog)
    ln_z = (out.poi_logits + out.ln_w).log_softmax(-1)
    beam = out.beams[out.winner]
    codes = torch.tensor(beam.codes).unsqueeze(1)
    assert abs(float(ln_z.gather(1, codes).sum()) - beam.score) < 1e-6


def test_what_no_golden_can_hold_is_refused(world):
    _, model, _, catalog = world
    with pytest.raises(ValueError, match="no goldens of gsp"):
        Ask.of(request({"payment": "gsp"}, 1), catalog, model.config)
    with pytest.raises(ValueError, match="bid_scope"):
        Ask.of(request({"bid_scope": "code"}, 1), catalog, model.config)
