"""Point-wise models of clicks: the ranking and creative selection stages of the multi-stage baseline.

They have the parts of the reward model, with its sizes, and see one slot at a time: the user's interest from the
frozen encoder, the item (and its creative, where they choose creatives) and the position, but none of the slots
around it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 -- the customary name

from bidslate_train.blocks import EncoderBlock, Mlp, RmsNorm
from bidslate_train.catalog import Catalog
from bidslate_train.config import Config
from bidslate_train.feedback import LABELS, Feedback, split
from bidslate_train.model import TOWER_SIZES, Model
from bidslate_train.optimise import Epochs, calibrate, start_from_rates
from bidslate_train.reward import RewardSettings


class PointModel(nn.Module):
    """Features [n, d_r] and one logit for each label from rows of inputs [n, width] at positions [n]."""

    def __init__(self, config: Config, width: int, labels: list[str]) -> None:
        super().__init__()
        d = config.reward_hidden_size
        self.labels = labels
        self.input = nn.Linear(width, d)
        self.position = nn.Embedding(config.list_len, d)
        nn.init.normal_(self.position.weight, std=d**-0.5)
        self.blocks = nn.ModuleList(
            EncoderBlock(config, d, config.reward_heads, 3 * d, rotary=False)
            for _ in range(config.reward_layers)
        )
        self.norm = RmsNorm(d, config.rms_eps)
        self.towers = nn.ModuleList(Mlp([d, *TOWER_SIZES]) for _ in labels)

    def forward(self, inputs: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Features [n, d_r] and logits [n, labels]."""
        x = (self.input(inputs) + self.position(position)).unsqueeze(1)
        alone = torch.ones(x.shape[:2], dtype=torch.bool)
        for block in self.blocks:
            x = block(x, alone)
        features = self.norm(x).squeeze(1)
        return features, torch.cat([tower(features) for tower in self.towers], 1)

    def last_layers(self) -> list[nn.Linear]:
        """The last layer of each tower."""
        return [list(tower.values())[-1] for tower in self.towers]


@dataclass
class Inputs:
    """What the stages read of users, items and creatives; computed once, since the encoder is frozen."""

    interest: Tensor  # [R, d]
    item: Tensor  # [N, d + d_item]: sum of the codes' embeddings, raw embedding
    creative: Tensor  # [M, d]: sum of the codes' embeddings

    @classmethod
    @torch.no_grad()
    def of(cls, model: Model, interest: Tensor, catalog: Catalog) -> Inputs:
        """The vectors of a catalog under the model's embeddings."""
        codes = model.embed(model.poi_tokens(torch.from_numpy(catalog.codes))).sum(1)
        creatives = model.embed(model.creative_tokens(torch.from_numpy(catalog.creative_codes))).sum(1)
        return cls(interest, torch.cat([codes, torch.from_numpy(catalog.embedding)], 1), creatives)

    def ranking(self, request: np.ndarray, item: np.ndarray) -> Tensor:
        """Rows [n, 2 d + d_item] of the ranking stage."""
        return torch.cat([self.interest[torch.from_numpy(request)], self.item[torch.from_numpy(item)]], 1)

    def selection(self, request: np.ndarray, item: np.ndarray, creative: np.ndarray) -> Tensor:
        """Rows [n, 3 d + d_item] of the creative selection stage."""
        return torch.cat([self.ranking(request, item), self.creative[torch.from_numpy(creative)]], 1)


@dataclass
class Slots:
    """Shown slots, one a row, of lists of feedback."""

    request: np.ndarray
    item: np.ndarray
    creative: np.ndarray
    position: np.ndarray
    label: np.ndarray  # [n, 3], in the order of LABELS

    @classmethod
    def of(cls, feedback: Feedback) -> Slots:
        """All filled slots."""
        row, position = np.nonzero(feedback.filled)
        at = (row, position)
        return cls(
            feedback.request[row], feedback.item[at], feedback.creative[at], position, feedback.label[at]
        )


def train_point_model(
    config: Config, inputs: Inputs, feedback: Feedback, creatives: bool, settings: RewardSettings, seed: int
) -> tuple[PointModel, list[dict[str, float]]]:
    """Trains the ranking stage or, with `creatives`, creative selection; returns it with its losses by epoch.

    Ranking learns clicks on the POI and conversions, selection clicks on the creative. Batches hold as many slots as
    those of the reward model.
    """
    torch.manual_seed(seed)
    labels = ["click_creative"] if creatives else ["click_poi", "conversion"]
    columns = [LABELS.index(label) for label in labels]
    slots = Slots.of(feedback)

    def read(rows: np.ndarray) -> Tensor:
        if creatives:
            return inputs.selection(slots.request[rows], slots.item[rows], slots.creative[rows])
        return inputs.ranking(slots.request[rows], slots.item[rows])

    def loss(rows: np.ndarray) -> Tensor:
        _, logits = model(read(rows), torch.from_numpy(slots.position[rows]))
        each = F.binary_cross_entropy_with_logits(logits, label[torch.from_numpy(rows)], reduction="none")
        return each.sum(1).mean()

    @torch.no_grad()
    def validate() -> float:
        return float(loss(chosen_by))

    label = torch.from_numpy(slots.label[:, columns])
    train, chosen_by, _ = split(slots.request, settings.validation, settings.test, seed)
    model = PointModel(config, read(train[:1]).shape[1], labels)
    start_from_rates(model.last_layers(), label[torch.from_numpy(train)].numpy())
    s = settings
    epochs = Epochs(s.epochs, s.batch * config.list_len, s.learning_rate, s.weight_decay, s.patience)
    curve = epochs.fit(model, train, loss, validate, seed)
    with torch.no_grad():
        _, logits = model(read(chosen_by), torch.from_numpy(slots.position[chosen_by]))
    calibrate(model.last_layers(), logits, label[torch.from_numpy(chosen_by)])
    return model, curve
