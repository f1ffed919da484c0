"""Examples against a slow reading of what they are, and the refusals of data that does not fit."""

import json

import numpy as np
import pytest
from toy import AGES, toy_config, write_lines, write_toy

from bidslate_train.catalog import Catalog
from bidslate_train.lines import Refused
from bidslate_train.requests import Requests
from bidslate_train.visits import Examples, Visits


@pytest.fixture
def toy(tmp_path):
    config = toy_config()
    lines = write_toy(tmp_path, config)
    catalog = Catalog(tmp_path / "catalog.safetensors")
    return tmp_path, config, lines, catalog


def read(toy):
    path, config, _, catalog = toy
    return Visits.read(path / "visits.jsonl", catalog, config)


def request(lines, at, config):
    """The request that an importer writes for the visit at a place of the file."""
    user = [line for line in lines if line["user"] == lines[at]["user"]]
    here = lines[at]["visit"]
    history = [
        {
            "item": v["item"], "creative": v["creative"],
            "features": v["features"] | {"recency": sum(lines[at]["second"] - v["second"] >= age for age in AGES)},
        }
        for v in user[max(0, here - config.history_len) : here]
    ]  # fmt: skip
    return {"id": int(at), "context": lines[at]["context"], "history": history, "candidates": []}


def test_examples_are_the_requests_of_their_visits(toy):
    path, config, lines, catalog = toy
    examples = Examples.training(read(toy), catalog, config, AGES)
    write_lines(path / "requests.jsonl", [request(lines, at, config) for at in examples.positions])
    expected = Requests.read(path / "requests.jsonl", catalog, config).histories
    ours = examples.histories(np.arange(len(examples)))
    assert (ours.length == expected.length).all()
    real = np.arange(config.history_len) < expected.length.numpy()[:, None]
    np.testing.assert_array_equal(ours.poi_codes[real], expected.poi_codes[real])
    np.testing.assert_array_equal(ours.creative_codes[real], expected.creative_codes[real])
    assert ours.features.keys() == expected.features.keys() == config.behavior_features.keys()
    for name in config.behavior_features:
        np.testing.assert_array_equal(ours.features[name][real], expected.features[name][real])
    np.testing.assert_array_equal(ours.context["hour"], expected.context["hour"])


def test_examples_of_requests_stand_before_the_visits_that_they_hold_out(toy):
    path, config, lines, catalog = toy
    places = [28, 3, 41]
    write_lines(
        path / "heldout.jsonl", [{"id": at} | {k: lines[at][k] for k in ("user", "visit")} for at in places]
    )
    asked = Examples.of_requests(read(toy), catalog, config, AGES, path / "heldout.jsonl", [3, 28])
    assert asked.positions.tolist() == [3, 28]
    assert (asked.targets_at[1] == -1).all()  # two visits before the user's last
    assert asked.targets_at[0, 0] == 3
    with pytest.raises(Refused, match="no line for request 5"):
        Examples.of_requests(read(toy), catalog, config, AGES, path / "heldout.jsonl", [5])


def test_training_ends_ten_visits_before_the_last(toy):
    _, config, lines, catalog = toy
    examples = Examples.training(read(toy), catalog, config, AGES)
    back = [sum(v["user"] == line["user"] for v in lines) - line["visit"] for line in lines]
    assert examples.positions.tolist() == [i for i, b in enumerate(back) if b > 10]
    assert all(back[at] > 10 for row in examples.targets_at for at in row if at >= 0)
    held_out = Examples.held_out(read(toy), catalog, config, AGES, range(5, 11))
    assert sorted(held_out.positions) == [i for i, b in enumerate(back) if 5 <= b <= 10]


def test_targets_are_the_next_different_items(toy):
    _, config, lines, catalog = toy
    examples = Examples.training(read(toy), catalog, config, AGES)
    users = [line["user"] for line in lines]
    for row, at in enumerate(examples.positions):
        expected = []
        for line, user, back in zip(lines[at:], users[at:], remaining(users)[at:], strict=True):
            if user == users[at] and back > 10 and line["item"] not in expected:
                expected.append(line["item"])
        expected = expected[: config.list_len]
        targets = examples.targets(np.array([row]))
        items = [int(catalog.item_id[i]) for i in targets.item[0] if i >= 0]
        assert items == expected
        assert targets.poi_codes[0, 0].tolist() == catalog.codes[catalog.rows[expected[0]]].tolist()


def remaining(users):
    return [sum(u == user for u in users[i:]) for i, user in enumerate(users)]


def change(line, **values):
    return line | values


FAULTS = {
    "unknown item": (lambda v: change(v, item=7), "`item` is 7, expected an item of the catalog"),
    "unknown creative": (lambda v: change(v, creative=99), "`creative` is 99"),
    "time goes back": (lambda v: change(v, second=0), "`second` is 0, expected at least"),
    "visit out of turn": (lambda v: change(v, visit=9), "`visit` is 9, expected 5"),
    "NaN feature": (lambda v: change(v, features={"action": float("nan")}), "`features.action` is nan"),
    "unknown feature": (lambda v: change(v, features={"mood": 1}), "`features` is 'mood'"),
    "feature too large": (lambda v: change(v, context={"hour": 24}), "`context.hour` is 24"),
    "users out of order": (lambda v: change(v, user=0), "`user` is 0"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_with_their_line(toy, fault):
    path, _, lines, _ = toy
    spoil, message = FAULTS[fault]
    lines[5] = spoil(lines[5])
    (path / "visits.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(Refused) as refused:
        read(toy)
    assert f"visits.jsonl:6: {message}" in str(refused.value)


def test_no_visits_and_nothing_to_train_on_are_refused(toy):
    path, config, lines, catalog = toy
    write_lines(path / "visits.jsonl", [])
    with pytest.raises(Refused, match="no visits"):
        read(toy)
    write_lines(path / "visits.jsonl", lines[:4])
    with pytest.raises(Refused, match="nothing to train on"):
        Examples.training(read(toy), catalog, config, AGES)
