import numpy as np
import torch
from worlds import small_config

from bidslate_train import checkpoint
from bidslate_train.end_to_end import EndModel, Round
from bidslate_train.model import Model
from bidslate_train.payment import Penalty
from bidslate_train.policy import Baseline


def test_the_policy_gradient_takes_each_list_once():
    generator = np.random.default_rng(1)
    unused = generator.permutation(10)[:7]
    work = Round(np.arange(10), None, unused.copy(), None)
    drawn = [work.draw(3, generator) for _ in range(6)]
    assert [fresh for _, fresh in drawn] == [True, True] + [False] * 4
    taken = np.concatenate([rows for rows, fresh in drawn if fresh])
    assert taken.tolist() == unused[:6].tolist()
    assert all(len(set(rows.tolist())) == 3 for rows, _ in drawn)


def test_a_round_smaller_than_a_batch_is_drawn_whole():
    work = Round(np.arange(2), None, np.arange(0), None)
    rows, fresh = work.draw(5, np.random.default_rng(1))
    assert sorted(rows.tolist()) == [0, 1]
    assert not fresh


def test_a_checkpoint_carries_baseline_and_multipliers(tmp_path):
    def fresh():
        state = EndModel(Model(small_config()), Baseline(0.9))
        return state, torch.optim.AdamW(state.parameters())

    state, optimizer = fresh()
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, 1, state, optimizer, {})
    resumed, other = fresh()
    assert checkpoint.resume(path, resumed, other, {}) == 1
    assert (resumed.baseline, resumed.penalty) == (Baseline(0.9), None)

    state.baseline.update(torch.tensor([1.0, 3.0]))
    state.penalty = Penalty(torch.tensor([0.5, 0.25]), 10.0, 0.125)
    checkpoint.save(path, 2, state, optimizer, {})
    assert checkpoint.resume(path, resumed, other, {}) == 2
    assert resumed.baseline == state.baseline
    assert (resumed.penalty.rho, resumed.penalty.scale) == (10.0, 0.125)
    torch.testing.assert_close(resumed.penalty.multipliers, state.penalty.multipliers)
