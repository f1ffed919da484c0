"""The command: `python -m bidslate_train all --data nyc` trains the model of `python/configs/nyc.toml`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from bidslate_train import alignment, beauty, experiment
from bidslate_train import run as steps
from bidslate_train.end_to_end import EndSettings
from bidslate_train.engine import REPOSITORY
from bidslate_train.lines import Refused
from bidslate_train.payment import PaymentSettings
from bidslate_train.policy import PolicySettings
from bidslate_train.pretrain import PretrainSettings
from bidslate_train.reward import RewardSettings
from bidslate_train.run import Run
from bidslate_train.settings import Settings
from bidslate_train.tokens import TokenSettings

STEPS = {
    "data": steps.import_data,
    "tokens": steps.make_tokens,
    "pretrain": steps.pretrain,
    "logs": steps.log_feedback,
    "reward": alignment.reward,
    "policy": alignment.policy,
    "payment": alignment.payment,
    "export": steps.export_model,
}
"""The steps of `all`, in their order. Each is a command of its own, too."""
COMMANDS = {**STEPS, "report": experiment.report}
TABLES = {
    "import": steps.ImportSettings,
    "tokens": TokenSettings,
    "pretrain": PretrainSettings,
    "world": steps.WorldSettings,
    "reward": RewardSettings,
    "policy": PolicySettings,
    "payment": PaymentSettings,
    "end": EndSettings,
    "report": experiment.ReportSettings,
    "beauty": beauty.BeautySettings,
}
"""The tables of a configuration, beside the model's sizes, and what reads them."""

FAULTS = (
    Refused,
    ValueError,
    FloatingPointError,
    OSError,
    RuntimeError,
    subprocess.CalledProcessError,
)
"""What a user can bring about, and is told in one line."""


def main(arguments: list[str] | None = None) -> int:
    """Runs one step or all of them; what is there already is not done again."""
    parser = argparse.ArgumentParser(
        prog="bidslate_train", description="Trains the models that Bidslate serves"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("all", *STEPS, "report"):
        about = "all steps" if name == "all" else (COMMANDS[name].__doc__ or "").splitlines()[0]
        command = commands.add_parser(name, help=about)
        command.add_argument("--data", required=True, metavar="NAME|FILE", help="a configuration, e.g. nyc")
        command.add_argument(
            "--out", type=Path, metavar="DIR", help="the run's directory (default: runs/NAME)"
        )
        command.add_argument("--csv", type=Path, metavar="FILE", help="the check-ins (default: fetched)")
    command = commands.add_parser("beauty", help="the backbone by TIGER's protocol on Amazon Beauty")
    command.add_argument(
        "--data", required=True, type=Path, metavar="DIR", help="inter.json and semantic ids"
    )
    command.add_argument("--config", default="beauty", metavar="NAME|FILE", help="the configuration")
    command.add_argument("--out", type=Path, default=REPOSITORY / "runs" / "beauty", metavar="DIR")
    given = parser.parse_args(arguments)
    try:
        if given.command == "beauty":
            settings = Settings.read(given.config)
            settings.check(TABLES)
            beauty.train(settings, given.data, given.out)
            return 0
        settings = Settings.read(given.data)
        # A phase runs for minutes before the next one reads its table.
        settings.check(TABLES)
        run = Run.open(settings, given.out or REPOSITORY / "runs" / settings.path.stem, given.csv)
        if given.command == "report":
            experiment.report(run)
            return 0
        for name in STEPS if given.command == "all" else [given.command]:
            run.perform(name, STEPS[name])
    except FAULTS as error:
        print(f"bidslate_train: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
