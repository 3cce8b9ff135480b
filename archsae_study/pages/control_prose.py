"""Tables and sentences of the controls: structure, probes, reappearing features, swaps, planted dictionaries."""

from collections.abc import Mapping
from typing import Any

from archsae_study.pages.formatting import interval, markdown_table

Table = Mapping[str, Any]

STRUCTURE = {
    "ood": "OOD score", "stable_rank": "stable rank", "effective_rank": "effective rank", "coherence": "coherence",
    "connectivity": "connectivity", "negative_interference": "negative interference",
}  # fmt: skip
VARIANTS = {"partner": "its match", "second": "the next most similar", "random": "one that fires as often"}
SCORES = {"auc": "best topic's AUROC", "entropy": "token entropy (bits)", "ce": "CE of ablating them (nats a token)"}


def structure_table(table: Table) -> str:
    """One row a dictionary, trained and at step 0."""
    rows = [[row["label"], row["when"], *(row[name] for name in STRUCTURE)] for row in table["rows"]]
    return markdown_table(["dictionary", "", *STRUCTURE.values()], rows)


def structure(table: Table) -> str:
    """What the start changes and what the constraint adds, in each metric."""
    trained = {row["arm"]: row for row in table["rows"] if row["when"] == "trained"}
    rows = []
    for name, label in STRUCTURE.items():
        free, same_start, ra = (trained[arm][name] for arm in ("topk", "topk-kmeans", "ra"))
        rows.append([label, f"{same_start - free:+z.3f}", f"{ra - same_start:+z.3f}"])
    larger = sum(abs(float(row[1])) > abs(float(row[2])) for row in rows)
    closest, ranks = trained["ra"]["coherence"], [trained[arm]["stable_rank"] for arm in ("ra", "topk-kmeans")]
    header = ["metric", "centroids as start (topk → topk-kmeans)", "the constraint (topk-kmeans → ra)"]
    return (
        f"{markdown_table(header, rows)}\n\nIn {larger} of the {len(rows)} metrics the start changes more than the "
        f"constraint does. The closest two atoms of RA-SAE have a cosine of {closest:.4f}, and its stable rank is "
        f"{ranks[0]:.0f} where the free dictionary of that start has {ranks[1]:.0f}. "
        f"{table['rows'][0]['n_tokens']:,} held-out tokens, the same for all; one seed."
    )


def probing(table: Table) -> str:
    """The verdict on interpretability and the comparisons behind it."""
    if "reason" in table:
        return f"Not testable here: {table['reason']}."
    verdict, k = table["verdict"], str(table["headline"])
    rows = {row["name"]: row for row in table["rows"]}
    labels = {name: row["label"] for name, row in rows.items()}
    lines = [f"**Interpretability: {verdict['verdict']}**: {verdict['reason']}."]
    if verdict["gain"]:
        ra, topk = (labels[arm] for arm in verdict["pair"])
        gain = interval(verdict["gain"])
        lines.append(f"Started independently, {ra} gains {gain} over {topk} in probes of {k} features a topic.")
    if verdict["published_gain"]:
        lines.append(f"As published, RA-SAE gains {interval(verdict['published_gain'])} over TopK.")
    if verdict["gain"] and verdict["published_gain"]:
        others = (
            f"{interval(row['gain'])} and {interval(row['published_gain'])} with {size}"
            for size, row in verdict["by_size"].items()
            if size != k
        )
        lines.append(f"With other numbers of features a topic, the two gains are {', '.join(others)}.")
    controls = [rows[name] for name in ("random directions", "topk-kmeans, step 0") if name in rows]
    parts = [f"{row['label']} {row['accuracy'][k]['estimate']:.3f}" for row in controls]
    ceiling = rows["raw"]["accuracy"]["all"]["estimate"]
    lines.append(f"Controls: {', '.join(parts)}; a probe of all raw coordinates reaches {ceiling:.3f}.")
    return "  \n".join(lines)


def probing_table(table: Table) -> str:
    """Chance-normalised accuracy of probes of each size, and the median token entropy of top contexts."""
    if "reason" in table:
        return probing(table)
    sizes = [k for k in table["rows"][0]["accuracy"] if k != "all"]
    rows = [
        [row["label"], *(interval(row["accuracy"][k]) for k in sizes), row["entropy"], row["entropy_features"] or None]
        for row in table["rows"]
    ]
    rows[-1][0] += f" (all coordinates: {table['rows'][-1]['accuracy']['all']['estimate']:.3f})"
    header = ["dictionary", *(f"{k} a topic" for k in sizes), "token entropy (bits)", "features behind it"]
    about = (
        f"{table['passages']['train']:,} passages of {table['passage']} tokens from {table['documents']['train']:,} "
        f"documents to fit, {table['passages']['heldout']:,} from {table['documents']['heldout']:,} others to score, "
        f"{table['topics']} topics."
    )
    return f"{markdown_table(header, rows)}\n\n{about}"


def reappearance_table(table: Table) -> str:
    """Per arm: how many features reappear, and stable against unstable ones of equal activation mass."""
    rows = []
    for row in table["arms"].values():
        scores = row["scores"] or {}
        compared = [interval(scores[name]["difference"]) if name in scores else None for name in SCORES]
        rows.append([row["label"], row["features"], row["rate"], row["stable"], row["matched"], *compared])
    header = ["arm", "features", "reappear in (share of seeds)", "stable", "matched pairs"]
    return markdown_table([*header, *(f"{label}: stable − unstable" for label in SCORES.values())], rows)


