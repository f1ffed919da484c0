"""A run's configuration: a TOML file with a table for each phase, each read into a dataclass."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bidslate_train import typed
from bidslate_train.config import Config

T = TypeVar("T")
CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@dataclass(frozen=True)
class Settings:
    """The tables of a configuration file and where it lies."""

    path: Path
    text: str
    tables: dict[str, Any]

    @classmethod
    def read(cls, name_or_path: str) -> Settings:
        """A file, or the one of this name in `python/configs`."""
        path = Path(name_or_path)
        if not path.suffix:
            path = CONFIGS / f"{name_or_path}.toml"
        text = path.read_text()
        try:
            return cls(path, text, tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path}: {error}") from None

    def check(self, kinds: dict[str, type]) -> None:
        """Refuses every fault that can be told before a phase runs; `kinds` are the tables that phases read."""
        unknown = sorted(set(self.tables) - {"seed", "model", *kinds})
        if unknown:
            raise ValueError(
                f"{self.path}: unknown keys {unknown}, expected some of {sorted(['seed', 'model', *kinds])}"
            )
        _ = self.seed, self.model
        for name, kind in kinds.items():
            self.table(name, kind)

    @property
    def seed(self) -> int:
        """The seed of the run; each phase derives its own from it."""
        seed = self.tables.get("seed", 1)
        if not typed.fits(int, seed):
            raise ValueError(f"{self.path}: `seed` is {seed!r}, expected a whole number")
        return seed

    @property
    def model(self) -> Config:
        """The model's sizes, table `model`."""
        return Config.from_dict(self._values("model"), f"{self.path}: [model]")

    def table(self, name: str, kind: type[T]) -> T:
        """The table of a phase as its dataclass; unknown keys, missing ones and wrong types are refused."""
        values = self._values(name)
        fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
        unknown = sorted(set(values) - set(fields))
        if unknown:
            raise ValueError(
                f"{self.path}: [{name}] has unknown keys {unknown}, expected some of {sorted(fields)}"
            )
        typed.check(kind, values, f"{self.path}: [{name}]")
        try:
            return kind(**values)
        except TypeError as error:
            raise ValueError(f"{self.path}: [{name}]: {error}") from None

    def _values(self, name: str) -> dict[str, Any]:
        """The keys of a table; none where it is left out."""
        values = self.tables.get(name, {})
        if not isinstance(values, dict):
            raise ValueError(f"{self.path}: [{name}] is {values!r}, expected a table")
        return values
