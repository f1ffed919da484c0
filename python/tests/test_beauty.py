"""The protocol of the backbone check: who is asked what, the scores, and a toy through the engine."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from bidslate_train import beauty, engine
from bidslate_train.lines import Refused
from bidslate_train.settings import Settings

SETTINGS = """
[model]
history_len = 4
list_len = 1
poi_code_layers = 2
creative_code_layers = 1
codebook_size = 8
beam_width = 20
encoder_layers = 1
decoder_layers = 1
hidden_size = 32
num_heads = 1
ffn_size = 64
item_embedding_size = 1
reward_hidden_size = 32
reward_layers = 1
reward_heads = 1

[beauty]
steps = 200
batch = 16
rate = 1e-2
warm_up = 10
dropout = 0.0
log_every = 50
validate_every = 200
save_every = 200
index = "index.json"
resamples = 50
"""


def write_data(directory, users=80, items=30):
    """Every user walks the items in a circle, two steps at a time."""
    rng = np.random.default_rng(1)
    walks = {}
    for user in range(users):
        at = int(rng.integers(items))
        walks[str(user)] = [(at + 2 * step) % items for step in range(int(rng.integers(4, 10)))]
    (directory / "inter.json").write_text(json.dumps(walks))
    index = {str(item): [f"<a_{item % 8}>", f"<b_{item // 8}>"] for item in range(items)}
    (directory / "index.json").write_text(json.dumps(index))
    path = directory / "toy.toml"
    path.write_text(SETTINGS)
    return walks, Settings.read(str(path))


def built():
    found = os.environ.get("BIDSLATE", str(engine.REPOSITORY / "target/release/bidslate"))
    return Path(found).exists()


def test_scores_by_hand():
    ranked = np.array([[3, 5, 7, 9, 11, 13], [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6], [1, -1, -1, -1, -1, -1]])
    values = beauty.scores(ranked, np.array([3, 6, 9, 2]))
    assert values["R@5"].tolist() == [1, 0, 0, 0]
    assert values["R@10"].tolist() == [1, 1, 0, 0]
    np.testing.assert_allclose(values["N@10"], [1, 1 / np.log2(7), 0, 0])


def test_intervals_hold_the_mean():
    hits = np.array([1.0, 0, 0, 0] * 100)
    mean, low, high = beauty.intervals({"R@5": hits}, 400, seed=1)["R@5"]
    assert mean == 0.25
    assert low < mean < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.25 * 0.75 / 400), rel=0.2)


def test_batches_by_length_are_passes_over_all_rows():
    lengths = np.random.default_rng(3).integers(1, 20, 200)
    draw = beauty.by_length(lengths, group=5)
    rows = [draw(1, step, 10, 200) for step in range(40)]
    assert sorted(np.concatenate(rows[:20])) == sorted(np.concatenate(rows[20:])) == list(range(200))
    spread = np.mean([np.ptp(lengths[batch]) for batch in rows])
    assert spread < 0.5 * np.ptp(lengths)


@pytest.mark.skipif(not built(), reason="needs a built engine")
def test_a_toy_through_the_engine(tmp_path):
    walks, settings = write_data(tmp_path)
    table = beauty.train(settings, tmp_path, tmp_path / "out")
    assert table["R@5"][0] > 0.9  # the walk is certain, and nothing but its end is asked for
    requests = [json.loads(line) for line in (tmp_path / "out/requests.jsonl").read_text().splitlines()]
    for walk, request in zip(walks.values(), requests, strict=True):
        assert [behavior["item"] for behavior in request["history"]] == walk[:-1][-4:]
    assert json.loads((tmp_path / "out/scores.json").read_text())["test"]["R@5"][0] == table["R@5"][0]


@pytest.mark.skipif(not built(), reason="needs a built engine")
def test_training_sees_neither_the_last_item_nor_the_one_before(tmp_path):
    walks, settings = write_data(tmp_path)
    (tmp_path / "config.json").write_text(settings.model.to_json())
    data = beauty.Interactions.read(tmp_path, beauty.build_catalog(tmp_path, "index.json", tmp_path))
    examples = data.training(beauty.Model(settings.model))
    kept_back = {end - back for end in data.visits.start[1:] for back in (1, 2)}
    seen = set(examples.targets_at.flatten().tolist()) - {-1}
    past = {
        visit
        for at, first in zip(examples.positions, examples.first, strict=True)
        for visit in range(first, at)
    }
    assert not (seen | past) & kept_back
    assert len(examples) == sum(len(walk) - 3 for walk in walks.values())
    (tmp_path / "inter.json").write_text('{"0": [1, 2, 99]}')
    with pytest.raises(Refused, match="user '0' has item 99"):
        beauty.Interactions.read(tmp_path, data.catalog)
