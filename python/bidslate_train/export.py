"""Model directories that the engine serves."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bidslate_train.config import Config
from bidslate_train.model import Model

SPECIAL_TOKENS = ("[PAD]", "[SEP]", "[BOI]", "[BOC]", "[CTX]", "[UNK]", "[R6]", "[R7]")
KEPT_EXACT = "quantizer."
"""Codes come from comparing distances: rounded quantizers would give other codes than the catalog holds."""


def vocabulary(config: Config) -> dict[str, int]:
    """Token to id, as the engine computes it."""
    layers = [("p", j) for j in range(config.poi_code_layers)] + [
        ("c", j) for j in range(config.creative_code_layers)
    ]
    codes = [f"<{kind}{j}_{code}>" for kind, j in layers for code in range(config.codebook_size)]
    return {token: i for i, token in enumerate((*SPECIAL_TOKENS, *codes))}


def tokenizer(config: Config) -> str:
    """The text of `tokenizer.json`: a word-level model as the `tokenizers` library reads it."""
    whole = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary(config), "unk_token": "[UNK]"},
    }  # fmt: skip
    return json.dumps(whole, indent=1) + "\n"


def replace(path: Path, text: str) -> None:
    """Writes a file under another name and renames it: readers see the old one or the whole new one."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)


def rounded(state: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights in the type that is exported; quantizers keep float32."""
    return {
        name: tensor.detach().cpu().to(torch.float32 if name.startswith(KEPT_EXACT) else dtype).contiguous()
        for name, tensor in state.items()
    }


def save(
    model: Model, directory: Path, dtype: torch.dtype = torch.float32, origin: str = "bidslate_train"
) -> None:
    """Writes config, tokenizer and weights; the catalog is the engine's to build."""
    directory.mkdir(parents=True, exist_ok=True)
    replace(directory / "config.json", model.config.to_json())
    replace(directory / "tokenizer.json", tokenizer(model.config))
    weights = directory / "model.safetensors"
    part = weights.with_name(weights.name + ".part")
    save_file(rounded(model.state_dict(), dtype), part, metadata={"origin": origin, "format": "pt"})
    os.replace(part, weights)


def load(directory: Path, dropout: float = 0.0) -> Model:
    """The model of a directory, in float32."""
    model = Model(Config.from_json(directory / "config.json"), dropout)
    state = load_file(directory / "model.safetensors")
    model.load_state_dict({name: tensor.to(torch.float32) for name, tensor in state.items()})
    return model