def reappearance(table: Table) -> str:
    """In which arms stable features differ from unstable ones."""
    lines = []
    for name, label in SCORES.items():
        arms = {arm: row["scores"][name]["difference"] for arm, row in table["arms"].items()
                if row["scores"] and name in row["scores"]}  # fmt: skip
        sides = {side: [arm for arm, d in arms.items() if _side(d) == side] for side in ("higher", "lower")}
        found = [f"{side} in {', '.join(f'`{arm}`' for arm in named)}" for side, named in sides.items() if named]
        told = " and ".join(found) or "no clear difference in any"
        lines.append(f"- {label}, stable against unstable: {told} ({len(arms)} arms have enough of both).")
    return "\n".join(lines)


def subspaces_table(table: Table) -> str:
    """Per arm: how much of one seed's unstable atoms lies in the subspace of another's, and what to compare it with."""
    rows = []
    for row in table["arms"].values():
        found = row["subspace"]
        shares = [None] * 6
        if found:
            rounded = [f"{found[name]:,.0f}" for name in ("unstable", "rank")]
            shares = [*rounded, interval(found["other"]), found["own"], found["data"], found["chance"]]
        rows.append([row["label"], *shares])
    header = ["arm", "unstable features a seed", "rank of their subspace", "held by another seed's"]
    return markdown_table([*header, "by the seed's own", "by principal components", "chance"], rows)


def subspaces(table: Table) -> str:
    """Whether unstable features share a subspace across seeds, and whether that is more than the data's own."""
    found = {arm: row["subspace"] for arm, row in table["arms"].items() if row["subspace"]}
    if not found:
        return "No arm has enough unstable features in every seed."
    shares = [row["other"]["estimate"] / row["own"] for row in found.values()]
    gains = [row["other"]["estimate"] - row["data"] for row in found.values()]
    return (
        f"Another seed's subspace holds {min(shares):.0%} to {max(shares):.0%} of what the seed's own does, and "
        f"{min(gains):+z.3f} to {max(gains):+z.3f} against as many principal components of the activations."
    )


def _side(difference: Mapping[str, float | None]) -> str | None:
    """Which side of 0 an interval lies on."""
    if difference["low"] is None:
        return None
    return "higher" if difference["low"] > 0 else "lower" if difference["high"] < 0 else None


def swap_table(table: Table) -> str:
    """Per arm: KL of each replacement, as a share of the KL of removing the feature."""
    if "reason" in table:
        return f"Not testable here: {table['reason']}."
    rows = [
        [row["label"], row["pairs"], row["cosine"][0], *(interval(row["share"][name]) for name in VARIANTS)]
        for row in table["arms"].values()
    ]
    return markdown_table(["arm", "features", "mean cosine of the match", *VARIANTS.values()], rows)


def swap_bins(table: Table) -> str:
    """The same by the cosine of the match, over all arms."""
    if "reason" in table:
        return swap_table(table)
    rows = [
        [f"{row['low']:g} to {row['high']:g}", row["pairs"], *(interval(row["share"][name]) for name in VARIANTS)]
        for row in table["bins"]
        if row["pairs"]
    ]
    return markdown_table(["cosine of the match", "features", *VARIANTS.values()], rows)


def swap(table: Table) -> str:
    """From which cosine on a match does the work of the feature."""
    if "reason" in table:
        return swap_table(table)
    helpful = [row for row in table["bins"] if row["share"]["partner"] and _below_one(row["share"]["partner"])]
    if not helpful:
        return "In no bin does the match do better than nothing at all (interval below 1)."
    bins = ", ".join(f"{row['low']:g} to {row['high']:g}" for row in helpful)
    best = min(helpful, key=lambda row: row["share"]["partner"]["estimate"])
    return (
        f"The match does better than nothing (interval below 1) at cosines {bins}; best from {best['low']:g} to "
        f"{best['high']:g}, where {interval(best['share']['partner'])} of the effect of removing the feature is left, "
        f"against {interval(best['share']['second'])} for the next most similar feature."
    )


def _below_one(share: Mapping[str, float | None]) -> bool:
    return share["high"] is not None and share["high"] < 1


def identifiability_table(table: Table) -> str:
    """Share of planted atoms found, by learner and case, under the share that the hull allows."""
    cases = table["cases"]
    rows = [["*allowed by the hull at δ = 0*", *(interval(case["allowed"]) for case in cases.values())]]
    for learned in zip(*(case["rows"] for case in cases.values()), strict=True):
        rows.append([learned[0]["label"], *(interval(row["share"]) for row in learned)])
    return markdown_table(["dictionary", *(case["label"] for case in cases.values())], rows)


def identifiability(table: Table) -> str:
    """What the constraint costs where the hull excludes atoms and where it does not."""
    best = {case: {} for case in table["cases"]}
    for case, about in table["cases"].items():
        for row in about["rows"]:
            best[case][row["arm"]] = max(best[case].get(row["arm"], 0.0), row["share"]["estimate"])
    allowed = table["cases"]["outside"]["allowed"]["estimate"]
    return (
        f"Where the hull allows only {allowed:.0%} of the atoms, the best RA-SAE finds {best['outside']['ra']:.0%} and "
        f"the free dictionary {best['outside']['topk']:.0%}; centred, with more anchors than dimensions, they find "
        f"{best['centred']['ra']:.0%} and {best['centred']['topk']:.0%}. "
        f"{table['atoms']} atoms in {table['d_model']} dimensions, {table['active']} a sample, {table['seeds']} seeds, "
        f"{table['steps']} steps; found means a cosine above {table['threshold']:g}."
    )
