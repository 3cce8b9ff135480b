"""The generated parts of README.md: the answer from results/, the parameters from `Config`."""

import ast
import inspect
import itertools
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from archsae_core import config as config_module
from archsae_core import control_prose, prose, sweep_prose
from archsae_core.config import FIELDS, PRESETS, configure
from archsae_core.formatting import cell, markdown_table
from archsae_core.report import read_result
from archsae_core.source import PROJECT
from archsae_core.store import read_json, write_atomically


def field_docs() -> dict[str, str]:
    """The one-line docstring under each field of `Config`."""
    tree = ast.parse(inspect.getsource(config_module))
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Config").body
    pairs = itertools.pairwise(body)
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairs
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }


def parameter_table() -> str:
    """Every parameter: what it means and its value in each preset."""
    presets = {name: configure({"preset": name}) for name in PRESETS}
    rows = []
    for name, text in field_docs().items():
        values = (f"`{_short(getattr(config, name))}`" for config in presets.values())
        rows.append((f"`{name}`", text.replace("|", r"\|"), *values))
    return markdown_table(("parameter", "meaning", *presets), rows)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        names = any(isinstance(item, str) for item in value)
        return f"{len(value)} of them" if names else ", ".join(map(_short, value))
    return str(value)


def answer(folder: Path) -> str:
    """The run's answer as Markdown, from its results: every arm, what is recovered of the CE loss, both verdicts."""
    names = ("eval_results", "stability_results", "longer", "probing")
    tables = (read_result(folder / "results" / f"{name}.json")["table"] for name in names)
    evaluation, stability, longer, probing = tables
    recovered = (f"{name} {cell(sae['behaviour']['recovered_mean'])}" for name, sae in evaluation["saes"].items())
    parts = [prose.stability_table(stability), f"CE loss recovered: {', '.join(recovered)}."]
    verdicts = [prose.stability(stability), sweep_prose.equal_r2(stability), sweep_prose.decomposition_table(stability)]
    verdicts += [sweep_prose.trend(stability), sweep_prose.longer_gain(longer)]
    verdicts += [sweep_prose.by_metric(stability), control_prose.probing(probing)]
    return "\n\n".join(filter(None, [*parts, *verdicts]))


def generated() -> dict[str, str]:
    """Content of each pair of markers `<!-- name:start -->` … `<!-- name:end -->`."""
    missing = set(FIELDS) - set(field_docs())
    if missing:
        raise RuntimeError(f"fields without a docstring: {', '.join(sorted(missing))}")
    return {"answer": answer(PROJECT), "speed": speed(), "parameters": parameter_table()}


def speed(found: Mapping[str, Any] | None = None) -> str:
    """How training steps compare with other packages', in `found` or the last `make bench`."""
    found = found or read_json(PROJECT / "benchmarks" / "results.json")["steps"]
    names = {"topk": "TopK", "ra": "RA-SAE, mirror step", "ra-published": "RA-SAE, published step"}
    names |= {f"{case}-bf16": f"{names[case]}, gradient of W in bfloat16" for case in ("ra", "ra-published")}
    others = {"topk-bf16": "TopK, bf16 autocast", "ra": "RA-SAE"}
    lines = ["| training step | ms | this package is times as fast |", "|---|---|---|"]
    for case, ratios in found["ratios"].items():
        lines.append(f"| **{names.get(case, case)}** | **{median(found['ms'][f'ours {case}']):.0f}** | |")
        for other, ratio in ratios.items():
            package, step = other.split()
            spread = f"{ratio['median']:.1f} [{ratio['min']:.1f}, {ratio['max']:.1f}]"
            step = others.get(step, names.get(step, step))
            lines.append(f"| {found['versions'][package]}, {step} | {median(found['ms'][other]):.0f} | {spread} |")
    return "\n".join(lines)


def rewrite(text: str, parts: Mapping[str, str] | None = None, where: str = "README.md") -> str:
    """`text` with each generated part renewed: README.md's, or `parts`. Raises RuntimeError for a missing marker."""
    for name, content in (generated() if parts is None else parts).items():
        start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
        if text.count(start) != 1 or text.count(end) != 1:
            raise RuntimeError(f"{where} needs {start} and {end} once each")
        before, rest = text.split(start)
        text = f"{before}{start}\n{content}\n{end}{rest.split(end)[1]}"
    return text


def main(*, check: bool, path: Path = PROJECT / "README.md") -> int:
    """Rewrite README.md, or with `check` return 1 where it is out of date."""
    old = path.read_text(encoding="utf-8")
    new = rewrite(old)
    if check and new != old:
        sys.stderr.write("README.md is out of date: run `make readme`\n")
        return 1
    if not check:
        write_atomically(path, lambda temporary: temporary.write_text(new, encoding="utf-8"))
    return 0
