"""What nvidia-smi tells of a GPU while something runs on it."""

import subprocess
import tempfile
from types import TracebackType
from typing import Self

COLUMNS = (
    "clocks.current.sm",
    "clocks.current.memory",
    "temperature.gpu",
    "power.draw",
    "clocks_event_reasons.active",
)
EVERY_MS = 500


class Clocks:
    """The clocks of the first GPU while a block runs: `lines` as printed, of which the first names the columns."""

    lines: list[str]

    def __enter__(self) -> Self:
        self.file = tempfile.TemporaryFile("w+")
        query = [f"--query-gpu={','.join(COLUMNS)}", "--format=csv", f"--loop-ms={EVERY_MS}"]
        command = ["nvidia-smi", "--id=0", *query]
        self.process = subprocess.Popen(command, stdout=self.file, stderr=subprocess.STDOUT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        self.process.wait()
        self.file.seek(0)
        self.lines = self.file.read().splitlines()
        self.file.close()
