"""Command line of the benchmarks that time a part of a study: its language model on its text."""

import argparse
import json
from collections.abc import Callable, Mapping
from typing import Any

from archsae_study.engine.study import Study
from archsae_study.settings.config import configure
from benchmarks import results
from benchmarks.machine import about, check_device


def main(section: str, description: str, run: Callable[[Study, int], Mapping[str, Any]], tokens: int) -> None:
    """Run `run(study, tokens)`, print what it found, and keep it in results.json unless it is a smoke run."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{section}", description=description.splitlines()[0])
    parser.add_argument("--preset", default="full")
    parser.add_argument("--tokens", type=int, default=tokens)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--smoke", action="store_true", help="the random model, to try the harness")
    arguments = parser.parse_args()
    check_device(arguments.device)
    preset = "smoke" if arguments.smoke else arguments.preset
    study = Study(configure({"preset": preset, "device": arguments.device}))
    found = run(study, 1000 if arguments.smoke else arguments.tokens)
    print(json.dumps(found, indent=1))
    if not arguments.smoke:
        results.save(f"{section}, {arguments.device}", {"machine": about(arguments.device)} | found)
