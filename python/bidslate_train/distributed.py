"""Data parallelism under `torchrun`: every process computes its share of a batch, gradients are averaged."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, distributed, nn


class Workers:
    """The processes of a run; one where `torchrun` started none."""

    def __init__(self) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        cuda = torch.cuda.is_available()
        self.device = (
            torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
        )
        if cuda:
            torch.cuda.set_device(self.device)
        if self.count > 1 and not distributed.is_initialized():
            distributed.init_process_group("nccl" if cuda else "gloo")

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def share(self, rows: np.ndarray) -> np.ndarray:
        """The equal part of this process among of the rows of a batch."""
        if len(rows) % self.count:
            raise ValueError(f"a batch of {len(rows)} does not divide among {self.count} processes")
        return rows.reshape(self.count, -1)[self.rank]

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replaces tensors by their mean over the processes."""
        if self.count == 1:
            return
        tensors = list(tensors)
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(flat)
        flat /= self.count
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Averages gradients; a parameter without one counts as zero."""
        if self.count == 1:
            return
        for parameter in (kept := list(parameters)):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.average(parameter.grad for parameter in kept)

    def wait(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            distributed.barrier()
