"""The state of a search: Q beams of each of B requests, on the device."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from bidslate_train.config import BOI

from .batch import Batch
from .sizes import Sizes


@dataclass
class Beams:
    """Lists in the making. A beam with score -inf is not there; a finished one only keeps its score."""

    score: Tensor  # [B, Q]: sum of ln z
    item_ln_z: Tensor  # [B, Q]: of the item being built
    node: Tensor  # [B, Q]: of the item being built, among the ads
    ads_open: Tensor  # [B, Q] bool: whether ads may complete it
    organic_open: Tensor  # [B, Q] bool: whether the next organic item may
    finished: Tensor  # [B, Q] bool
    token: Tensor  # [B, Q]: chosen last
    used: Tensor  # [B, Q, K]: the ad in each slot as a position among the request's, -1 for none
    item: Tensor  # [B, Q, K]: the row of each item in the catalog, -1 for none
    ln_z: Tensor  # [B, Q, K]
    ads: Tensor  # [B, Q]: how many ads there are in the list
    last_ad: Tensor  # [B, Q]: the slot of the last of them, far below 0 for none
    organics: Tensor  # [B, Q]: organic items in the list
    ancestors: Tensor  # [B, Q, T]: the beam slot that ran each position

    @classmethod
    def start(cls, batch: Batch, sizes: Sizes, slots: int, positions: int, dtype: torch.dtype) -> Beams:
        """One empty beam for each request; scores are kept in `dtype`."""
        device, shape = batch.organics.device, (sizes.batch, sizes.beams)

        def full(value: float, *more: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.full((*shape, *more), value, dtype=dtype, device=device)

        first = torch.arange(sizes.beams, device=device).expand(shape)
        beams = cls(
            score=torch.where(first == 0, 0.0, -torch.inf).to(dtype),
            item_ln_z=full(0, dtype=dtype),
            node=full(0),
            ads_open=full(False, dtype=torch.bool),
            organic_open=full(False, dtype=torch.bool),
            finished=first > 0,
            token=full(BOI),
            used=full(-1, slots),
            item=full(-1, slots),
            ln_z=full(0, slots, dtype=dtype),
            ads=full(0),
            last_ad=full(NEVER),
            organics=full(0),
            ancestors=first.unsqueeze(-1).repeat(1, 1, positions),
        )
        beams.open_slot(batch, torch.zeros((), dtype=torch.int64, device=device))
        return beams

    def open_slot(self, batch: Batch, slot: Tensor) -> None:
        """Says what may stand in the next slot, a whole number []: ads by the policy, organic items in their order."""

        def by_request(values: Tensor) -> Tensor:
            return values.unsqueeze(1)

        there = ~self.finished & (slot < by_request(batch.list_len))
        self.ads_open = (
            there
            & (self.ads < by_request(batch.max_ads))
            & (slot >= by_request(batch.first_ad_slot))
            & (slot - self.last_ad > by_request(batch.min_gap))
        )
        self.organic_open = there & (self.organics < by_request(batch.organics))
        self.node = torch.zeros_like(self.node)
        self.item_ln_z = torch.zeros_like(self.item_ln_z)

    def of(self, parent: Tensor) -> Beams:
        """The beams that descend from those in `parent` [B, Q]."""

        def taken(x: Tensor) -> Tensor:
            index = parent if x.dim() == 2 else parent.unsqueeze(-1).expand(-1, -1, x.shape[2])
            return x.gather(1, index)

        return Beams(*(taken(getattr(self, field.name)) for field in fields(self)))


NEVER = -(1 << 41)
"""The slot of an ad that is not there: further off than any gap asked for (`batch.FAR`)."""
