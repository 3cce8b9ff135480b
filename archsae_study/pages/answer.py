"""The answer of a whole run in a few sentences: what a report prints at its end, and what the README shows."""

from pathlib import Path
from typing import Any

from archsae_study.engine.typed import from_json
from archsae_study.experiments import stability
from archsae_study.experiments.stability import StabilityResult
from archsae_study.formatting import markdown
from archsae_study.pages.stability import advice_table, decisions_table
from archsae_study.pages.style import TEMPLATES
from archsae_study.report import read_result


def read(folder: Path) -> tuple[StabilityResult, dict[str, Any]]:
    """The comparison of arms in a run's folder, or in the project's, and the parameters it was made with."""
    content = read_result(folder / "results" / stability.TABLE.file_name)
    return from_json(content["table"], StabilityResult), content["manifest"]["config"]


def sentences(folder: Path) -> str:
    """What the rule says of the three primary contrasts, as Markdown."""
    result, config = read(folder)
    decisions = {one.contrast.key: one for one in result.decisions()}
    return TEMPLATES.get_template("answer.md").render(decisions=decisions, config=config).strip()


def answer(folder: Path) -> str:
    """The sentences, the contrasts behind them, and what each choice buys and costs, as Markdown."""
    result, _ = read(folder)
    return "\n\n".join([sentences(folder), markdown(decisions_table(result)), markdown(advice_table(result))])


def choices(folder: Path) -> str:
    """What each start and dictionary buys and costs, as Markdown."""
    return markdown(advice_table(read(folder)[0]))
