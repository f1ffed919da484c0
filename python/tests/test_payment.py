import dataclasses

import pytest
import torch

from bidslate_train.blocks import Mlp
from bidslate_train.misreports import (
    GRID,
    Misreports,
    economics,
    outcome,
    priced,
    truthful_economics,
    truthful_rates,
)
from bidslate_train.payment import PaymentSettings, Standardised, slot_regrets, train_payment


def threshold_table(requests=300, seed=1):
    """An auction with one slot: the ad is shown if it bids at least a threshold that the features tell.

    The truthful price is the threshold.
    """
    g = torch.Generator().manual_seed(seed)
    gamma = torch.tensor(GRID)
    value = torch.rand(requests, generator=g) + 1
    threshold = value * (0.3 + 0.6 * torch.rand(requests, generator=g))
    bid = value[:, None] * gamma
    shown = (bid >= threshold[:, None]).long()
    features = torch.stack([threshold, torch.randn(requests, generator=g)], 1)[:, None].expand(
        -1, len(GRID), -1
    )
    return Misreports(
        request=torch.arange(requests), sample=torch.zeros(requests).long(), slot=torch.zeros(requests).long(),
        value=value, reserve=torch.full_like(value, 0.05), gamma=gamma, bid=bid, shown=shown,
        features=features * shown[..., None], others=torch.zeros(requests, len(GRID), 3),
        zq=bid / (bid + 1) * 0.05 * shown, pctr=0.1 * shown.float(),
    )  # fmt: skip


def network(seed=0):
    torch.manual_seed(seed)
    return Mlp([2 + 3 + 1, 128, 32, 10, 1])


def constant(rate):
    return lambda features, others, zq: torch.full_like(zq, rate)


def test_utilities_by_hand():
    table = threshold_table(2)
    table.value[:] = 2.0
    table.bid = table.value[:, None] * table.gamma
    table.shown = (table.bid >= 1.0).long()
    table.pctr = 0.1 * table.shown.float()
    found = outcome(table, constant(0.5))
    # At rate 1/2 the truth pays 1 for a value of 2; the lowest bid that is shown is 1.2 (gamma 0.6) and pays 0.6.
    assert found.payment.tolist() == [1.0, 1.0]
    torch.testing.assert_close(found.utility, torch.full((2,), 0.1))
    torch.testing.assert_close(found.regret, torch.full((2,), (2 - 0.6) * 0.1 - 0.1))


def test_reserve_and_bid_bound_the_payment():
    table = threshold_table(4)
    table.reserve[:] = 0.7
    assert torch.equal(outcome(table, constant(0.01)).payment, torch.full((4,), 0.7))
    assert torch.equal(outcome(table, constant(1.0)).payment, table.value)


def test_no_bid_gains_on_truthful_payments():
    """Clicks that rise with the bid in any way, for 500 ads, against payments that are a little off."""
    table = threshold_table(500)
    table.reserve[:] = 0
    steps = torch.rand(500, len(GRID), generator=torch.Generator().manual_seed(7)) ** 4
    table.shown = torch.ones(500, len(GRID)).long()
    table.pctr = 0.01 * steps.cumsum(1) / steps.sum(1, keepdim=True) + 1e-4
    rates = truthful_rates(table)
    found = priced(table, rates)
    assert (found.regret <= 1e-5 * found.utility).all() and (found.utility > 0).all()
    assert priced(table, 0.9 * rates).regret.sum() > 10 * found.regret.sum()
    assert priced(table, (1.2 * rates).clamp(max=1)).regret.sum() > 10 * found.regret.sum()


def test_truthful_payments_of_a_threshold_are_near_it():
    """Between the grid's bids next to the threshold, and so in the mean."""
    table = threshold_table(2000)
    threshold = table.features[:, table.truth, 0]
    paid = priced(table, truthful_rates(table)).payment
    assert ((paid - threshold).abs() <= 0.2 * table.value + 1e-5).all()
    torch.testing.assert_close(paid.mean(), threshold.mean(), rtol=0.03, atol=0)
    assert truthful_economics(table).regret_share < 0.01


def test_slot_regrets_are_means_over_samples():
    table = threshold_table(2)
    table.request[:] = 0
    table.sample = torch.tensor([0, 1])
    found = outcome(table, constant(0.5))
    revenue, regret = slot_regrets(table, torch.zeros(2).long(), 1, 1, 2, constant(0.5))
    torch.testing.assert_close(revenue[0], (found.payment * table.pctr[:, table.truth]).sum() / 2)
    torch.testing.assert_close(regret[0, 0], found.regret.sum() / 2)


def test_folding_keeps_the_function():
    table = threshold_table()
    wrapped = Standardised(network(), table)
    plain = network()
    plain.load_state_dict(wrapped.folded())
    x = torch.cat([table.features, table.others, table.zq[..., None]], -1)
    ours = wrapped(table.features, table.others, table.zq)
    torch.testing.assert_close(torch.sigmoid(plain(x)).squeeze(-1), ours, rtol=1e-4, atol=1e-5)


def test_the_multipliers_bring_regret_down():
    table = threshold_table()
    mlp = network()
    settings = PaymentSettings(steps=300, batch=64, update_every=20, target=0.05)
    found = train_payment(mlp, table, settings, 1)
    before = economics(
        table, lambda f, o, zq: torch.sigmoid(network()(torch.cat([f, o, zq[..., None]], -1))).squeeze(-1)
    )
    assert found["below_target"] and found["regret_share"] < 0.06
    assert before.regret_share > 0.1
    # The threshold is 0.6 of the value in the mean: much of that is taken.
    assert found["revenue"] > 0.3 * found["first_price"]


def test_without_penalty_it_takes_first_prices():
    """Nothing but the Lagrangian keeps prices from the bids."""
    settings = dataclasses.replace(PaymentSettings(steps=200, update_every=20), rho=0.0, target=1e9)
    found = train_payment(network(), threshold_table(), settings, 1)
    assert found["rate"] > 0.9


def test_same_seed_same_network():
    settings = PaymentSettings(steps=40, update_every=20)
    first, second = network(), network()
    train_payment(first, threshold_table(), settings, 3)
    train_payment(second, threshold_table(), settings, 3)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize(
    ("field", "bad", "message"),
    [
        ("features", float("nan"), "`features` holds numbers that are not finite"),
        ("gamma", None, "expected 1 among"),
    ],
)
def test_bad_tables_are_refused(tmp_path, field, bad, message):
    from safetensors.torch import save_file

    table = threshold_table(3)
    tensors = {f.name: getattr(table, f.name).clone() for f in dataclasses.fields(table)}
    if bad is None:
        tensors["gamma"] = torch.tensor([0.5] * len(GRID))
    else:
        tensors[field][0, 0, 0] = bad
    save_file({name: t.contiguous() for name, t in tensors.items()}, tmp_path / "t.safetensors")
    with pytest.raises(ValueError, match=message):
        Misreports.read(tmp_path / "t.safetensors")
