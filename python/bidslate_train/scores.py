"""How good predicted probabilities are: ranking (AUC), calibration (ECE, bias) and cross-entropy."""

from __future__ import annotations

import numpy as np


def auc(label: np.ndarray, score: np.ndarray) -> float:
    """Probability that a positive scores above a negative, ties counting half; NaN where one of them is missing."""
    label = np.asarray(label) > 0
    positives, negatives = int(label.sum()), int((~label).sum())
    if positives == 0 or negatives == 0:
        return float("nan")
    _, index, counts = np.unique(score, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    rank = (last - (counts - 1) / 2)[index]
    return float((rank[label].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def ece(label: np.ndarray, probability: np.ndarray, bins: int = 20) -> float:
    """Expected calibration error: mean |rate of positives - mean prediction| over bins of equally many predictions."""
    order = np.argsort(probability, kind="stable")
    total = 0.0
    for part in np.array_split(order, min(bins, len(order))):
        total += abs(float(label[part].mean()) - float(probability[part].mean())) * len(part)
    return total / max(1, len(order))


def cross_entropy(label: np.ndarray, probability: np.ndarray) -> float:
    """Mean binary cross-entropy in nats."""
    p = np.clip(probability.astype(np.float64), 1e-12, 1 - 1e-12)
    return float(-(label * np.log(p) + (1 - label) * np.log1p(-p)).mean())


def summary(label: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """All of them, with the rate of positives and the mean prediction."""
    return {
        "count": len(label),
        "rate": float(label.mean()),
        "predicted": float(probability.mean()),
        "auc": auc(label, probability),
        "ece": ece(label, probability),
        "cross_entropy": cross_entropy(label, probability),
    }
