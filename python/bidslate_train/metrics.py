"""Metrics of a phase as a CSV file that a resumed run goes on with."""

from __future__ import annotations

import csv
import os
from pathlib import Path


class Metrics:
    """Rows of numbers by step; the first row decides the columns."""

    def __init__(self, path: Path, resume_at: int = 0) -> None:
        """Keeps what the file holds of steps up to `resume_at` and drops the rest."""
        self.path = path
        rows = _rows(path) if resume_at else []
        kept = [row for row in rows if int(row["step"]) <= resume_at]
        path.parent.mkdir(parents=True, exist_ok=True)
        self.columns: list[str] = list(kept[0]) if kept else []
        part = path.with_name(path.name + ".part")
        with open(part, "w", newline="") as file:
            if kept:
                writer = csv.DictWriter(file, self.columns, lineterminator="\n")
                writer.writeheader()
                writer.writerows(kept)
        os.replace(part, path)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Adds the row of a step."""
        row = {"step": step, **{name: f"{value:.6g}" for name, value in values.items()}}
        with open(self.path, "a", newline="") as file:
            if not self.columns:
                self.columns = list(row)
                file.write(",".join(self.columns) + "\n")
            csv.DictWriter(file, self.columns, lineterminator="\n").writerow(row)


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
