"""Checkpoints from which a run goes on to the same numbers, bit for bit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn


def save(
    path: Path, step: int, module: nn.Module, optimizer: torch.optim.Optimizer, about: dict[str, Any]
) -> None:
    """Writes the state after a step. `about` says what run this is; another one will not resume from it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    state = {"step": step, "module": module.state_dict(), "optimizer": optimizer.state_dict(), "about": about}
    torch.save(state, part)
    os.replace(part, path)


def resume(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, about: dict[str, Any]) -> int:
    """Loads the state into module and optimizer and returns its step, 0 where there is no checkpoint."""
    if not path.exists():
        return 0
    state = torch.load(path, map_location=next(module.parameters()).device)
    different = sorted(k for k in {**about, **state["about"]} if about.get(k) != state["about"].get(k))
    if different:
        told = ", ".join(f"{k}: {state['about'].get(k)!r} then, {about.get(k)!r} now" for k in different)
        raise ValueError(f"{path} is of a run with other settings ({told}); remove it to start anew")
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]
