"""results.json: one section a benchmark, each replaced as a whole by the run that measured it."""

from pathlib import Path
from typing import Any

from archsae_core.storage import read_json, write_json

PATH = Path(__file__).with_name("results.json")


def load() -> dict[str, Any]:
    return read_json(PATH) if PATH.exists() else {}


def save(section: str, value: Any) -> None:
    write_json(PATH, load() | {section: value})
