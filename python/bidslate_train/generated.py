"""Lists that the engine generated in bulk: what `bidslate generate` writes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from bidslate_train import engine


@dataclass
class Generated:
    """Winning lists of R requests: K slots, T = K C_p codes, W codes a layer."""

    length: Tensor  # [R] i64: filled slots; 0 where a request was refused
    item: Tensor  # [R, K] i64: ids, -1 where empty
    creative: Tensor  # [R, K] i64
    is_ad: Tensor  # [R, K] u8
    item_codes: Tensor  # [R, K, C_p] i64, -1 where empty
    creative_codes: Tensor  # [R, K, C_c] i64
    ln_w: Tensor  # [R, T, W] f32: ln w of the codes that could be chosen, -inf of the others
    bid: Tensor  # [R, K] f32, bid units
    pctr_poi: Tensor  # [R, K] f32
    pctr_creative: Tensor  # [R, K] f32
    pcvr: Tensor  # [R, K] f32
    z: Tensor  # [R, K] f32
    marginal: Tensor  # [R, K] f32: Eq. 31, NaN where there is no list without the item
    reward: Tensor  # [R] f64
    log_prob: Tensor  # [R] f64: sum of ln z over the steps
    payment: Tensor  # [R, K] f64, currency units

    def rows(self, index: Tensor) -> Generated:
        """The lists of an index [N]."""
        return Generated(*(getattr(self, f.name)[index] for f in fields(self)))

    @classmethod
    def read(cls, path: Path) -> Generated:
        """Reads what the engine wrote."""
        tensors = load_file(path)
        missing = [f.name for f in fields(cls) if f.name not in tensors]
        if missing:
            raise ValueError(f"{path}: no tensors {missing}")
        return cls(*(tensors[f.name] for f in fields(cls)))


def generate(model: Path, catalog: Path, requests: Path, out: Path) -> Generated:
    """The winning lists of the requests of a file under the model of a directory, with marginal contributions."""
    engine.bidslate(
        "generate", "--model", model, "--catalog", catalog, "--requests", requests, "--out", out, check=False
    )
    return Generated.read(out)


def log_z(logits: Tensor, lists: Generated) -> Tensor:
    """Ln z of each chosen code [R, T], 0 where none was chosen (Eq. 22), from the logits [R, T, W] along the lists."""
    chosen = lists.item_codes.flatten(1)
    real = chosen >= 0
    scored = torch.where(real.unsqueeze(-1), logits + lists.ln_w, torch.zeros_like(logits))
    return torch.where(real, pick(scored.log_softmax(-1), chosen), torch.zeros(()))


def entropy(logits: Tensor, lists: Generated) -> Tensor:
    """Mean entropy, in nats, of z over the steps at which there was a choice."""
    choice = (lists.item_codes.flatten(1) >= 0) & (torch.isfinite(lists.ln_w).sum(-1) > 1)
    log = (logits + lists.ln_w)[choice].log_softmax(-1)
    return -(log.exp() * log.clamp(min=-1e4)).sum(-1).mean()


def pick(values: Tensor, codes: Tensor) -> Tensor:
    """The value of each code [..., W] -> [...]; a code of -1 reads the first."""
    return values.gather(-1, codes.clamp(min=0).unsqueeze(-1)).squeeze(-1)
