"""JSON lines, read with refusals that name file, line, field, value and what was expected."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Refused(ValueError):
    """Input that does not fit."""


def refuse(place: str, field: str, value: Any, expected: str) -> Refused:
    """The refusal of a value at a place (`file:line`)."""
    return Refused(f"{place}: `{field}` is {value!r}, expected {expected}")


def read(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line's place and object; blank lines are passed over."""
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            place = f"{path}:{number}"
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise Refused(f"{place}: not JSON: {error}") from None
            if not isinstance(value, dict):
                raise refuse(place, "line", value, "an object")
            yield place, value


def get(place: str, line: dict[str, Any], field: str) -> Any:
    """A field that must be there."""
    if field not in line:
        raise Refused(f"{place}: `{field}` is missing")
    return line[field]


def integer(place: str, field: str, value: Any, low: int = 0, high: int | None = None) -> int:
    """A whole number from low to below high."""
    if (
        not isinstance(value, int)
        or isinstance(value, bool)
        or value < low
        or (high is not None and value >= high)
    ):
        bound = (
            f"a whole number of at least {low}"
            if high is None
            else f"a whole number from {low} to {high - 1}"
        )
        raise refuse(place, field, value, bound)
    return value


def features(place: str, field: str, values: Any, sizes: dict[str, int]) -> dict[str, int]:
    """Categorical features, each known and below its size."""
    if not isinstance(values, dict):
        raise refuse(place, field, values, "an object")
    for name, value in values.items():
        if name not in sizes:
            raise refuse(place, field, name, f"one of {sorted(sizes)}")
        integer(place, f"{field}.{name}", value, 0, sizes[name])
    return values
