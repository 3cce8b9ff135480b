"""The answer of a whole run, as Markdown: what a report prints at its end."""

from pathlib import Path

from archsae_study.pages import control_prose, prose, sweep_prose
from archsae_study.pages.formatting import cell
from archsae_study.report import read_result


def answer(folder: Path) -> str:
    """The run's answer from its results: every arm, what is recovered of the CE loss, both verdicts."""
    names = ("eval_results", "stability_results", "longer", "probing")
    tables = (read_result(folder / "results" / f"{name}.json")["table"] for name in names)
    evaluation, stability, longer, probing = tables
    recovered = (f"{name} {cell(sae['behaviour']['recovered_mean'])}" for name, sae in evaluation["saes"].items())
    parts = [prose.stability_table(stability), f"CE loss recovered: {', '.join(recovered)}."]
    verdicts = [prose.stability(stability), sweep_prose.equal_r2(stability), sweep_prose.decomposition_table(stability)]
    verdicts += [sweep_prose.trend(stability), sweep_prose.longer_gain(longer)]
    verdicts += [sweep_prose.by_metric(stability), control_prose.probing(probing)]
    return "\n\n".join(filter(None, [*parts, *verdicts]))
