import numpy as np
import pytest

from bidslate_train import scores
from bidslate_train.optimise import platt


def test_auc_counts_pairs():
    g = np.random.default_rng(1)
    label, score = g.integers(0, 2, 60), g.integers(0, 8, 60)  # many ties
    wins = [(a > b) + 0.5 * (a == b) for a in score[label == 1] for b in score[label == 0]]
    assert scores.auc(label, score) == pytest.approx(np.mean(wins))
    assert np.isnan(scores.auc(np.ones(3), score[:3]))


def test_ece_of_a_shift():
    label = np.tile([0, 0, 0, 1], 250)
    assert scores.ece(label, np.full(1000, 0.25), bins=1) == pytest.approx(0)
    assert scores.ece(label, np.full(1000, 0.35), bins=1) == pytest.approx(0.1)


def test_platt_undoes_a_distortion():
    g = np.random.default_rng(2)
    logit = g.normal(size=40_000) - 2
    label = (g.uniform(size=len(logit)) < 1 / (1 + np.exp(-logit))).astype(float)
    slope, shift = platt(2 * logit + 1, label)
    assert slope == pytest.approx(0.5, abs=0.03)
    assert shift == pytest.approx(-0.5, abs=0.06)


def test_platt_of_constant_labels_is_finite():
    slope, shift = platt(np.linspace(-3, 1, 50), np.zeros(50))
    assert np.isfinite([slope, shift]).all()
