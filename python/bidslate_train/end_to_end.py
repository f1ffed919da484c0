"""EGA-end, an ablation: one stage from random weights that minimises all losses at once, nothing frozen.

Its rounds ask the engine for lists and misreports under the weights so far, as phases 2.2 and 2.3 do; the features in
the payment table are as old as the round. Codes are those of phase 0, as in all variants.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bidslate_train import export, misreports
from bidslate_train.alignment import Alignment
from bidslate_train.feedback import Feedback
from bidslate_train.generated import Generated, generate, log_z
from bidslate_train.misreports import Misreports
from bidslate_train.model import Model
from bidslate_train.payment import Batches, PaymentSettings, Penalty, slot_regrets
from bidslate_train.policy import Baseline, PolicySettings, policy_loss
from bidslate_train.pretrain import PretrainSettings, interest_losses, mean_over
from bidslate_train.reward import Lists, reward_loss
from bidslate_train.tables import write_csv, write_lines
from bidslate_train.training import Diverged


@dataclass(frozen=True)
class EndSettings:
    """How the one stage trains. Rates and weights are those of the phases."""

    steps: int = 2000
    rounds: int = 6  # times that the engine generates lists and misreports
    requests: int = 160  # in a round
    batch: int = 32  # half examples of phase 1, half requests


class EndToEnd:
    """The single stage."""

    def __init__(self, alignment: Alignment, feedback: Feedback, work: Path, seed: int) -> None:
        a = self.alignment = alignment
        table = a.run.settings.table
        self.settings = table("end", EndSettings)
        self.policy, self.payment = table("policy", PolicySettings), table("payment", PaymentSettings)
        self.work, self.seed = work, seed
        torch.manual_seed(seed)
        pretraining = table("pretrain", PretrainSettings)
        self.model = Model(a.config, pretraining.dropout)
        self.model.load_state_dict(export.load(a.run.interest).state_dict() | _fresh(self.model))
        self.parameters = [p for n, p in self.model.named_parameters() if not n.startswith("quantizer.")]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=pretraining.rate, weight_decay=pretraining.weight_decay
        )
        self.lists = Lists.of(feedback, torch.empty(0), a.catalog)
        self.by_request = _rows_by_request(feedback, len(a.train))
        self.baseline = Baseline(self.policy.momentum)
        self.generator = np.random.default_rng(seed)
        self.penalty: Penalty | None = None

    def train(self) -> Model:
        """Runs all rounds; writes `end.csv`."""
        each = max(1, self.settings.steps // self.settings.rounds)
        curve = []
        for number in range(self.settings.rounds):
            rows, lists, table = self.ask()
            seen = [self.step(*draw) for draw in self.draws(rows, lists, table, each)]
            means = {name: float(np.mean([row[name] for row in seen])) for name in seen[0]}
            curve.append({"round": number, **means})
        write_csv(self.work / "end.csv", curve)
        self.model.eval()
        return self.model

    def ask(self) -> tuple[np.ndarray, Generated, Misreports]:
        """A round's requests, the lists that win under the weights so far, and what misreports would bring."""
        a, model = self.alignment, self.work / "model"
        self.model.eval()
        export.save(self.model, model)
        rows = np.sort(
            self.generator.choice(len(a.train), min(self.settings.requests, len(a.train)), replace=False)
        )
        file = self.work / "requests.jsonl"
        write_lines(file, (a.train.lines[row] for row in rows))
        lists = generate(model, a.run.catalog, file, self.work / "lists.safetensors")
        table = misreports.write(
            model, a.run.catalog, file, self.work / "misreports.safetensors",
            self.payment.tier, 1, self.payment.sigma, self.seed,
        )  # fmt: skip
        self.model.train()
        return rows, lists, table

    def draws(
        self, rows: np.ndarray, lists: Generated, table: Misreports, steps: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray, Generated, Batches]]:
        """What each step works on: examples of phase 1, requests with their lists, and the payment table."""
        half = max(1, self.settings.batch // 2)
        payments = Batches(table, self.payment.batch, self.generator)
        full = np.flatnonzero((lists.length == lists.item.shape[1]).numpy())
        examples = self.alignment.interest_data.training
        for _ in range(steps):
            chosen = self.generator.choice(full, min(half, len(full)), replace=False)
            example = self.generator.choice(len(examples), half)
            yield example, rows[chosen], lists.rows(torch.from_numpy(chosen)), payments

    def step(
        self, examples: np.ndarray, rows: np.ndarray, lists: Generated, payments: Batches
    ) -> dict[str, float]:
        """One step on the sum of all losses."""
        losses = {
            "interest": self.interest_loss(examples),
            **self.request_losses(rows, lists),
            "payment": self.payment_loss(payments),
        }
        loss = sum(losses.values(), torch.zeros(()))
        if not torch.isfinite(loss):
            raise Diverged(f"-end: { ({name: value.item() for name, value in losses.items()}) }")
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        return {name: value.item() for name, value in losses.items()}

    def interest_loss(self, rows: np.ndarray) -> Tensor:
        """L_NTP + L_MTP of examples of phase 1."""
        examples = self.alignment.interest_data.training
        targets = examples.targets(rows)
        poi, creative = interest_losses(self.model, self.model.encode(examples.histories(rows)), targets)
        return mean_over(poi + creative, targets.real)

    def request_losses(self, rows: np.ndarray, lists: Generated) -> dict[str, Tensor]:
        """Cross-entropy of the towers on the requests' feedback, and L_PG on their lists; the encoder learns too."""
        memory = self.model.encode(self.alignment.train.histories.rows(torch.from_numpy(rows)))
        shown = [self.by_request[row] for row in rows]
        places = np.repeat(np.arange(len(rows)), [len(part) for part in shown])
        index = np.concatenate(shown)
        logits, label, filled = self.lists.logits(self.model, index, memory.mean()[torch.from_numpy(places)])
        contribution = lists.marginal[torch.isfinite(lists.marginal)]
        if len(contribution):
            self.baseline.update(contribution)
        _, poi = self.model.decode_poi(memory, lists.item_codes.flatten(1).clamp(min=0))
        steps = log_z(poi, lists)
        policy = policy_loss(steps, lists.marginal, self.baseline, self.policy.advantage_limit)
        return {"reward": reward_loss(logits, label, filled), "policy": policy}

    def payment_loss(self, batches: Batches) -> Tensor:
        """L_pay, and a step of the multipliers."""
        if self.penalty is None:
            self.penalty = Penalty.of(batches.table, self.payment.rho, self.alignment.config.list_len)
        part, request, requests = batches.draw()
        slots = len(self.penalty.multipliers)
        revenue, regret = slot_regrets(part, request, requests, slots, 1, self.model.payment_rate)
        self.penalty.update(regret.detach().mean(0) / self.payment.update_every)
        return self.penalty.loss(revenue, regret)


def _fresh(model: Model) -> dict[str, Tensor]:
    """The weights of a new model but for the quantizers'."""
    return {name: value for name, value in model.state_dict().items() if not name.startswith("quantizer.")}


def _rows_by_request(feedback: Feedback, requests: int) -> list[np.ndarray]:
    order = np.argsort(feedback.request, kind="stable")
    counts = np.bincount(feedback.request, minlength=requests)
    return np.split(order, np.cumsum(counts)[:-1])


def train_end_to_end(alignment: Alignment, feedback: Path, out: Path, seed: int) -> None:
    """Trains the variant and writes its model directory."""
    stage = EndToEnd(alignment, alignment.feedback(feedback), out / "work", seed)
    export.save(stage.train(), out)
