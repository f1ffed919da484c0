"""Phase 1, interest pre-training (Eq. 27-29), and what remains of it without the POI decoder's states (-mtp)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from bidslate_train import export
from bidslate_train.blocks import Memory
from bidslate_train.catalog import Catalog
from bidslate_train.config import Config
from bidslate_train.model import Model
from bidslate_train.training import LossOf, Schedule, Training
from bidslate_train.trie import Trie, next_items
from bidslate_train.visits import TRAIN_BACK, Examples, Targets, Visits, recency_seconds

INTEREST = (
    "embed",
    "context_features",
    "behavior_features",
    "encoder",
    "decoder",
    "poi_head",
    "creative",
    "creative_head",
)
"""Modules that phase 1 trains."""
HELD_OUT_BACK = range(TRAIN_BACK - 1, TRAIN_BACK)
"""The visit that follows the last of training."""


@dataclass
class PretrainSettings(Schedule):
    """Table `pretrain` of a run."""

    dropout: float = 0.1
    shortest: int = 8  # a step sees histories cut to a random length, this at least and B at most
    held_out: int = 500  # examples that validation looks at, at most
    hits: int = 10  # items that may hold the next visit, for the hit rate
    state_free_steps: int = 300  # steps of the -mtp variant's creative decoder


@dataclass
class InterestData:
    """What phase 1 reads."""

    catalog: Catalog
    training: Examples
    held_out: Examples

    @classmethod
    def read(cls, data: Path, catalog: Path, config: Config) -> InterestData:
        """From an import's directory and a catalog."""
        items = Catalog(catalog)
        visits = Visits.read(data / "visits.jsonl", items, config)
        ages = recency_seconds(data / "summary.json")
        return cls(
            items,
            Examples.training(visits, items, config, ages),
            Examples.held_out(visits, items, config, ages, HELD_OUT_BACK),
        )

    def examples_of(self, held_out: Path, ids: Sequence[str | int]) -> Examples:
        """The examples of requests by their ids (`heldout.jsonl` says which visits those are)."""
        e = self.training
        return Examples.of_requests(e.visits, e.catalog, e.config, e.recency.tolist(), held_out, ids)


def code_loss(logits: Tensor, codes: Tensor) -> Tensor:
    """Cross-entropy [N, K] of codes [N, K, C] under logits [N, K, C, W], summed over the C layers."""
    return -logits.log_softmax(-1).gather(-1, codes.unsqueeze(-1)).squeeze(-1).sum(-1)


def interest_losses(model: Model, memory: Memory, targets: Targets) -> tuple[Tensor, Tensor]:
    """Cross-entropies [N, K] of each target's POI codes and creative codes (the terms of L_NTP and L_MTP)."""
    count, slots, layers = targets.poi_codes.shape
    hidden, logits = model.decode_poi(memory, targets.poi_codes.flatten(1))
    poi = code_loss(logits.view(count, slots, layers, -1), targets.poi_codes)
    creative = model.decode_creative(memory, model.item_states(hidden), targets.creative_codes)
    return poi, code_loss(creative, targets.creative_codes)


def mean_over(losses: Tensor, real: Tensor) -> Tensor:
    """Mean over requests of the mean over their real targets: Eq. 27 with K the number that there is."""
    weights = real.to(losses.dtype)
    return ((losses * weights).sum(1) / weights.sum(1).clamp(min=1)).mean()


