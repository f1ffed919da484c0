import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bidslate_train.feedback import Feedback, read_feedback, smoothed_creative_rates, split
from bidslate_train.lines import Refused


class TwoItems:
    """A catalog of items 5 and 6, with creatives 50 and 60."""

    def __init__(self):
        self.rows = {5: 0, 6: 1}

    def row(self, item):
        return self.rows.get(item)

    def creative_row(self, item, creative):
        return {(0, 50): 0, (1, 60): 1}.get((item, creative))


def slot(**changes):
    return {"item": 5, "creative": 50, "click_poi": 1, "click_creative": 0, "conversion": 0} | changes


def read(tmp_path, *lines):
    file = tmp_path / "feedback.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_feedback(file, {"a": 0, "b": 1}, TwoItems(), 3)


def test_reads_lists(tmp_path):
    second = slot(item=6, creative=60, click_poi=0, click_creative=1)
    found = read(tmp_path, {"request": "b", "slots": [slot(), second]})
    assert found.request.tolist() == [1]
    assert found.item.tolist() == [[0, 1, -1]]
    assert found.creative.tolist() == [[0, 1, -1]]
    assert found.label[0].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            {"request": "c", "slots": [slot()]},
            r"feedback.jsonl:2: `request` is 'c', expected the id of a request",
        ),
        ({"request": "a", "slots": []}, r":2: `slots` is \[\], expected a list of 1 to 3 slots"),
        ({"request": "a", "slots": [slot()] * 4}, "expected a list of 1 to 3 slots"),
        ({"request": "a", "slots": [slot(item=9)]}, r":2: slot 0: `item` is 9, expected the id of an item"),
        (
            {"request": "a", "slots": [slot(creative=60)]},
            "`creative` is 60, expected the id of a creative of item 5",
        ),
        (
            {"request": "a", "slots": [slot(click_poi=2)]},
            "`click_poi` is 2, expected a whole number from 0 to 1",
        ),
        (
            {"request": "a", "slots": [slot(), slot()]},
            "slot 1: `item` is 5, expected an item that no slot before",
        ),
        ({"request": "a", "slots": [{"item": 5, "creative": 50}]}, "`click_poi` is missing"),
    ],
)
def test_refusals(tmp_path, line, message):
    with pytest.raises(Refused, match=message):
        read(tmp_path, {"request": "a", "slots": [slot()]}, line)


def test_no_lines(tmp_path):
    with pytest.raises(Refused, match="no li"):
        read(tmp_path)


def test_split_keeps_requests_whole():
    request = np.repeat(np.arange(40), 8)
    parts = split(request, 0.1, 0.2, 1)
    assert sorted(np.concatenate(parts).tolist()) == list(range(320))
    sides = [set(request[part]) for part in parts]
    assert [len(side) for side in sides] == [28, 4, 8]
    assert not sides[0] & sides[1] and not sides[1] & sides[2] and not sides[0] & sides[2]
    with pytest.raises(Refused, match="none is left to train on"):
        split(np.zeros(8), 0.1, 0.1, 1)


def test_creative_rates_are_drawn_to_the_mean():
    label = np.zeros((4, 1, 3), np.float32)
    label[:2, 0, 1] = 1
    feedback = Feedback(np.zeros(4, int), np.zeros((4, 1), int), np.array([[0], [0], [1], [1]]), label)
    rates = smoothed_creative_rates(feedback, 3, prior=2)
    assert rates.tolist() == [(2 + 1) / 4, 1 / 4, 0.5]


def test_the_reward_model_learns_and_is_calibrated():
    from worlds import small_config

    from bidslate_train.model import Model
    from bidslate_train.reward import Lists, RewardSettings, train_reward

    torch.manual_seed(0)
    config = small_config()
    g = np.random.default_rng(0)
    items, requests, count = 30, 200, 2000
    catalog = SimpleNamespace(
        codes=g.integers(0, 5, (items, 3)), creative_codes=g.integers(0, 5, (items, 2)),
        embedding=g.normal(size=(items, 6)).astype(np.float32),
    )  # fmt: skip
    shown = np.stack([g.permutation(items)[:3] for _ in range(count)])
    logit = 2 * catalog.embedding[shown][..., 0] - 1 - 0.5 * np.arange(3)
    label = (g.uniform(size=(count, 3, 3)) < 1 / (1 + np.exp(-logit[..., None]))).astype(np.float32)
    feedback = Feedback(np.repeat(np.arange(requests), count // requests), shown, shown, label)
    model = Model(config)
    frozen = model.embed.weight.detach().clone()
    lists = Lists.of(feedback, torch.randn(requests, config.hidden_size), catalog)
    found = train_reward(model, lists, RewardSettings(epochs=8, batch=64, learning_rate=3e-3), 1)
    score = found["pctr_poi"]
    assert score["auc"] > 0.8
    assert abs(score["predicted"] - score["rate"]) < 0.06
    assert torch.equal(frozen, model.embed.weight)
