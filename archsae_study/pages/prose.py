"""Sentences of the report that hold numbers, computed from the tables so that they cannot go stale."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from archsae_study.arms import ARMS
from archsae_study.config import Config
from archsae_study.pages.formatting import cell, interval, markdown_table

Table = Mapping[str, Any]


def setting(config: Config) -> str:
    """One line on what was studied."""
    return (
        f"*{config.language_model.model}, residual stream after block {config.language_model.layer} (counted from 0), {config.corpus.text}; "
        f"{config.dictionary.n_features} features, k = {config.dictionary.k}, {config.anchors.n_anchors} anchors, δ = {config.dictionary.delta:g}, "
        f"lr {config.training.lr:g}, {config.training.steps} steps of {config.training.batch_size} tokens.*"
    )


def anchors(activations: Table, table: Table) -> str:
    """Answer of notebook 01."""
    train, (same, *other) = activations["train"], [found["normalised"] for found in table["refit"].values()]
    elsewhere = "".join(f", on other documents to {score:.2f}" for score in other)
    return (
        f"**Yes, once they are cleaned and centred.** Position 0 has norm {train['position0_norm']:,.0f} against a "
        f"median of {train['median_norm']:,.0f}, and the common mean is {train['gamma']:.2f} times the spread (γ).  \n"
        f"{table['n_anchors']:,} centroids leave {table['unexplained']:.0%} of the variance; {table['empty']} are "
        f"empty and {table['duplicates']} coincide.  \n"
        f"Fitted again from another start on the same documents, anchors agree to {same:.2f} on a scale from chance "
        f"(0) to identity (1){elsewhere}: *whose* centroids they are matters."
    )


def dictionary(table: Table, config: Config) -> str:
    """Answer of notebooks 02 and 03."""
    quality, cosine = table["quality"], table["cosine_with_start"][str(config.training.steps)]
    low, high = quality["intervals"]["r2"] or (quality["r2"], quality["r2"])
    lines = [
        f"**R² = {quality['r2']:.3f}** [{low:.3f}, {high:.3f}] on {quality['n_tokens']:,} held-out tokens, "
        f"L0 = {quality['l0']:.1f}, {quality['dead_share']:.1%} of the features dead.",
        f"After {config.training.steps} steps the atoms have a mean cosine of {cosine:.2f} with where they started.",
    ]
    if table["arm"] == "ra":
        last = table["log"][-1]
        lines.append(
            f"Λ is at its bound δ = {config.dictionary.delta:g} for {last['relax_at_bound']:.0%} of the atoms, which mix "
            f"{last['effective_anchors']:.0f} anchors each (median, exp of the entropy of W); the constraint is "
            f"violated by {quality['violation']:g}."
        )
    else:
        lines.append("This is the free baseline that every archetypal number is read against.")
    return "  \n".join(lines)


def hull(table: Table) -> str:
    """What the hull excludes."""
    if "reason" in table:
        return f"Not testable here: {table['reason']}."
    return (
        f"The free dictionary of notebook 02, written as W C with δ = 0: R² {table['r2_inside']:.3f} against "
        f"{table['r2_free']:.3f}, mean cosine of the atoms {table['cosine']:.4f}, constraint violated by "
        f"{table['violation']:g}. Its points of the hull have a median norm of {table['norm']:.3f}, where centroids "
        f"have {table['anchor_norm']:.1f}."
    )


def evaluation(table: Table) -> str:
    """Answer of notebook 04."""
    topk, same_start, ra = (table["saes"][arm] for arm in ("topk", "topk-kmeans", "ra"))
    gap = ra["quality"]["r2"] - same_start["quality"]["r2"]
    recovered = {arm: cell(sae["behaviour"]["recovered_mean"]) for arm, sae in table["saes"].items()}
    return (
        f"**Against a free dictionary from the same centroids, the constraint changes R² by {gap:+z.3f}** "
        f"({same_start['quality']['r2']:.3f} → {ra['quality']['r2']:.3f}); a random start reaches "
        f"{topk['quality']['r2']:.3f} in the same steps.  \n"
        f"Spliced into the language model, RA-SAE recovers {recovered['ra']} of the CE loss that mean ablation costs, "
        f"the free one from the same start {recovered['topk-kmeans']}.  \n"
        f"Dead features: {ra['quality']['dead_share']:.1%} against {same_start['quality']['dead_share']:.1%}."
    )


def evaluation_table(table: Table) -> str:
    """Scores of both dictionaries with intervals over documents."""
    names = {"r2": "R²", "mse_normalised": "MSE (normalised)", "l0": "L0", "cosine_centred": "cosine, centred",
             "dead_share": "dead", "dense_share": "dense (> 10 %)"}  # fmt: skip
    spliced = {"ce_increase": "CE increase (nats)", "kl": "KL (nats)", "recovered_mean": "CE recovered, mean ablation",
               "recovered_zero": "CE recovered, zero ablation"}  # fmt: skip
    rows = [
        [label, *(_scored(sae["quality"], name) for sae in table["saes"].values())] for name, label in names.items()
    ]
    rows += [
        [label, *(_scored(sae["behaviour"], name) for sae in table["saes"].values())] for name, label in spliced.items()
    ]
    return markdown_table(["score", *table["saes"]], rows)


def _scored(scores: Table, name: str) -> str:
    span = scores["intervals"].get(name)
    return cell(scores[name]) + (f" [{span[0]:.3f}, {span[1]:.3f}]" if span else "")


def stability(table: Table) -> str:
    """Answer of notebook 05: the verdict and the two gains behind it."""
    verdict = table["verdict"]
    lines = [f"**{verdict['verdict'].capitalize()}**: {verdict['reason']}."]
    if verdict["published_gain"]:
        gain = interval(verdict["published_gain"])
        lines.append(f"As published, with anchors and start shared, RA-SAE gains {gain} over TopK.")
    if verdict["independent_gain"]:
        ra, topk = (ARMS[name].label for name in verdict["pair"])
        lines.append(f"Started independently ({ra} against {topk}), it gains {interval(verdict['independent_gain'])}.")
    return "  \n".join(lines)


def stability_table(table: Table) -> str:
    """One row an arm: reconstruction, and stability at step 0 and at the end, raw, chance and normalised."""
    rows = []
    for arm in table["arms"].values():
        start, end = (arm[when]["scores"][table["headline"]] for when in ("start", "end"))
        row = [arm["label"], arm["r2"], f"{arm['dead_share']:.1%}", interval(start["normalised"]), interval(end["raw"])]
        rows.append([*row, end["chance"], interval(end["normalised"]), fmean(arm["cosine_with_start"])])
    header = ["arm", "R²", "dead", "step 0", "end, raw", "chance", "**end**", "cosine with own start"]
    return markdown_table(header, rows)


def stabilisation(table: Table) -> str:
    """How far training itself brings independent runs together: the change of every arm's stability since step 0."""
    rows = []
    for arm in table["arms"].values():
        start, end = (arm[when]["scores"][table["headline"]]["normalised"]["estimate"] for when in ("start", "end"))
        rows.append([arm["label"], start, end, f"{end - start:+z.3f}"])
    return markdown_table(["arm", "step 0", "end", "change"], rows)


