"""Values of a configuration against the types of the dataclass that they fill, which Python itself does not check."""

from __future__ import annotations

import types
import typing
from typing import Any

NAMES = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a text", "texts"),
    bool: ("true or false", "truths"),
}


def check(kind: type, values: dict[str, Any], where: str) -> None:
    """Refuses the first value that is not of its field's type; keys that are no fields are passed over."""
    hints = typing.get_type_hints(kind)
    for name, value in values.items():
        if name in hints and not fits(hints[name], value):
            raise ValueError(f"{where}: `{name}` is {value!r}, expected {told(hints[name])}")


def fits(hint: Any, value: Any) -> bool:
    """Whether a value is of a type. A whole number is a number too, but true and false are neither."""
    parts = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        return any(fits(part, value) for part in parts)
    if typing.get_origin(hint) is list:
        return isinstance(value, list) and all(fits(parts[0], part) for part in value)
    if typing.get_origin(hint) is dict:
        return isinstance(value, dict) and all(fits(parts[1], part) for part in value.values())
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return hint is Any or isinstance(value, hint)


def told(hint: Any) -> str:
    """A type in words."""
    parts = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        return " or ".join(told(part) for part in parts if part is not types.NoneType)
    if typing.get_origin(hint) is list:
        return f"a list of {NAMES[parts[0]][1]}"
    if typing.get_origin(hint) is dict:
        return "a table" if parts[1] is Any else f"a table of {NAMES[parts[1]][1]}"
    return NAMES[hint][0]
