"""The answer of a whole run in a few sentences: what a report prints at its end, and what the README shows."""

from pathlib import Path

from IPython.display import Markdown

from archsae_study.engine.typed import from_json
from archsae_study.experiments import stability
from archsae_study.experiments.stability import StabilityResult
from archsae_study.formatting import markdown
from archsae_study.pages.stability import advice_table, beside, decisions_table, limit
from archsae_study.pages.style import TEMPLATES
from archsae_study.report import read_result


def read(folder: Path) -> StabilityResult:
    """The comparison of arms in a run's folder, or in the project's."""
    return from_json(read_result(folder / "results" / stability.TABLE.file_name)["table"], StabilityResult)


def sentences(folder: Path) -> str:
    """What the rule says of the three primary contrasts, and the limits of the run, as Markdown."""
    return of_result(read(folder))


def of_result(result: StabilityResult) -> str:
    """The same of a comparison of arms."""
    return TEMPLATES.get_template("answer.md").render(beside=beside(result), limit=limit(result)).strip()


def shown(result: StabilityResult) -> Markdown:
    """The same as a notebook shows it."""
    return Markdown(of_result(result))


def answer(folder: Path) -> str:
    """The sentences, the contrasts behind them, and what each choice buys and costs, as Markdown."""
    result = read(folder)
    return "\n\n".join([sentences(folder), markdown(decisions_table(result)), markdown(advice_table(result))])


def choices(folder: Path) -> str:
    """What each start and dictionary buys and costs, as Markdown."""
    return markdown(advice_table(read(folder)))
