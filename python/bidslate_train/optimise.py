"""What the phases of training share: which weights train, when training stops, and how probabilities are calibrated."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bidslate_train.training import Diverged


def train_only(model: nn.Module, prefixes: list[str]) -> list[nn.Parameter]:
    """Lets the weights whose names begin with one of the prefixes train, and no others; returns them."""
    chosen = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(name.startswith(prefix) for prefix in prefixes))
        if parameter.requires_grad:
            chosen.append(parameter)
    return chosen


@dataclass(frozen=True)
class Epochs:
    """Training by epochs until a validation loss stops falling."""

    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    patience: int  # epochs without a better validation loss before it stops

    def fit(
        self,
        module: nn.Module,
        rows: np.ndarray,
        loss: Callable[[np.ndarray], Tensor],
        validate: Callable[[], float],
        seed: int,
    ) -> list[dict[str, Any]]:
        """Trains what of `module` requires gradients on batches of `rows`; the best epoch stays. Returns the losses."""
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)
        generator = np.random.default_rng(seed)
        curve: list[dict[str, Any]] = []
        best, kept, since = float("inf"), copy.deepcopy(module.state_dict()), 0
        for epoch in range(1, self.epochs + 1):
            module.train()
            order = generator.permutation(rows)
            losses = []
            for part in np.array_split(order, max(1, -(-len(order) // self.batch))):
                value = loss(part)
                if not torch.isfinite(value):
                    raise Diverged(f"epoch {epoch}: loss {value.item()}")
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                losses.append(value.item())
            module.eval()
            held = validate()
            curve.append({"epoch": epoch, "train_loss": float(np.mean(losses)), "validation_loss": held})
            since += 1
            if held < best:
                best, kept, since = held, copy.deepcopy(module.state_dict()), 0
            if since >= self.patience:
                break
        module.load_state_dict(kept)
        return curve


def start_from_rates(layers: list[nn.Linear], label: np.ndarray) -> None:
    """Sets the biases of last layers to the log-odds of the rates of their labels [n, layers]: clicks are rare."""
    rates = (label.sum(0) + 1) / (len(label) + 2)
    with torch.no_grad():
        for layer, rate in zip(layers, rates, strict=True):
            layer.bias.fill_(float(np.log(rate / (1 - rate))))


@torch.no_grad()
def calibrate(layers: list[nn.Linear], logits: Tensor, label: Tensor) -> None:
    """Fits sigmoid(a logit + b) to each column of logits and labels [n, layers] of held-out data, by the last layers.

    Probabilities multiply bids, so that their size counts and not only their order.
    """
    for i, layer in enumerate(layers):
        slope, shift = platt(logits[:, i].double().numpy(), label[:, i].double().numpy())
        layer.weight.mul_(slope)
        layer.bias.mul_(slope).add_(shift)


def platt(logit: np.ndarray, label: np.ndarray, steps: int = 50) -> tuple[float, float]:
    """Slope and shift of the log-odds with the highest posterior, by Newton's method; (1, 0) for a slope below 0.1.

    The prior, normal around (1, 0) with a spread of 1, keeps it finite where a label never varies.
    """
    x = np.stack([logit, np.ones(len(logit))])
    start = np.array([1.0, 0.0])
    theta = start
    for _ in range(steps):
        p = 1 / (1 + np.exp(-(theta @ x)))
        gradient = x @ (p - label) + theta - start
        curvature = (x * (p * (1 - p))) @ x.T + np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        theta = theta - np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-9:
            break
    return (float(theta[0]), float(theta[1])) if theta[0] >= 0.1 else (1.0, 0.0)
