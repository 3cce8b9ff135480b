"""Tables and sentences of what runs are compared by: ways to move W, budgets of tokens, other scores."""

from collections.abc import Mapping
from typing import Any

from archsae_study.arms import ARMS
from archsae_study.experiments import verdict
from archsae_study.pages.formatting import interval, markdown_table

Table = Mapping[str, Any]


def w_steps(table: Table) -> str:
    """Which way to move W was chosen, what it gains over the published one, and whether rounding matters."""
    rows = {row["name"]: row for row in table["rows"]}
    best, published = rows[table["best"]], rows["Adam, as published"]
    rounded = rows["mirror, 0.003, smoothing 0.9"]
    exact, free = rows["mirror, 0.003, smoothing 0.9, float32"], rows["no constraint"]
    return (
        f"**Best on the validation documents: {table['best']}** (R² {best['r2']:.3f} after {table['steps']:,} steps); "
        f"as published, {published['r2']:.3f}; without the constraint, from the same start, {free['r2']:.3f}.  \n"
        f"In float32 instead of bfloat16, the gradient of W changes R² by {exact['r2'] - rounded['r2']:+.4f}, dead "
        f"features by {exact['dead_share'] - rounded['dead_share']:+.2%} and the raw stability of two seeds by "
        f"{exact['stability'] - rounded['stability']:+.4f}."
    )


def w_steps_table(table: Table) -> str:
    """One row a variant, best validation R² first."""
    rows = []
    for row in sorted(table["rows"], key=lambda row: -row["r2"]):
        bound = None if row["relax_at_bound"] is None else f"{row['relax_at_bound']:.0%}"
        anchors = None if row["effective_anchors"] is None else f"{row['effective_anchors']:.0f}"
        name = f"**{row['name']}**" if row["name"] == table["best"] else row["name"]
        numbers = [row["r2"], row["r2_heldout"], f"{row['dead_share']:.1%}", row["cosine_with_start"], anchors, bound]
        rows.append([name, *numbers])
    header = [
        "how W moves",
        "R² validation",
        "R² held out",
        "dead",
        "cosine with start",
        "effective anchors",
        "Λ at bound",
    ]
    return markdown_table(header, rows)


def budgets_table(table: Table) -> str:
    """R² and stability of every arm at each budget of tokens."""
    arms = table["arms"]
    steps = [row["tokens"] for row in next(iter(arms.values()))["budgets"]]
    rows = [
        [arm["label"], *(f"{row['r2']:.3f} · {row['stability']['estimate']:+z.3f}" for row in arm["budgets"])]
        for arm in arms.values()
    ]
    return markdown_table(["arm: R² · stability", *(f"{tokens:,} tokens" for tokens in steps)], rows)


def rule_by_budget_table(table: Table) -> str:
    """What the fixed rule would conclude after each budget of tokens."""
    rows = [
        [
            f"{row['tokens']:,}",
            interval(row["published_gain"]),
            interval(row["independent_gain"]),
            _arms(row),
            row["verdict"],
        ]
        for row in verdict.by_budget(table["arms"])
    ]
    return markdown_table(["tokens", "ra − topk", "independent gain", "of the arms", "the rule would say"], rows)


def trend(table: Table) -> str:
    """How the independent gain changes along training."""
    found = [row for row in verdict.by_budget(table["arms"]) if row["independent_gain"]]
    if len(found) < 2:
        return "Independent arms reach equal R² at fewer than two budgets of tokens."
    steps = [f"{interval(row['independent_gain'])} after {row['tokens'] / 1e6:.1f} M tokens" for row in found]
    return f"Along training (models as kept, rounded to bfloat16), the independent gain is {', '.join(steps)}."


def longer(table: Table) -> str:
    """What runs longer than the report's gain, and the tables behind it."""
    if not table["arms"]:
        return "No run was trained for longer (`longer_factor` is 1)."
    return "\n\n".join([longer_gain(table), budgets_table(table), equal_r2_table(table)])


