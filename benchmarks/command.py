"""What every timing benchmark takes on its command line, and how it writes its figures. Standard library only."""

import argparse
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path


def parser(description: str | None, runs: int = 5) -> argparse.ArgumentParser:
    """`--json`, `--runs` and `--quick`."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", type=Path, help="write the figures there")
    made.add_argument("--runs", type=int, help=f"paired runs, after one that warms up; default: {runs}")
    made.add_argument(
        "--quick", action="store_true", help="a first figure within 3 minutes, to see where one stands: not to quote"
    )
    made.set_defaults(default_runs=runs)
    return made


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line, with `runs`: what was asked for, or 1 with `--quick`, or the benchmark's own number."""
    arguments = parser.parse_args()
    if arguments.runs is None:
        arguments.runs = 1 if arguments.quick else arguments.default_runs
    return arguments


def write_json(path: Path | None, figures: Mapping[str, object]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=2) + "\n")


def machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}"
