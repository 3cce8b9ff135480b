"""The answer of a whole run in a few sentences: what a report prints at its end, and what the README shows."""

from pathlib import Path
from typing import Any

from IPython.display import Markdown

from archsae_study.engine.typed import from_json
from archsae_study.experiments import (
    anchor_alignment,
    controls,
    dictionaries,
    generality,
    raw_full_sizes,
    stability,
    task_probes,
)
from archsae_study.experiments.anchor_alignment import AlignmentResult
from archsae_study.experiments.controls import ControlsResult
from archsae_study.experiments.dictionaries import BindingResult
from archsae_study.experiments.generality import GeneralityResult
from archsae_study.experiments.stability import StabilityResult
from archsae_study.experiments.task_probes import TaskProbesResult
from archsae_study.formatting import markdown
from archsae_study.pages.stability import advice_table, beside, decisions_table, limit
from archsae_study.pages.style import TEMPLATES
from archsae_study.report import read_result

TABLES = (
    stability.TABLE,
    generality.TABLE,
    raw_full_sizes.TABLE,
    dictionaries.BINDING,
    anchor_alignment.TABLE,
    controls.TABLE,
    task_probes.TABLE,
)
"""What the answer is made of."""


def read(folder: Path) -> tuple[Any, ...]:
    """The tables of a run's folder, or of the project's, in the order of `TABLES`."""
    found = (
        from_json(read_result(folder / "results" / table.file_name, table.name)["table"], table.result)
        for table in TABLES
    )
    return tuple(found)


def sentences(folder: Path) -> str:
    """What the rules say of the three primary contrasts, and the limits of the run, as Markdown."""
    return of_results(*read(folder))


def of_results(
    result: StabilityResult,
    others: GeneralityResult,
    raw_sizes: GeneralityResult,
    binding: BindingResult,
    alignment: AlignmentResult,
    checked: ControlsResult,
    probes: TaskProbesResult,
) -> str:
    """The same of the tables behind it, in the order of `TABLES`."""
    limits = limit(result, others.beside(raw_sizes), binding, alignment, checked)
    values = dict(beside=beside(result), limit=limits, probes=len(probes.tasks), made_up=probes.made_up)
    read = probes.decisions() if probes.of(task_probes.RAW) else []
    return TEMPLATES.get_template("answer.md").render(read=read, size=task_probes.HEADLINE_SIZE, **values).strip()


def shown(*tables: Any) -> Markdown:
    """The same as a notebook shows it."""
    return Markdown(of_results(*tables))


def answer(folder: Path) -> str:
    """The sentences, the contrasts behind them, and what each choice buys and costs, as Markdown."""
    result, *_ = read(folder)
    return "\n\n".join([sentences(folder), markdown(decisions_table(result)), markdown(advice_table(result))])


def choices(folder: Path) -> str:
    """What each start and dictionary buys and costs, as Markdown."""
    return markdown(advice_table(read(folder)[0]))