def metrics_table(table: Table) -> str:
    """How the picture changes with the metric: every score of every arm at the end, chance-normalised."""
    names = list(next(iter(table["arms"].values()))["end"]["scores"])
    rows = []
    for name in names:
        scores = (arm["end"]["scores"].get(name) for arm in table["arms"].values())
        rows.append([name, *(f"{s['raw']['estimate']:.2f} ({s['normalised']['estimate']:.2f})" for s in scores)])
    return markdown_table(["score: raw (normalised)", *table["arms"]], rows)


def ablation(table: Table) -> str:
    """Answer of notebook 06."""
    rows = {row["delta"]: row for row in table["rows"]}
    best, flagged = table["best_delta"], [flag for row in table["rows"] for flag in row["flags"]]
    if best is None:
        return f"**No radius trained soundly**: {'; '.join(flagged)}."
    front = ", ".join(f"{delta:g}" for delta in table["pareto"])
    worst = min((delta for delta in rows if rows[delta]["r2"] is not None), key=lambda delta: rows[delta]["r2"])
    scores = [f"R² {rows[delta]['r2']:.3f}, stability {cell(rows[delta]['stability'])}" for delta in (best, worst)]
    edge = ", the largest tried" * (best == max(rows))
    return (
        f"**The best reconstruction is at δ = {best:g}**{edge} ({scores[0]}; {best / table['median_norm']:.0%} of the "
        f"median centroid norm), the worst at δ = {worst:g} ({scores[1]}).  \n"
        f"Radii that no other radius beats in both goals: {front or 'none'}. {_beaten(table)}Flagged runs: "
        f"{len(flagged)}."
    )


def _beaten(table: Table) -> str:
    """Which radii the free dictionaries beat in both goals."""
    said = ""
    for free in (row for row in table["references"] if ARMS[row["arm"]].dictionary == "free"):
        goals = [(row["delta"], row["r2"], row["stability"]) for row in table["rows"] if row["stability"] is not None]
        beaten = [f"{delta:g}" for delta, *both in goals if both[0] < free["r2"] and both[1] < (free["stability"] or 0)]
        said += f"*{free['label']}* beats {', '.join(beaten) or 'none'} in both. "
    return said


def ablation_table(table: Table) -> str:
    """One row a radius, then the reference dictionaries, with every flag."""
    rows = []
    for row in [*table["rows"], *table["references"]]:
        archetypal = row["arm"] == "ra"
        name = f"δ = {row['delta']:g} ({row['relative']:.1%})" if archetypal else row["label"]
        bound = f"{row['relax_at_bound']:.0%}" if archetypal and row["relax_at_bound"] is not None else None
        stability = interval(row["stability_interval"])
        numbers = [row["r2"], row["dead_share"], stability, row["cosine_with_start"], bound]
        rows.append([name, *numbers, "; ".join(row["flags"]) or "none"])
    header = ["dictionary", "R²", "dead", "stability", "cosine with start", "Λ at bound", "flags"]
    return markdown_table(header, rows)
