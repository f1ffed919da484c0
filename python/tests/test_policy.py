import pytest
import torch

from bidslate_train.generated import Generated, entropy, log_z
from bidslate_train.policy import Baseline, check_log_prob, policy_loss


def lists(codes, ln_w, marginal=None):
    n, slots, _ = codes.shape
    zeros = torch.zeros(n, slots)
    marginal = zeros if marginal is None else marginal
    return Generated(
        length=(codes[..., 0] >= 0).sum(1), item=zeros.long(), creative=zeros.long(), is_ad=zeros.long(),
        item_codes=codes, creative_codes=codes, ln_w=ln_w, bid=zeros, pctr_poi=zeros, pctr_creative=zeros, pcvr=zeros,
        z=zeros, marginal=marginal, reward=zeros[:, 0].double(), log_prob=zeros[:, 0].double(), payment=zeros.double(),
    )  # fmt: skip


def test_log_z_by_hand():
    """w e^l over its sum over unmasked codes (Eq. 22); slots that stay empty add nothing."""
    codes = torch.tensor([[[1, 0], [2, 1], [-1, -1]]])
    logits = torch.randn(1, 6, 3)
    w = torch.tensor([[2.0, 3.5, 0.0], [2, 2, 2], [0, 2, 5], [0, 2, 0], [0, 0, 0], [0, 0, 0]])
    found = log_z(logits, lists(codes, w.log().unsqueeze(0)))
    for t, code in enumerate([1, 0, 2, 1]):
        weights = w[t] * logits[0, t].exp()
        torch.testing.assert_close(found[0, t], (weights[code] / weights.sum()).log())
    assert found[0, 4:].tolist() == [0, 0]
    assert found[0, 3] == 0  # one code alone is certain


def test_gradient_stays_finite_where_codes_are_masked():
    codes = torch.tensor([[[1], [-1]]])
    logits = torch.randn(1, 2, 3, requires_grad=True)
    ln_w = torch.tensor([[[0.0, 1.0, -torch.inf], [-torch.inf] * 3]])
    log_z(logits, lists(codes, ln_w)).sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0, 0, 2] == 0


def test_entropy_counts_choices_alone():
    codes = torch.tensor([[[0], [0]]])
    ln_w = torch.tensor([[[0.0, 0.0, -torch.inf], [0.0, -torch.inf, -torch.inf]]])
    found = entropy(torch.zeros(1, 2, 3), lists(codes, ln_w))
    torch.testing.assert_close(found, torch.tensor(2.0).log())


def test_policy_loss_raises_what_contributes():
    """Above the baseline ln z grows, below it falls, and an item without an alternative list does not move."""
    steps = torch.zeros(1, 6, requires_grad=True)
    marginal = torch.tensor([[3.0, 1.0, float("nan")]])
    baseline = Baseline(0.9, mean=2.0, spread=0.5)
    policy_loss(steps, marginal, baseline, 10.0).backward()
    assert steps.grad[0].tolist() == [-2, -2, 2, 2, 0, 0]


def test_baseline_runs():
    baseline = Baseline(0.5)
    baseline.update(torch.tensor([1.0, 3.0]))
    assert (baseline.mean, baseline.spread) == (2.0, 1.0)
    baseline.update(torch.tensor([4.0, 4.0]))
    assert (baseline.mean, baseline.spread) == (3.0, 0.5)
    assert baseline.advantage(torch.tensor([30.0, 3.5]), 3).tolist() == [3.0, 1.0]


def test_another_policy_is_refused():
    check_log_prob(torch.tensor([-3.0]), torch.tensor([-3.001]).double())
    with pytest.raises(ValueError, match="differs from the engine's"):
        check_log_prob(torch.tensor([-3.0]), torch.tensor([-3.5]).double())
