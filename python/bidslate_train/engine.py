"""Calls of the commands `bidslate` and `lab`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def command(name: str) -> str:
    """The path of a command: the environment variable of its name in capitals, or the release build."""
    found = os.environ.get(name.upper()) or str(REPOSITORY / "target" / "release" / name)
    if not Path(found).exists():
        raise FileNotFoundError(f"{found}: no such command; `cargo build --release`, or set {name.upper()}")
    return found


def call(name: str, *arguments: object, check: bool = True) -> str:
    """Runs `name arguments...` and returns what it prints; what it says on stderr passes through."""
    line = [command(name), *map(str, arguments)]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"exit code {done.returncode} of: {' '.join(line)}\n{done.stdout[-2000:]}")
    return done.stdout


def bidslate(*arguments: object, check: bool = True) -> str:
    """Runs the engine's command."""
    return call("bidslate", *arguments, check=check)


def lab(*arguments: object, check: bool = True) -> str:
    """Runs the lab's command."""
    return call("lab", *arguments, check=check)
