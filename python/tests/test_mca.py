"""The multi-stage baseline on a toy catalog: its lists, its prices, and its audit against answering again."""

import copy
import math

import numpy as np
import pytest
import torch
from toy import toy_config, write_catalog

from bidslate_train.baselines import by_codes
from bidslate_train.blocks import Mlp
from bidslate_train.catalog import Catalog
from bidslate_train.mca import Stages, expand
from bidslate_train.mca_responses import price, response
from bidslate_train.model import TOWER_SIZES, Model
from bidslate_train.pointwise import Inputs, PointModel
from bidslate_train.requests import Requests
from bidslate_train.slot_auction import AD_SLOTS


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    torch.manual_seed(3)
    config = toy_config(list_len=10)
    path = tmp_path_factory.mktemp("mca") / "catalog.safetensors"
    write_catalog(path, config, items=40)
    catalog = Catalog(path)
    catalog.bid_micros = np.where(catalog.is_ad, np.random.default_rng(1).integers(500_000, 4_000_000, 40), 0)
    catalog.reserve_micros = np.where(catalog.is_ad, 300_000, 0)
    ads = [int(i) for i in catalog.item_id[catalog.is_ad]]
    organic = [int(i) for i in catalog.item_id[~catalog.is_ad]]
    line = {"id": "a", "history": [], "candidates": ads, "organic": organic[:9], "policy": {"max_ads": 4}}
    model = Model(config)
    inputs = Inputs.of(model, torch.randn(1, config.hidden_size), catalog)
    width = inputs.ranking(np.array([0]), np.array([0])).shape[1]
    ranking = PointModel(config, width, ["click_poi", "conversion"])
    selection = PointModel(config, width + config.hidden_size, ["click_creative"])
    payment = Mlp([config.reward_hidden_size + config.list_len, *TOWER_SIZES])
    recalled = [np.flatnonzero(catalog.is_ad)]
    return Stages(config, catalog, Requests([line], None), inputs, ranking, selection, payment, recalled)


def test_lists(stages):
    found = response(stages, 0)
    slots = found["slots"]
    assert len(slots) == 10
    assert [k for k, slot in enumerate(slots) if slot["kind"] == "ad"] == list(AD_SLOTS)
    line = stages.requests.lines[0]
    assert [slot["item"] for slot in slots if slot["kind"] == "organic"] == line["organic"][:6]
    for slot in slots:
        row = stages.catalog.rows[slot["item"]]
        assert stages.catalog.creative_row(row, slot["creative"]) is not None
        if slot["kind"] == "ad":
            assert stages.catalog.reserve_micros[row] <= slot["payment_micros"] <= slot["bid_micros"]
            assert slot["bid_micros"] == stages.catalog.bid_micros[row]
    # Best first, by bid x pctr in the first ad slot.
    scores = dict(zip(stages.recalled[0].tolist(), candidate_scores(stages), strict=True))
    shown = [stages.catalog.rows[slots[k]["item"]] for k in AD_SLOTS]
    assert [scores[row] for row in shown] == sorted(scores.values(), reverse=True)[:4]


def candidate_scores(stages):
    c = stages.candidates(0)
    return (c.bid * c.pctr[:, 0]).tolist()


def test_the_audit_is_what_answering_again_gives(stages):
    found = response(stages, 0)
    assert [ad["slot"] for ad in found["audit"]["ads"]] == list(AD_SLOTS)
    for ad in found["audit"]["ads"]:
        row = stages.catalog.rows[ad["item"]]
        value = int(stages.catalog.bid_micros[row])
        utilities = []
        for point in ad["sweep"]:
            other = copy.copy(stages)
            other.catalog = copy.copy(stages.catalog)
            other.catalog.bid_micros = stages.catalog.bid_micros.copy()
            other.catalog.bid_micros[row] = math.floor(point["gamma"] * value)
            again = [
                (k, slot) for k, slot in enumerate(response(other, 0)["slots"]) if slot["item"] == ad["item"]
            ]
            assert point["slot"] == (again[0][0] if again else None)
            if again:
                _, slot = again[0]
                # Rows of a matrix product may differ in their last bits from the product of one row.
                assert abs(point["payment_micros"] - slot["payment_micros"]) <= 4
                assert point["clicks"] == pytest.approx(slot["pctr_poi"])
                utilities.append((value - slot["payment_micros"]) * slot["pctr_poi"])
            assert point["utility_micros"] == pytest.approx(utilities[-1] if again else 0, rel=1e-4, abs=1)
        truth = found["slots"][ad["slot"]]
        utility = (value - truth["payment_micros"]) * truth["pctr_poi"]
        assert ad["utility_micros"] == pytest.approx(utility)
        assert ad["regret_micros"] == pytest.approx(max(0, max([*utilities, 0]) - utility), rel=1e-4, abs=1)


def test_price_is_the_engines():
    assert price(0.5, 1_000_001, 0, 1) == 500_000
    assert price(0.5, 1_000_000, 600_000, 1) == 600_000
    assert price(1.0, 1_000_000, 0, 1) == 1_000_000
    assert price(0.77, 1_000_000, 0, 100_000) == 700_000


def test_recall_takes_all_that_share_the_codes(stages):
    catalog = copy.copy(stages.catalog)
    catalog.codes = catalog.codes.copy()
    first, second, third = np.flatnonzero(catalog.is_ad)[:3]
    catalog.codes[second] = catalog.codes[first]
    catalog.codes[third] = (catalog.codes[first] + 1) % 5
    ids = catalog.item_id
    candidates = [int(ids[third]), int(ids[second]), int(ids[first])]
    found = expand(catalog, candidates, np.array([ids[first], -1], np.int64))
    assert found.tolist() == [first, second]
    catalog.bid_micros = catalog.bid_micros.copy()
    catalog.bid_micros[second] = 1
    assert expand(catalog, candidates, np.array([ids[first]], np.int64)).tolist() == [first]


def test_a_request_without_room_for_ads_is_refused(stages):
    other = copy.copy(stages)
    other.requests = Requests([{**stages.requests.lines[0], "organic": []}], None)
    with pytest.raises(ValueError, match="request 'a' leaves no ad slot"):
        response(other, 0)


def test_histories_by_codes(stages):
    catalog = stages.catalog
    item, creative = int(catalog.item_id[3]), int(catalog.creative_id[catalog.offsets[3]])
    found = by_codes(
        catalog, {"id": 1, "history": [{"item": item, "creative": creative, "features": {"action": 1}}]}
    )
    codes = catalog.creative_codes[catalog.offsets[3]].tolist()
    assert found["history"] == [{"item": item, "features": {"action": 1}, "creative_codes": codes}]
