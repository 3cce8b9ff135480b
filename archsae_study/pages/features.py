"""What notebook 07 shows of a feature: contexts, output tokens, archetypes, as Markdown."""

from collections.abc import Mapping
from typing import Any

from archsae_study.pages.formatting import markdown_table
from archsae_study.pages.rendering import context_html, literal

Table = Mapping[str, Any]


def features(table: Table) -> str:
    """Answer of notebook 07."""
    feature, archetypes = table["feature"], table["archetypes"]
    lines = [
        f"**Feature {feature['feature']}** fires on {feature['firing_rate']:.2%} of the held-out tokens, at most with "
        f"{feature['max']:.1f}.",
        f"Its atom mixes {archetypes['effective_anchors']:.0f} anchors (exp of the entropy of its row of W); "
        f"‖W C‖ is {archetypes['hull_share']:.0%} of ‖W C‖ + ‖Λ‖.",
    ]
    if table["topics"]:
        label, rate = max(table["topics"].items(), key=lambda item: item[1])
        topic = literal(label.strip())
        mean = sum(table["topics"].values()) / len(table["topics"])
        lines.append(
            f"It fires most in *{topic}*: on {rate:.2%} of the tokens there, {mean:.2%} on average over topics."
        )
    return "  \n".join(lines)


def _context(context: Table) -> str:
    return context_html(context["tokens"], context["values"], context["marked"])


def scan_table(table: Table) -> str:
    """The strongest features with their best context; entropy in bits of the token under the 20 largest codes."""
    header = ["feature", "fires on", "max", "token entropy", "strongest context"]
    names = ("feature", "firing_rate", "max", "entropy")
    rows = [
        [str(row["feature"]), f"{row['firing_rate']:.2%}", *(row[n] for n in names[2:]), _context(row["context"])]
        for row in table["scan"]
    ]
    return markdown_table(header, rows)


def contexts_table(table: Table) -> str:
    """Contexts of one feature at several quantiles of its codes; other tokens on which it fires are bold."""
    rows = [
        [f"{band['quantile']:.0%}", context["values"][context["marked"]], _context(context)]
        for band in table["feature"]["bands"]
        for context in band["contexts"]
    ]
    return markdown_table(["quantile", "code", "context"], rows)


def lens_table(table: Table) -> str:
    """Output tokens that the atom promotes and suppresses."""
    lens = table["lens"]
    pairs = zip(lens["promoted"], lens["suppressed"], strict=True)
    rows = [[_token(up["token"]), up["logit"], _token(down["token"]), down["logit"]] for up, down in pairs]
    return markdown_table(["promoted", "logit", "suppressed", "logit"], rows)


def _token(token: str) -> str:
    return literal(token.replace(" ", "·")) or "(part of a character)"


def archetypes_table(table: Table) -> str:
    """The atom's heaviest anchors and the training contexts nearest to each."""
    rows = []
    for anchor in table["archetypes"]["anchors"]:
        contexts = "<br>".join(_context(context) for context in anchor["contexts"])
        rows.append([str(anchor["anchor"]), anchor["weight"], anchor["cosine"], contexts])
    return markdown_table(["anchor", "weight", "cosine with the atom", "nearest training contexts"], rows)
