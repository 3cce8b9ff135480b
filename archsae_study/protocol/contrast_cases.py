"""What the rule for stability says of made-up outcomes: its answers can be judged before any real one is known."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from archsae_study.protocol.contrasts import PRIMARY, ArmOutcome, Verdict, decide

CASE = PRIMARY[0]
"""The contrast whose arms the cases make up; the rule is the same for all."""
WOBBLE = (0.011, -0.007, -0.012, 0.004, 0.009, -0.003, 0.006, -0.008)
"""What each of eight seeds brings to a score, and to R²: fixed numbers of mean 0, the same on every machine."""


@dataclass(frozen=True)
class Case:
    """One made-up study."""

    what: str
    """What happened in it, for a reader."""
    outcomes: Mapping[str, ArmOutcome]
    expected: Verdict
    """What anyone would want the rule to say."""


def arm(
    stability: float, r2: float, cosine: float, *, seeds: int = 8, wobble: float = 0.5, r2_wobble: float = 0.05
) -> ArmOutcome:
    """An arm of given means over seeds, each seed off by `WOBBLE` times `wobble` in stability, `r2_wobble` in R²."""
    own = np.array(WOBBLE[:seeds]) - np.mean(WOBBLE[:seeds])
    return ArmOutcome(
        tuple(range(seeds)),
        stability + wobble * (own[:, None] + own),
        tuple((r2 + r2_wobble * own).tolist()),
        (cosine,) * seeds,
        tuple((r2 + 0.1 + r2_wobble * own).tolist()),
    )


def study(ra: ArmOutcome | None, free: ArmOutcome, shared: float = 0.85, random: float = 0.40) -> dict[str, ArmOutcome]:
    """The four arms of a contrast: two given, those of the published comparison by their stability."""
    first, last = CASE.published
    arms = {CASE.free: free, first: arm(shared, 0.87, 0.8, seeds=5), last: arm(random, 0.87, 0.4, seeds=5, wobble=-0.5)}
    return arms if ra is None else arms | {CASE.ra: ra}


def synthetic_cases() -> list[Case]:
    """Made-up studies, each with what the rule has to say; what it does say is in `synthetic_table`."""
    free = arm(0.60, 0.87, 0.66, wobble=-0.5)
    frozen, supported, cost, no, open_ = Verdict
    return [
        Case("RA agrees more, has moved, reconstructs as well", study(arm(0.75, 0.87, 0.70), free), supported),
        Case("the same, R² lower by 0.05", study(arm(0.75, 0.82, 0.70), free), cost),
        Case("the same, R² lower by 0.019 on average and uneven over seeds: the reason says so",
             study(arm(0.75, 0.851, 0.70, r2_wobble=2.0), free), supported),
        Case("RA agrees more, its atoms never left their centroids", study(arm(0.75, 0.87, 0.996), free), frozen),
        Case("the same, and R² lower by 0.2: frozen comes first", study(arm(0.75, 0.67, 0.996), free), frozen),
        Case("RA never moves, free dictionaries agree as much", study(arm(0.61, 0.67, 0.996), free), no),
        Case("RA gains 0.02, the published comparison 0.45", study(arm(0.62, 0.87, 0.70), free), no),
        Case("RA agrees less", study(arm(0.40, 0.87, 0.70), free), no),
        Case("RA gains 0.02, and its baseline reconstructs better by 0.03, which once removed the baseline",
             study(arm(0.62, 0.84, 0.70), free), no),
        Case("RA gains 0.06, uneven over seeds", study(arm(0.66, 0.87, 0.70, wobble=1.5), free), open_),
        Case("RA gains 0.05 exactly: no number of seeds decides", study(arm(0.65, 0.87, 0.70), free), open_),
        Case("RA gains 0.20, with 2 seeds", study(arm(0.80, 0.87, 0.70, seeds=2), free), open_),
        Case("RA was not computed", study(None, free), open_),
        Case("RA gains 0.15, the published comparison nothing: the verdict stands, there is no share",
             study(arm(0.75, 0.87, 0.70), free, shared=0.40), supported),
    ]  # fmt: skip


def synthetic_table() -> list[dict[str, Any]]:
    """One row for each case: `case`, `says` (the verdict), `reason`, `share`."""
    rows = []
    for case in synthetic_cases():
        found = decide(CASE, case.outcomes)
        share = found.share.reason if found.share.interval is None else f"{found.share.interval.estimate:.2f}"
        rows.append({"case": case.what, "says": str(found.verdict), "reason": found.reason, "share": share})
    return rows
