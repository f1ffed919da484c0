"""EGA-end, an ablation: one stage from random weights that minimises all losses at once, nothing frozen.

Its rounds ask the engine for lists and misreports under the weights so far, as phases 2.2 and 2.3 do; the features in
the payment table are as old as the round. The policy gradient takes each list once, at the beginning of its round, as
in phase 2.2: on lists that the weights have left behind it has no bound. Codes are those of phase 0, as in all
variants.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bidslate_train import export, misreports
from bidslate_train.alignment import Alignment
from bidslate_train.blocks import Memory
from bidslate_train.feedback import Feedback
from bidslate_train.generated import Generated, generate, log_z
from bidslate_train.misreports import Misreports
from bidslate_train.model import Model
from bidslate_train.payment import Batches, PaymentSettings, Penalty, slot_regrets
from bidslate_train.policy import Baseline, PolicySettings, policy_loss
from bidslate_train.pretrain import PretrainSettings, interest_loss
from bidslate_train.reward import Lists, reward_loss
from bidslate_train.tables import write_lines
from bidslate_train.training import LossOf, Schedule, Training


@dataclass(frozen=True)
class EndSettings:
    """How the one stage trains. Rates and weights are those of the phases."""

    steps: int = 2000
    rounds: int = 5  # times that the engine generates lists and misreports
    requests: int = 160  # in a round
    batch: int = 32  # half examples of phase 1, half requests


@dataclass
class Round:
    """What the engine wrote under the weights that a round begins with."""

    rows: np.ndarray  # of the training requests
    lists: Generated
    unused: np.ndarray  # the lists with all slots that the policy gradient has not taken yet
    payments: Misreports

    def draw(self, count: int, generator: np.random.Generator) -> tuple[np.ndarray, bool]:
        """Some of the requests, and whether their lists are for the policy gradient."""
        if len(self.unused) >= count:
            chosen, self.unused = np.split(self.unused, [count])
            return chosen, True
        return generator.choice(len(self.rows), min(count, len(self.rows)), replace=False), False


class EndModel(nn.Module):
    """The model, and what its losses carry from step to step: a checkpoint holds both."""

    def __init__(self, model: Model, baseline: Baseline) -> None:
        super().__init__()
        self.model, self.baseline = model, baseline
        self.penalty: Penalty | None = None

    def get_extra_state(self) -> dict[str, Any]:
        """Baseline and multipliers."""
        return {"baseline": vars(self.baseline), "penalty": self.penalty and vars(self.penalty)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """As `get_extra_state` gave them."""
        self.baseline = Baseline(**state["baseline"])
        self.penalty = state["penalty"] and Penalty(**state["penalty"])


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
        model = Model(a.config, pretraining.dropout)
        model.load_state_dict(export.load(a.run.interest).state_dict() | _fresh(model))
        self.state = EndModel(model, Baseline(self.policy.momentum))
        self.examples = a.interest_data.training
        self.interest_loss = interest_loss(model, self.examples, pretraining.shortest)
        self.lists = Lists.of(feedback, torch.empty(0), a.catalog)
        self.by_request = _rows_by_request(feedback, len(a.train))
        trained = [p for n, p in model.named_parameters() if not n.startswith("quantizer.")]
        self.training = Training("end", self.state, trained, self.schedule(pretraining), work, seed)

    def schedule(self, pretraining: PretrainSettings) -> Schedule:
        """Phase 1's, over this stage's steps, with a checkpoint at the end of each round."""
        each = self.settings.steps // self.settings.rounds
        if each == 0:
            raise ValueError(f"[end] has {self.settings.steps} steps, expected one for each of its rounds")
        shared = {k: getattr(pretraining, k) for k in ("rate", "weight_decay", "clip")}
        steps, half = each * self.settings.rounds, max(1, self.settings.batch // 2)
        warm_up = steps * pretraining.warm_up // pretraining.steps
        log_every = math.gcd(each, 50)
        return Schedule(steps, half, warm_up=warm_up, log_every=log_every, save_every=each, **shared)

    def train(self) -> Model:
        """Runs the rounds that no checkpoint has yet; writes `end.csv`."""
        each = self.training.schedule.save_every
        done = self.training.resume(len(self.examples))
        for number in range(done // each, self.settings.rounds):
            loss_of = self.loss_of(self.ask(number))
            self.training.run(loss_of, len(self.examples), stop_at=(number + 1) * each)
        return self.state.model.eval()

    def ask(self, number: int) -> Round:
        """A round's requests, the lists that win under the weights so far, and what misreports would bring."""
        a, model = self.alignment, self.work / "model"
        export.save(self.state.model.eval(), model)
        draw = np.random.default_rng((self.seed, number))
        rows = np.sort(draw.choice(len(a.train), min(self.settings.requests, len(a.train)), replace=False))
        file = self.work / "requests.jsonl"
        write_lines(file, (a.train.lines[row] for row in rows))
        lists = generate(model, a.run.catalog, file, self.work / "lists.safetensors")
        table = misreports.write(
            model, a.run.catalog, file, self.work / "misreports.safetensors",
            self.payment.tier, 1, self.payment.sigma, self.seed,
        )  # fmt: skip
        full = np.flatnonzero((lists.length == lists.item.shape[1]).numpy())
        return Round(rows, lists, draw.permutation(full), table)

    def loss_of(self, work: Round) -> LossOf:
        """The sum of all losses on examples of phase 1, as many requests of a round, and its payment table."""
        a, model = self.alignment, self.state.model

        def loss_of(examples: np.ndarray) -> tuple[Tensor, dict[str, float]]:
            draw = np.random.default_rng(int(torch.randint(2**62, ())))  # seeded anew at each step
            chosen, fresh = work.draw(len(examples), draw)
            rows, lists = work.rows[chosen], work.lists.rows(torch.from_numpy(chosen))
            memory = model.encode(a.train.histories.rows(torch.from_numpy(rows)))
            losses = {
                "interest": self.interest_loss(examples)[0],
                "reward": self.reward_loss(rows, memory),
                "policy": self.policy_loss(memory, lists) if fresh else torch.zeros(()),
                "payment": self.payment_loss(Batches(work.payments, self.payment.batch, draw)),
            }
            loss = sum(losses.values(), torch.zeros(()))
            return loss, {name: value.item() for name, value in losses.items()}

        return loss_of

    def reward_loss(self, rows: np.ndarray, memory: Memory) -> Tensor:
        """Cross-entropy of the towers on the feedback of requests; the encoder learns too."""
        shown = [self.by_request[row] for row in rows]
        places = np.repeat(np.arange(len(rows)), [len(part) for part in shown])
        mean = memory.mean()[torch.from_numpy(places)]
        return reward_loss(*self.lists.logits(self.state.model, np.concatenate(shown), mean))

    def policy_loss(self, memory: Memory, lists: Generated) -> Tensor:
        """L_PG of the lists of requests; the encoder learns too."""
        model, baseline = self.state.model, self.state.baseline
        contribution = lists.marginal[torch.isfinite(lists.marginal)]
        if len(contribution):
            baseline.update(contribution)
        _, poi = model.decode_poi(memory, lists.item_codes.flatten(1).clamp(min=0))
        return policy_loss(log_z(poi, lists), lists.marginal, baseline, self.policy.advantage_limit)

    def payment_loss(self, batches: Batches) -> Tensor:
        """L_pay, and a step of the multipliers."""
        if self.state.penalty is None:
            self.state.penalty = Penalty.of(batches.table, self.payment.rho, self.alignment.config.list_len)
        penalty = self.state.penalty
        part, request, requests = batches.draw()
        slots = len(penalty.multipliers)
        revenue, regret = slot_regrets(part, request, requests, slots, 1, self.state.model.payment_rate)
        penalty.update(regret.detach().mean(0) / self.payment.update_every)
        return penalty.loss(revenue, regret)


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
