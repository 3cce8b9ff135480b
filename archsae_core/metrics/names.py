"""A name for a feature, computed from where its activation mass lies. No person or model judges it.

The activation mass of a feature is the sum of its codes over a set of tokens.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

ENOUGH = 0.5
"""Share of the mass that a few tokens, the start of a window or a topic must hold to name a feature."""
TOKENS = 3
"""Tokens in a name at most."""
LIFT = 2.0
"""A topic must hold this many times its share of all tokens."""
START = 4
"""Positions after a window's first that count as its start."""
DEAD = "never fires"
VARIED = "varied: "
"""Starts the name of a feature that a few tokens do not name."""


class Masses(NamedTuple):
    """Where the activation mass of one feature lies, as shares that sum to at most 1."""

    on: Sequence[tuple[str, float]]
    """Tokens that it fires on, as text, heaviest first."""
    after: Sequence[tuple[str, float]]
    """Tokens right before those, heaviest first."""
    at_start: float
    """At the first `START` positions that a window has besides position 0."""
    topics: Mapping[str, float]
    """In the documents of each topic; empty where the text has no labels."""


def mass_shares(
    keys: Int[np.ndarray, " firings"], codes: Float[np.ndarray, " firings"], top: int | None = None
) -> list[tuple[int, float]]:
    """Share of the sum of `codes` that lies on each key, the `top` largest first (None: all); ties by key."""
    kinds, where = np.unique(keys, return_inverse=True)
    shares = np.bincount(where, weights=codes, minlength=len(kinds)) / max(float(codes.sum(dtype=float)), 1e-30)
    order = np.argsort(-shares, kind="stable")[:top]
    return [(int(kinds[i]), float(shares[i])) for i in order]


def leading_topic(topics: Mapping[str, float], all_tokens: Mapping[str, float]) -> str | None:
    """The topic with at least half the mass and at least twice its share of all tokens; None where there is none."""
    name = max(topics, key=topics.__getitem__, default=None)
    leads = name is not None and topics[name] >= max(ENOUGH, LIFT * all_tokens[name])
    return name if leads else None


def feature_name(masses: Masses, all_tokens: Mapping[str, float] | None = None) -> str:
    """Name of a feature, by the first of these rules that holds:

    - `never fires`: it has no mass.
    - `start of a window`: at least half the mass lies there.
    - `“goal”, “match”`: at most three written forms (spaces around and case apart) that hold half the mass.
    - `after “of”`: at most three written forms that come right before hold half the mass.
    - `varied: “goal”, “match”, “cup”`: none of these; the heaviest three.

    A topic follows, as in `“goal” · sport`, where `leading_topic` finds one; `all_tokens` are the topics' shares of
    all tokens.
    """
    if not masses.on:
        return DEAD
    topic = leading_topic(masses.topics, all_tokens or {}) if masses.topics else None
    return _about(masses) + (f" · {topic}" if topic else "")


def _about(masses: Masses) -> str:
    if masses.at_start >= ENOUGH:
        return "start of a window"
    on, after = _forms(masses.on), _forms(masses.after)
    for prefix, forms in (("", on), ("after ", after)):
        named = _enough(forms)
        if named:
            return prefix + _quoted(named)
    return VARIED + _quoted([form for form, _ in on[:TOKENS]])


def _forms(shares: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """Tokens that differ only in case and in spaces around them, together; written as the heaviest of them."""
    written: dict[str, str] = {}
    total: dict[str, float] = {}
    for token, share in shares:
        form = token.strip(" ").casefold()
        written.setdefault(form, token.strip(" ") or token)
        total[form] = total.get(form, 0.0) + share
    order = sorted(total, key=lambda form: -total[form])
    return [(written[form], total[form]) for form in order]


def _enough(forms: Sequence[tuple[str, float]]) -> list[str]:
    """The fewest forms that hold enough of the mass; none where it takes more than `TOKENS`."""
    held = 0.0
    for count, (_, share) in enumerate(forms[:TOKENS], start=1):
        held += share
        if held >= ENOUGH - 1e-9:  # shares are rounded sums
            return [form for form, _ in forms[:count]]
    return []


def _quoted(forms: Sequence[str]) -> str:
    return ", ".join(f"“{form}”" for form in forms)
