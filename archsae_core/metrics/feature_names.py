"""A name for a feature, computed from where its activation mass lies. No person or model judges it.

The activation mass of a feature is the sum of its codes over a set of tokens.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

ENOUGH = 0.5
"""Share of the mass that a few tokens, or the start of a window, must hold to name a feature alone."""
TOKENS = 3
"""Tokens in a name at most."""
LIFT = 2.0
"""How many times as much mass a token must have as its share of all tokens, a topic as any other topic per token."""
START = 4
"""Positions after a window's first that count as its start."""
DEAD = "never fires"
MORE = "” …"
"""In a name whose tokens hold less than half the mass."""


class Masses(NamedTuple):
    """Where the activation mass of one feature lies, as shares of it."""

    on: Sequence[tuple[str, float]]
    """Tokens that it fires on, as text, heaviest first."""
    after: Sequence[tuple[str, float]]
    """Tokens right before those, heaviest first."""
    at_start: float
    """At the first `START` positions that a window has besides position 0."""
    topics: Mapping[str, float]
    """In the documents of each topic; empty where the text has no labels."""


class Usual(NamedTuple):
    """What masses are compared with: shares of all tokens that were looked at."""

    forms: Mapping[str, float]
    """Of each written form (`form`); a form that is missing has none."""
    topics: Mapping[str, float]
    """Of the documents of each topic."""


def form(token: str) -> str:
    """What a token has in common with those that differ only in case and in spaces around them."""
    return token.strip(" ").casefold()


def mass_shares(
    keys: Int[np.ndarray, " firings"], codes: Float[np.ndarray, " firings"], top: int | None = None
) -> list[tuple[int, float]]:
    """Share of the sum of `codes` that lies on each key, the `top` largest first (None: all); ties by key."""
    kinds, where = np.unique(keys, return_inverse=True)
    shares = np.bincount(where, weights=codes, minlength=len(kinds)) / max(float(codes.sum(dtype=float)), 1e-30)
    order = np.argsort(-shares, kind="stable")[:top]
    return [(int(kinds[i]), float(shares[i])) for i in order]


def leading_topic(topics: Mapping[str, float], usual: Mapping[str, float]) -> str | None:
    """The topic with at least twice as much mass per token as any other; None where there is none.

    Per token, since topics have unequally long documents: the largest one would lead most features by its size.
    """
    dense = {name: share / usual[name] for name, share in topics.items() if usual.get(name, 0) > 0}
    first, *others = sorted(dense, key=lambda name: -dense[name]) or [None]
    leads = first is not None and bool(others) and dense[first] > 0 and dense[first] >= LIFT * dense[others[0]]
    return first if leads else None


def feature_name(masses: Masses, usual: Usual) -> str:
    """Name of a feature, by the first of these rules that holds:

    - `never fires`: it has no mass.
    - `start of a window`: at least half the mass lies there.
    - `“goal”, “match”`: at most three written forms (see `form`) that hold half the mass.
    - `after “of”`: at most three written forms that come right before hold half the mass.
    - `“goal”, “match”, “cup” …`: none of these; the heaviest three.

    Only forms count that have at least twice as much mass as their share of all tokens, or every broad feature would
    be called after the commonest words; where there is no such form, all count. A topic follows, as in
    `“goal” · sport`, where `leading_topic` finds one.
    """
    if not masses.on:
        return DEAD
    topic = leading_topic(masses.topics, usual.topics)
    return _about(masses, usual.forms) + (f" · {topic}" if topic else "")


def _about(masses: Masses, usual: Mapping[str, float]) -> str:
    if masses.at_start >= ENOUGH:
        return "start of a window"
    on, after = _forms(masses.on, usual), _forms(masses.after, usual)
    for prefix, forms in (("", on), ("after ", after)):
        named = _enough(forms)
        if named:
            return prefix + _quoted(named)
    return _quoted([written for written, _ in on[:TOKENS]])[:-1] + MORE


def _forms(shares: Sequence[tuple[str, float]], usual: Mapping[str, float]) -> list[tuple[str, float]]:
    """Written forms with their shares, heaviest first, each as the heaviest token that has it; see `feature_name`."""
    written: dict[str, str] = {}
    total: dict[str, float] = {}
    for token, share in shares:
        key = form(token)
        written.setdefault(key, token.strip(" ") or token)
        total[key] = total.get(key, 0.0) + share
    order = sorted(total, key=lambda key: -total[key])
    above = [key for key in order if total[key] >= LIFT * usual.get(key, 0.0)]
    return [(written[key], total[key]) for key in above or order]


def _enough(forms: Sequence[tuple[str, float]]) -> list[str]:
    """The fewest forms that hold enough of the mass; none where it takes more than `TOKENS`."""
    held = 0.0
    for count, (_, share) in enumerate(forms[:TOKENS], start=1):
        held += share
        if held >= ENOUGH - 1e-9:  # shares are rounded sums
            return [written for written, _ in forms[:count]]
    return []


def _quoted(forms: Sequence[str]) -> str:
    return ", ".join(f"“{written}”" for written in forms)