def longer_gain(table: Table) -> str:
    """How much RA-SAE gains over TopK, both independent, in the longer runs; nothing where there are none."""
    if not table["arms"]:
        return ""
    ra, topk = (row["label"] for row in table["arms"].values())
    *_, last = verdict.gain_by_budget(table["arms"])
    return f"**After {last['tokens']:,} tokens, {ra} gains {interval(last['gain'])} over {topk}.**"


def _arms(row: Mapping[str, Any]) -> str | None:
    return " − ".join(row["pair"]) if row["pair"] else None


def equal_r2_table(table: Table) -> str:
    """Independently started arms at the largest R² that both reach."""
    rows = []
    for row in table["equal_r2"]:
        ra, topk = (ARMS[row[name]].label for name in ("ra", "topk"))
        scores = [None, None, None] if row["gain"] is None else map(interval, [*row["stability"], row["gain"]])
        rows.append([ra, topk, row["r2"], *scores])
    return markdown_table(["RA-SAE", "TopK", "at R²", "stability RA-SAE", "stability TopK", "gain"], rows)


def equal_r2(table: Table) -> str:
    """The independent gain of the verdict's arms where they reconstruct equally well."""
    pair = table["verdict"]["pair"]
    rows = [row for row in table["equal_r2"] if pair and [row["ra"], row["topk"]] == list(pair) and row["gain"]]
    if not rows:
        return "The arms of the verdict meet at no common R²."
    (row,) = rows
    where = f"(R² {row['r2']:.3f}, which the better one has earlier in its training)"
    return f"Where these two reconstruct equally well {where}, the independent gain is {interval(row['gain'])}."


def robustness_table(table: Table) -> str:
    """R² and stability of the arms in every setting, and what the rule says there."""
    settings = table["settings"]
    rows = [
        [row["setting"], ARMS[arm].label, found["r2"], interval(found["stability"])]
        for row in settings
        for arm, found in row["arms"].items()
    ]
    return markdown_table(["setting", "arm", "R²", "stability"], rows)


def robustness(table: Table) -> str:
    """Whether the verdict is that of one layer and one k."""
    rows = []
    for row in table["settings"]:
        gains = [interval(row["verdict"][name]) for name in ("published_gain", "independent_gain")]
        rows.append([row["setting"], *gains, row["verdict"]["verdict"]])
    found = {row["verdict"]["verdict"] for row in table["settings"]}
    answer = f"the verdict is the same, *{found.pop()}*" if len(found) == 1 else "the verdict depends on the setting"
    lines = [f"**After {table['step']:,} steps {answer} in {len(rows)} settings.**", ""]
    return "\n".join([*lines, markdown_table(["setting", "ra − topk", "independent gain", "the rule says"], rows)])


def by_metric_table(table: Table) -> str:
    """What the fixed rule would conclude from every score."""
    rows = [
        [row["metric"], row["kind"], interval(row["published_gain"]), interval(row["independent_gain"]), row["verdict"]]
        for row in table["by_metric"]
    ]
    return markdown_table(["score", "", "ra − topk", "independent gain", "the rule would say"], rows)


def by_metric(table: Table) -> str:
    """Which scores, less chance, lead to the headline's conclusion."""
    by_verdict: dict[str, list[str]] = {}
    for row in table["by_metric"]:
        if row["kind"] == "normalised":
            by_verdict.setdefault(row["verdict"], []).append(row["metric"])
    same = by_verdict.pop(table["verdict"]["verdict"], [])
    n = len(same) + sum(map(len, by_verdict.values()))
    others = "".join(f"; *{verdict}* from {', '.join(names)}" for verdict, names in by_verdict.items())
    listed = f" ({', '.join(same)})" if others else ""
    return f"**{len(same)} of {n} scores lead to the headline's conclusion**{listed}{others}."


def decomposition_table(table: Table) -> str:
    """Where the published gain comes from, one change at a time."""
    rows = [
        [step.what, ARMS[step.before].label, ARMS[step.after].label, interval(step.gain._asdict()), step.seeds]
        for step in verdict.decomposition(table["arms"], table["headline"])
    ]
    return markdown_table(["what changes", "from", "to", "gain in stability", "seeds"], rows)
