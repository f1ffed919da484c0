import numpy as np
import pytest

from bidslate_train.misreports import GRID, outcome
from bidslate_train.slot_auction import (
    AD_SLOTS,
    Candidates,
    Table,
    find,
    misreport_bids,
    payment_inputs,
    play,
)

K = 10


def random_candidates(count, seed, slots=4):
    g = np.random.default_rng(seed)
    pctr = np.sort(g.uniform(0.02, 0.2, (count, slots)), axis=1)[:, ::-1]
    bid = g.lognormal(0.4, 0.8, count)
    return Candidates(
        np.arange(count), bid, 0.2 * g.lognormal(0.4, 0.8, count), pctr, 0.1 * pctr,
        g.normal(size=(count, slots, 6)).astype(np.float32),
    )  # fmt: skip


def by_hand(c, bids):
    """Winners, ranked by plain sorting."""
    able = [i for i in range(len(bids)) if bids[i] >= c.reserve[i]]
    return sorted(able, key=lambda i: (-bids[i] * c.pctr[i, 0], i))[: c.pctr.shape[1]]


@pytest.mark.parametrize("count", [0, 1, 3, 4, 9])
def test_the_best_scores_win(count):
    for seed in range(20):
        c = random_candidates(count, seed)
        played = play(c, c.bid[None])
        winners = by_hand(c, c.bid)
        assert [w for w in played.winner[0] if w >= 0] == winners
        total = sum(c.bid[i] * c.pctr[i, 0] for i in range(count) if c.bid[i] >= c.reserve[i])
        for place, w in enumerate(winners):
            assert played.bid[0, place] == c.bid[w]
            assert played.pctr[0, place] == c.pctr[w, place]
            assert np.isclose(played.share[0, place], c.bid[w] * c.pctr[w, 0] / total)
        assert not played.pctr[0, len(winners) :].any()


def test_payment_inputs_leave_the_own_bid_out():
    c = random_candidates(8, 3)
    played = play(c, c.bid[None])
    places = np.flatnonzero(played.winner[0] >= 0)
    inputs = payment_inputs(c, played, np.zeros_like(places), places, K)
    for i, place in enumerate(places):
        line = np.zeros(K)
        line[list(AD_SLOTS)] = np.log1p(played.bid[0])
        expected = np.delete(line, AD_SLOTS[place])
        np.testing.assert_allclose(inputs.others[i], expected, rtol=1e-6)
        np.testing.assert_array_equal(inputs.features[i], c.features[played.winner[0, place], place])


def test_the_table_holds_what_playing_again_gives():
    c = random_candidates(9, 5)
    table = Table(np.array(GRID), K)
    table.add(7, 0, c, c.bid)
    rows = table.misreports()
    winners = by_hand(c, c.bid)
    assert rows.slot.tolist() == list(range(len(winners)))
    assert rows.request.tolist() == [7] * len(winners)
    for row, own in enumerate(winners):
        for g, gamma in enumerate(GRID):
            bids = c.bid.copy()
            bids[own] = gamma * c.bid[own]
            again = by_hand(c, bids)
            assert bool(rows.shown[row, g]) == (own in again)
            expected = c.pctr[own, again.index(own)] if own in again else 0
            assert np.isclose(float(rows.pctr[row, g]), expected)


def test_first_prices_are_worth_a_misreport():
    """If everyone pays the bid, utility is 0 by the truth and some ad gains by a lower bid."""
    c = random_candidates(9, 5)
    table = Table(np.array(GRID), K)
    table.add(0, 0, c, c.bid)
    found = outcome(table.misreports(), lambda f, o, zq: zq * 0 + 1)
    assert float(found.utility.abs().max()) < 1e-6
    assert float(found.regret.max()) > 0


def test_find():
    c = random_candidates(6, 1)
    own = by_hand(c, c.bid)[0]
    played = play(c, misreport_bids(c.bid, own, np.array([0.0, c.bid[own]])))
    assert find(played, own).tolist() == [-1, 0]
