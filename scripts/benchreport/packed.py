"""Programs on their way to a GPU machine, compressed: what may be carried there is limited."""

import lzma
import shutil
from pathlib import Path

SUFFIX = ".xz"


def pack(program: Path) -> None:
    """Puts `program.xz` in the place of a program."""
    with program.open("rb") as plain, lzma.open(f"{program}{SUFFIX}", "wb") as packed:
        shutil.copyfileobj(plain, packed)
    program.unlink()


def unpack(folder: Path) -> None:
    """Puts the programs of a folder beside what they are packed in, unless they are there already."""
    for packed in sorted(folder.glob(f"*{SUFFIX}")):
        program = packed.with_suffix("")
        if program.exists():
            continue
        # Only a whole program gets its name.
        part = program.with_suffix(".part")
        with lzma.open(packed) as source, part.open("wb") as plain:
            shutil.copyfileobj(source, plain)
        part.chmod(0o755)
        part.rename(program)
