"""Notebook 01: figures, tables and the finding."""

import pandas as pd
from IPython.display import Markdown
from matplotlib.figure import Figure

from archsae_study.experiments.activations import ActivationsResult
from archsae_study.experiments.anchor_parts import PartsResult
from archsae_study.experiments.anchors import AnchorsResult
from archsae_study.formatting import percent, table
from archsae_study.pages.style import FRAME_TITLES, TOPK_COLOUR, finding, panels, setting
from archsae_study.report import Report

__all__ = [
    "Report",
    "conclusion",
    "copies_table",
    "found_again",
    "headline",
    "hull_table",
    "norms",
    "norms_table",
    "occupancy",
    "parts_table",
    "setting",
]


def headline(activations: ActivationsResult, anchors: AnchorsResult) -> Markdown:
    """The finding of notebook 01."""
    return finding("anchors", train=activations.train, anchors=anchors)


def conclusion(anchors: AnchorsResult) -> Markdown:
    """What the hull of the anchors excludes, by frame."""
    return finding("anchors_conclusion", anchors=anchors)


def copies_table(activations: ActivationsResult) -> pd.DataFrame:
    """What the text consists of, and the copies that are kept in one part of the split."""
    copies = activations.copies
    rows = [
        [
            "sources",
            "; ".join(
                f"{part.name}: {part.documents:,} documents, {part.words:,} words" for part in activations.composition
            ),
        ]
    ]
    rows += [
        ["documents within the budget", copies.documents],
        ["exact copies of an earlier one", copies.exact],
        ["near copies: a shared passage", copies.near],
        ["held-out documents that a split of single documents would have leaked", copies.leaked_heldout],
        ["validation documents likewise", copies.leaked_validation],
        # those after the first of a document too: the model reads each as a sequence of its own
        ["every window begins with", ", ".join(map(repr, activations.window_start)) or "its text"],
    ]
    return table(
        ["text", "what it holds"], rows, "The text and its copies; a copy goes to the part of its first document"
    )


def norms_table(activations: ActivationsResult) -> pd.DataFrame:
    """Documents, tokens and norms by part."""
    rows = []
    for part in activations.documents:
        stats = {"train": activations.train, "heldout": activations.heldout}.get(part, {})
        dropped = stats.get("n_outliers_dropped")
        rows.append(
            [
                part,
                activations.documents[part],
                activations.tokens[part],
                None if dropped is None else int(dropped),
                stats.get("median_norm"),
                stats.get("position0_norm"),
                stats.get("gamma"),
            ]
        )
    return table(
        ["part", "documents", "tokens", "outliers dropped", "median ‖x‖", "‖x‖ at position 0", "γ = ‖mean‖ / spread"],
        rows,
        "Activations by part. Outliers: norms beyond `outlier_factor` medians. Norms of the validation part, a dash, "
        "are not used.",
    )


def norms(activations: ActivationsResult) -> Figure:
    """Distribution of activation norms in units of their median; the last bar holds everything above."""
    figure, (axis,) = panels(1, width=6.5)
    edges, counts, train = activations.norm_edges, activations.norm_counts, activations.train
    axis.stairs(counts, edges, fill=True, color=TOPK_COLOUR, alpha=0.7)
    axis.set(xlabel=f"‖x‖ / median ({train['median_norm']:,.0f})", ylabel="training activations", yscale="log")
    dropped = int(train["n_outliers_dropped"])
    largest = train["max_norm"] / train["median_norm"]
    beyond = (
        f"{counts[-1]:,} beyond {edges[-2]:g} medians, the largest at {largest:,.0f};\n"
        f"{dropped:,} beyond the cut are dropped"
    )
    axis.annotate(
        beyond, (edges[-1], max(counts[-1], 1)), xytext=(-4, 18), textcoords="offset points", ha="right", fontsize=8
    )
    ratio = train["position0_norm"] / train["median_norm"]
    axis.set_title(f"Position 0, which is masked, would stand at {ratio:,.0f} medians")
    return figure


def occupancy(anchors: AnchorsResult) -> Figure:
    """Activations of each centroid, sorted."""
    figure, (axis,) = panels(1, width=6.5)
    counts = anchors.occupancy
    axis.plot(range(1, len(counts) + 1), counts, color=TOPK_COLOUR)
    mean = sum(counts) / len(counts)
    axis.axhline(mean, color="0.5", linestyle=":")
    axis.annotate(
        f"mean {mean:.0f}", (len(counts), mean), xytext=(-4, 4), textcoords="offset points", ha="right", fontsize=8
    )
    axis.set(xlabel="centroid, by size", ylabel="activations assigned", yscale="log")
    axis.set_title(f"{anchors.of('centred').summary['empty']} of {len(counts):,} centroids are empty")
    return figure


def found_again(anchors: AnchorsResult) -> pd.DataFrame:
    """How well anchors agree with anchors fitted again; 0 is chance, 1 identity."""
    rows = [[one.label, one.raw, one.chance, one.normalised] for one in anchors.again]
    caption = (
        "One refit each. Agreement: less chance, 0 for unrelated sets of centroids and 1 for equal ones; centred cosine"
    )
    return table(["fitted again on", "cosine of matched centroids", "chance", "agreement"], rows, caption)


def parts_table(parts: PartsResult) -> pd.DataFrame:
    """How well the anchors of two seeds' parts agree, with the documents that have copies in others and without."""
    rows = [
        [FRAME_TITLES[one.frame], one.activations, found.label, found.raw, found.chance, found.normalised]
        for one in parts.frames
        for found in (one.every, one.without)
    ]
    share = f"{parts.copied:,} of {parts.documents:,} training documents have an exact or near copy in another part."
    caption = f"{share} Two parts, each fitted once on equally many activations. Agreement as above"
    return table(
        ["frame", "activations", "anchors of", "cosine of matched centroids", "chance", "agreement"], rows, caption
    )


def hull_table(anchors: AnchorsResult) -> pd.DataFrame:
    """Whether the hull of the anchors excludes anything, by frame."""
    rows = []
    for one in anchors.frames:
        excluded = "nothing" if one.vacuous else "directions outside the cone"
        rows.append(
            [
                FRAME_TITLES[one.frame],
                one.summary["median_norm"],
                one.gamma,
                "yes" if one.origin_inside else "no",
                excluded,
                percent(one.summary["unexplained"]),
            ]
        )
    header = [
        "frame",
        "median ‖C‖",
        "γ of the anchors",
        "origin in the hull",
        "the hull excludes",
        "variance unexplained",
    ]
    return table(header, rows, "γ: length of the anchors' mean against their spread around it")
