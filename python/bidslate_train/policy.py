"""Phase 2.2: generative allocation by policy gradient on lists that the engine itself generates (Eq. 31-32).

In rounds: the weights so far are exported, `bidslate generate` searches under bids as it does when deployed, and the
POI decoder takes one pass over the winning lists. Encoder, embeddings and reward model stay as they are; the losses
of phase 1 keep interest and creatives alive.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bidslate_train import export
from bidslate_train.generated import Generated, entropy, generate, log_z
from bidslate_train.model import Model
from bidslate_train.optimise import train_only
from bidslate_train.pretrain import interest_losses, mean_over
from bidslate_train.requests import Requests
from bidslate_train.tables import write_csv, write_lines
from bidslate_train.training import Diverged
from bidslate_train.visits import Examples

TRAINED = ["decoder.", "poi_head."]


@dataclass(frozen=True)
class PolicySettings:
    """How phase 2.2 trains."""

    rounds: int = 2
    requests: int = 480  # a round's sample
    held_out: int = 96  # train requests that choose the round
    batch: int = 32
    learning_rate: float = 2e-4
    interest_weight: float = 1.0  # c: weight of the losses of phase 1
    advantage_limit: float = 3.0  # in standard deviations of the marginal contributions
    momentum: float = 0.9  # of the running baseline and spread
    clip: float = 1.0  # norm of the gradient
    overrides: dict[str, Any] = field(default_factory=dict)  # keys of the requests, e.g. bid_aggregate


@dataclass
class Baseline:
    """Running mean and spread of marginal contributions, in bid units."""

    momentum: float
    mean: float | None = None
    spread: float = 1.0

    def update(self, values: Tensor) -> None:
        """Takes in the contributions of a batch [n]."""
        mean, spread = float(values.mean()), float(values.std(unbiased=False))
        if self.mean is None:
            self.mean, self.spread = mean, spread
        self.mean += (1 - self.momentum) * (mean - self.mean)
        self.spread += (1 - self.momentum) * (spread - self.spread)

    def advantage(self, values: Tensor, limit: float) -> Tensor:
        """(r - baseline) in units of the spread, within +-limit."""
        return ((values - (self.mean or 0.0)) / max(self.spread, 1e-6)).clamp(-limit, limit)


@dataclass
class Phase:
    """What a run of phase 2.2 works on."""

    model: Model
    requests: Requests
    examples: Examples  # the same requests as examples of phase 1: row i is request i
    catalog: Path
    work: Path  # directory for exports and generated lists
    with_creatives: bool = True  # whether the losses of phase 1 include L_MTP


def train_policy(phase: Phase, settings: PolicySettings, seed: int) -> dict[str, Any]:
    """Trains the POI decoder in place; the round with the best held-out reward stays. Writes `policy.csv`."""
    model = phase.model
    parameters = train_only(model, TRAINED)
    optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate)
    baseline = Baseline(settings.momentum)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(phase.requests))
    held, pool = np.sort(order[: settings.held_out]), order[settings.held_out :]
    curve: list[dict[str, Any]] = []
    best, kept = -float("inf"), copy.deepcopy(model.state_dict())
    for number in range(settings.rounds + 1):
        export.save(model, phase.work / "model")
        outcome = _outcome(_generate(phase, settings, held, "held"))
        if outcome["reward"] > best:
            best, kept = outcome["reward"], copy.deepcopy(model.state_dict())
        row = {"round": number, **{f"held_{k}": v for k, v in outcome.items()}}
        if number < settings.rounds:
            sample = np.sort(generator.choice(pool, min(settings.requests, len(pool)), replace=False))
            lists = _generate(phase, settings, sample, "sample")
            row |= _round(phase, settings, optimizer, baseline, sample, lists, generator)
        else:
            row |= dict.fromkeys(curve[-1].keys() - row.keys(), "") if curve else {}
        curve.append(row)
    model.load_state_dict(kept)
    model.eval()
    write_csv(phase.work / "policy.csv", curve)
    return {"held_reward_before": curve[0]["held_reward"], "held_reward": best}


def _generate(phase: Phase, settings: PolicySettings, rows: np.ndarray, name: str) -> Generated:
    """The lists of some requests under the exported weights."""
    file = phase.work / f"{name}.jsonl"
    write_lines(file, ({**phase.requests.lines[row], **settings.overrides} for row in rows))
    return generate(phase.work / "model", phase.catalog, file, phase.work / f"{name}.safetensors")


def _outcome(lists: Generated) -> dict[str, float]:
    """What lists are worth by the reward model, per request."""
    answered = lists.length > 0
    return {
        "reward": float(lists.reward[answered].mean()),
        "clicks": float(lists.pctr_poi[answered].sum(1).mean()),
        "ads": float(lists.is_ad[answered].sum(1).float().mean()),
        "log_prob": float(lists.log_prob[answered].mean()),
    }


def _round(
    phase: Phase,
    settings: PolicySettings,
    optimizer: torch.optim.Optimizer,
    baseline: Baseline,
    sample: np.ndarray,
    lists: Generated,
    generator: np.random.Generator,
) -> dict[str, float]:
    """One pass over a round's lists; means of what was seen on the way."""
    seen: list[dict[str, float]] = []
    full = lists.length == lists.item.shape[1]
    index = generator.permutation(torch.nonzero(full).squeeze(1).numpy())
    for part in np.array_split(index, max(1, -(-len(index) // settings.batch))):
        batch = lists.rows(torch.from_numpy(part))
        contribution = batch.marginal[torch.isfinite(batch.marginal)]
        if len(contribution):
            baseline.update(contribution)
        losses = batch_losses(phase, settings, baseline, sample[part], batch)
        if not seen:
            check_log_prob(losses["log_z"], batch.log_prob)
        loss = losses["policy"] + settings.interest_weight * losses["interest"]
        if not torch.isfinite(loss):
            raise Diverged(f"phase 2.2: policy loss {losses['policy']}, interest loss {losses['interest']}")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], settings.clip)
        optimizer.step()
        seen.append({name: float(losses[name].detach()) for name in ("policy", "interest", "entropy")})
    means = {name: float(np.mean([row[name] for row in seen])) for name in seen[0]}
    missing = float((~torch.isfinite(lists.marginal[full])).float().mean())
    return {**means, "baseline": baseline.mean or 0.0, "spread": baseline.spread, "no_alternative": missing}


def batch_losses(
    phase: Phase, settings: PolicySettings, baseline: Baseline, rows: np.ndarray, lists: Generated
) -> dict[str, Tensor]:
    """L_PG (Eq. 32), the losses of phase 1, the entropy of z and the sums of ln z [n] of a batch."""
    model = phase.model
    with torch.no_grad():
        memory = model.encode(phase.requests.histories.rows(torch.from_numpy(rows)))
    _, logits = model.decode_poi(memory, lists.item_codes.flatten(1).clamp(min=0))
    steps = log_z(logits, lists)
    policy = policy_loss(steps, lists.marginal, baseline, settings.advantage_limit)
    targets = phase.examples.targets(rows)
    poi, creative = interest_losses(model, memory, targets)
    return {
        "policy": policy,
        "interest": mean_over(poi + creative if phase.with_creatives else poi, targets.real),
        "entropy": entropy(logits.detach(), lists),
        "log_z": steps.detach().sum(1),
    }


def policy_loss(steps: Tensor, marginal: Tensor, baseline: Baseline, limit: float) -> Tensor:
    """-mean over requests of sum_i (r_i - baseline) ln z_i, from ln z of the codes [N, K C_p] and r [N, K].

    A slot without an alternative list (NaN) gives no signal. Contributions are scaled by their spread, so that the
    weight of the losses of phase 1 does not depend on the currency.
    """
    known = torch.isfinite(marginal)
    advantage = baseline.advantage(torch.where(known, marginal, torch.zeros_like(marginal)), limit) * known
    items = steps.unflatten(1, (marginal.shape[1], -1)).sum(2)
    return -(advantage * items).sum(1).mean()


def check_log_prob(ours: Tensor, engine: Tensor, tolerance: float = 1e-2) -> None:
    """Refuses to train where the sum of ln z is not the engine's: the trainer would follow another policy."""
    difference = float((ours.double() - engine).abs().max())
    if not difference <= tolerance:
        raise ValueError(
            f"sum of ln z differs from the engine's by {difference}, expected at most {tolerance}"
        )