def interest_loss(model: Model, examples: Examples, shortest: int | None = None) -> LossOf:
    """L_NTP + L_MTP of rows of examples (Eq. 29), with histories cut to a length drawn from `shortest` to B.

    Short histories cost less, and a model that sees the same visits after different ones learns less by heart.
    """
    longest = model.config.history_len
    device = next(model.parameters()).device

    def loss_of(rows: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        targets = examples.targets(rows).to(device)
        drawn = shortest is not None and shortest < longest
        most = int(torch.randint(shortest, longest + 1, ())) if drawn else longest
        memory = model.encode(examples.histories(rows, most).to(device))
        poi, creative = interest_losses(model, memory, targets)
        ntp, mtp = mean_over(poi, targets.real), mean_over(creative, targets.real)
        return ntp + mtp, {"ntp": ntp.item(), "mtp": mtp.item()}

    return loss_of


def interest_parameters(model: Model) -> list[torch.nn.Parameter]:
    """The parameters that phase 1 trains."""
    return [p for name in INTEREST for p in getattr(model, name).parameters()]


class HeldOut:
    """Losses and the hit rate of the next visit on examples that training did not see."""

    def __init__(self, model: Model, data: InterestData, settings: PretrainSettings) -> None:
        self.model, self.examples, self.hits = model, data.held_out, settings.hits
        rows = np.random.default_rng(0).permutation(len(self.examples))[: settings.held_out]
        self.rows = np.sort(rows)
        self.trie = Trie(data.catalog.codes, model.config.codebook_size)

    @torch.no_grad()
    def __call__(self) -> dict[str, float]:
        """Mean losses of a target, those of the next visit alone, and the share of next visits found."""
        sums = {"ntp": 0.0, "mtp": 0.0, "next_ntp": 0.0, "hit_1": 0.0, f"hit_{self.hits}": 0.0}
        device = next(self.model.parameters()).device
        trie = self.trie.to(device)
        for rows in np.array_split(self.rows, -(-len(self.rows) // 64)):
            targets = self.examples.targets(rows).to(device)
            memory = self.model.encode(self.examples.histories(rows).to(device))
            poi, creative = interest_losses(self.model, memory, targets)
            sums["ntp"] += mean_over(poi, targets.real).item() * len(rows)
            sums["mtp"] += mean_over(creative, targets.real).item() * len(rows)
            sums["next_ntp"] += poi[:, 0].sum().item()
            found = next_items(self.model, memory, trie, self.hits)
            for items, item in zip(found, targets.item[:, 0].tolist(), strict=True):
                sums["hit_1"] += item in items[:1]
                sums[f"hit_{self.hits}"] += item in items[: self.hits]
        return {name: value / len(self.rows) for name, value in sums.items()}

    def baseline(self) -> dict[str, float]:
        """The hit rates of a rule: the items of the history, most visited first, then latest first."""
        hits = {1: 0, self.hits: 0}
        for row in self.rows:
            at, first = self.examples.positions[row], self.examples.first[row]
            past = self.examples.visits.item[first:at].tolist()
            last = {item: i for i, item in enumerate(past)}
            ranked = sorted(last, key=lambda item: (-past.count(item), -last[item]))
            for count in hits:
                hits[count] += self.examples.visits.item[at] in ranked[:count]
        return {f"hit_{count}": number / len(self.rows) for count, number in hits.items()}


def train(
    config: Config,
    settings: PretrainSettings,
    data: InterestData,
    out: Path,
    seed: int,
    quantizer: Path | None = None,
) -> Model:
    """Trains from random weights, writes a model directory and returns the model.

    `quantizer` is the file of phase 0: the model carries its tensors on.
    """
    torch.manual_seed(seed)
    model = Model(config, settings.dropout)
    if quantizer is not None:
        model.load_state_dict(model.state_dict() | load_file(quantizer))
    training = Training("pretrain", model, interest_parameters(model), settings, out, seed)
    held_out = HeldOut(model, data, settings)
    if training.workers.first:
        print(
            f"pretrain: {len(data.training)} examples; by visits to the same places {held_out.baseline()}",
            flush=True,
        )
    loss_of = interest_loss(model, data.training, settings.shortest)
    training.run(loss_of, len(data.training), held_out)
    if training.workers.first:
        export.save(model.cpu(), out)
    return model


def without_state(
    model: Model, settings: PretrainSettings, data: InterestData, out: Path, seed: int
) -> Model:
    """The -mtp variant: the creative decoder sees S_e and codes, no state of the POI decoder.

    Its scale of the state becomes 0, so that the same engine serves it; what else the creative decoder has trains on
    L_MTP, all before it stays.
    """
    scale = model.creative["hidden_norm"].weight
    torch.nn.init.zeros_(scale)
    kept = [*model.creative.parameters(), *model.creative_head.parameters()]
    schedule = Schedule(
        **{k: getattr(settings, k) for k in Schedule.__dataclass_fields__}
        | {"steps": settings.state_free_steps}
    )
    training = Training("without-state", model, [p for p in kept if p is not scale], schedule, out, seed)
    training.run(state_free_loss(model, data.training), len(data.training))
    if training.workers.first:
        export.save(model.cpu(), out)
    return model


def state_free_loss(model: Model, examples: Examples) -> LossOf:
    """L_MTP where no state is read."""
    device = next(model.parameters()).device

    def loss_of(rows: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        targets = examples.targets(rows).to(device)
        with torch.no_grad():
            memory = model.encode(examples.histories(rows).to(device))
        states = memory.states.new_zeros(*targets.creative_codes.shape[:2], model.config.hidden_size)
        logits = model.decode_creative(memory, states, targets.creative_codes)
        loss = mean_over(code_loss(logits, targets.creative_codes), targets.real)
        return loss, {}

    return loss_of
