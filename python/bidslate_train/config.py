"""The engine's `config.json`: sizes and constants of a model."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bidslate_train import typed

SPECIALS = 8
"""Ids 0 to 7 of the vocabulary are `PAD SEP BOI BOC CTX UNK R6 R7`."""
SEP, BOI, BOC, CTX = 1, 2, 3, 4


@dataclass(frozen=True)
class Config:
    """One field for each key of `config.json`, in its order; `docs/formats.md` says what each means."""

    history_len: int
    list_len: int
    poi_code_layers: int
    creative_code_layers: int
    codebook_size: int
    beam_width: int
    encoder_layers: int
    decoder_layers: int
    hidden_size: int
    num_heads: int
    ffn_size: int
    item_embedding_size: int
    reward_hidden_size: int
    reward_layers: int
    reward_heads: int
    format_version: int = 1
    creative_embedding_size: int | None = None
    context_features: dict[str, int] = field(default_factory=dict)
    behavior_features: dict[str, int] = field(default_factory=dict)
    quantizer_size: int | None = None
    quantizer_hidden: list[int] = field(default_factory=list)
    bid_unit_micros: int = 1_000_000
    billable_unit_micros: int = 1
    currency: str | None = None
    rms_eps: float = 1e-6
    rope_theta: float = 10_000.0
    alpha: float = 1.2
    beta: float = 2.0

    @property
    def vocabulary(self) -> int:
        """V: the special tokens, then W tokens for each layer of POI codes and of creative codes."""
        return SPECIALS + (self.poi_code_layers + self.creative_code_layers) * self.codebook_size

    @property
    def creative_width(self) -> int:
        """Width of a creative's raw embedding."""
        return self.creative_embedding_size or self.item_embedding_size

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "config") -> Config:
        """A configuration from its keys; an unknown or a missing one is a `ValueError` that names them all.

        So is the first value of another type.
        """
        fields = {f.name: f for f in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(fields))
        needed = [n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING]
        missing = [name for name in needed if name not in values]
        if unknown or missing:
            raise ValueError(f"{where}: unknown keys {unknown}, missing keys {missing}")
        typed.check(cls, values, where)
        return cls(**values)

    @classmethod
    def from_json(cls, path: str | Path) -> Config:
        """The configuration in a file `config.json`."""
        return cls.from_dict(json.loads(Path(path).read_text()), str(path))

    def to_json(self) -> str:
        """The text of `config.json`; optional keys that are not set are left out."""
        values = {k: v for k, v in dataclasses.asdict(self).items() if v is not None}
        return json.dumps(values, indent=2) + "\n"
