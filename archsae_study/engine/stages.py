"""The stages that take hours, with the version of the code that makes them.

The version is part of a result's key. `python -m archsae_study.engine.stages` records the code as it is now in
stages.json, and a test compares: after a change of that code, either raise the stage's version, which makes everything
again that rests on it, or keep it, where every bit of the result is the same; record in both cases.
"""

import json
from pathlib import Path
from typing import NamedTuple

from archsae_study.engine.code import item_hash

RECORD = Path(__file__).with_name("stages.json")


class Stage(NamedTuple):
    """One kind of expensive result."""

    name: str
    """Folder in the store."""
    version: int
    """Raised whenever the code changes what a result holds, so that an older one is not taken for it."""
    code: tuple[str, ...]
    """Modules, or `module:name` of functions, classes and methods, that determine a result."""


ACTIVATIONS = Stage("activations", 2, (
    "archsae_core.data.copies",
    "archsae_core.data.corpus",
    "archsae_core.data.sae_probes",
    "archsae_core.data.text_files",
    "archsae_core.data.tokens",
    "archsae_core.data.language_model",
    "archsae_core.data.random_model",
    "archsae_core.data.extraction",
))  # fmt: skip
PROMPTS = Stage("prompts", 1, (
    "archsae_core.data.copies",
    "archsae_core.data.extraction",
    "archsae_core.data.language_model",
    "archsae_core.data.last_tokens",
    "archsae_core.data.probe_tasks",
    "archsae_core.data.random_model",
    "archsae_core.data.sae_probes",
    "archsae_core.data.tokens",
))  # fmt: skip
NORMALIZER = Stage("normalizer", 2, ("archsae_core.data.activations",))
ANCHORS = Stage("anchors", 3, (
    "archsae_core.models.anchors",
    "archsae_study.engine.study:Study.fit_anchors",
    "archsae_study.engine.study:Study._anchor_rows",
    "archsae_study.engine.study:Study._normalized",
))  # fmt: skip
RUNS = Stage("runs", 5, (
    "archsae_core.kernels.sparse",
    "archsae_core.kernels.batch_topk",
    "archsae_core.kernels.topk",
    "archsae_core.models.auxk",
    "archsae_core.models.dictionary",
    "archsae_core.models.sae",
    "archsae_core.models.snapshots:snapshot_steps",
    "archsae_core.models.snapshots:snapshot_file",
    "archsae_core.models.snapshots:write_snapshot",
    "archsae_core.models.training",
    "archsae_core.models.w_step",
    "archsae_study.engine.study:Study.untrained",
))  # fmt: skip
STAGES = (ACTIVATIONS, PROMPTS, NORMALIZER, ANCHORS, RUNS)

COVERED = frozenset(item for stage in STAGES for item in stage.code if ":" not in item)
"""Modules whose changes reach tables and scores through a version."""


def code_now() -> dict[str, dict[str, object]]:
    """Version and hash of the code of every stage, as stages.json holds them."""
    return {
        stage.name: {"version": stage.version, "code": {item: item_hash(item) for item in stage.code}}
        for stage in STAGES
    }


def changed() -> list[str]:
    """What differs from the record, one sentence a stage; empty where nothing does."""
    recorded, now, found = json.loads(RECORD.read_text(encoding="utf-8")), code_now(), []
    for name, stage in now.items():
        before = recorded.get(name, {"version": None, "code": {}})
        items = [
            item for item in {**before["code"], **stage["code"]} if before["code"].get(item) != stage["code"].get(item)
        ]
        if items and before["version"] == stage["version"]:
            advice = f"raise the version of {name} in stages.py, or keep it where every bit is the same"
            found.append(
                f"{', '.join(items)} changed: {advice}; then run `python -m archsae_study.engine.stages` to record it"
            )
        elif before != stage:
            found.append(f"{name} is not recorded: run `python -m archsae_study.engine.stages`")
    return found


def main() -> None:
    """Record the code as it is now."""
    RECORD.write_text(json.dumps(code_now(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
