"""A run's configuration: a TOML file with a table for each phase, each read into a dataclass."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

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
        return cls(path, text, tomllib.loads(text))

    @property
    def seed(self) -> int:
        """The seed of the run; each phase derives its own from it."""
        return int(self.tables.get("seed", 1))

    @property
    def model(self) -> Config:
        """The model's sizes, table `model`."""
        return Config.from_dict(self.tables["model"], f"{self.path}: [model]")

    def table(self, name: str, kind: type[T]) -> T:
        """The table of a phase as its dataclass; unknown keys, missing ones and wrong types are refused."""
        values = self.tables.get(name, {})
        fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
        unknown = sorted(set(values) - set(fields))
        if unknown:
            raise ValueError(
                f"{self.path}: [{name}] has unknown keys {unknown}, expected some of {sorted(fields)}"
            )
        try:
            return kind(**values)
        except TypeError as error:
            raise ValueError(f"{self.path}: [{name}]: {error}") from None
