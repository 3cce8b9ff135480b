"""The arms of the comparison, as data: a new arm is one entry of `ARMS`.

An arm says in which frame activations are, what the dictionary is, where it starts, and whether seeds share that start.
Which arms are compared, and what decides, was fixed before any result of this edition (`contrasts.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PUBLISHED: Mapping[str, Any] = {"w_step": "published", "w_lr": None, "unit_norm": False, "learn_scale": True}
"""RA-SAE as published: W starts as the identity, Adam at one rate for all, then ReLU and row-normalise, and a learned
common scale exp(m)."""

CHOSEN: Mapping[str, Mapping[str, Any]] = {
    "centred": {"w_step": "mirror", "w_lr": 3e-3, "smoothing": 0.9},
    "raw": {"w_step": "mirror", "w_lr": 3e-3, "smoothing": 0.1},
}
"""For each frame, the way to move W, chosen by R² on the validation documents before the results of this edition. It
stays as chosen; notebook 03 shows the trials of this run, in which another may lead."""

TOPK_RANDOM, TOPK_KMEANS, RA = "#7f7f7f", "#de8f05", "#0173b2"
AS_PUBLISHED_COLOUR, FROZEN, CONTROL = "#cc78bc", "#029e73", "#56b4e9"
"""Of seaborn's colour-blind palette: one colour a kind of dictionary, in both frames."""


@dataclass(frozen=True)
class Arm:
    """One row of the comparison."""

    key: str
    """Names the arm in results and parameters."""
    label: str
    """Names it to a reader, the frame aside."""
    frame: str
    """`centred` or `raw`: see `ActivationConfig.frame`."""
    dictionary: str
    """`free`, `archetypal` or `frozen`."""
    start: str
    """`random` atoms, `centroids` (W = identity), or `random-w` (random rows of the simplex)."""
    anchors: str
    """`none`, `kmeans`, or `random` points that are no data."""
    own: bool
    """Each seed has a start of its own: other random atoms, or centroids of other documents. Else all share one."""
    seeds: int
    """Seeds of the full study; a smaller one has fewer."""
    colour: str
    """In every figure; arms whose seeds share their start have hollow markers."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Parameters, by flat name, that the arm sets."""

    @property
    def title(self) -> str:
        """Label with the frame."""
        return f"{self.frame}: {self.label}"

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters, by flat name, that differ from the study's."""
        return {"frame": self.frame} | dict(self.settings)

    def recipe(self) -> list[str]:
        """What a trained dictionary is determined by, beside the parameters."""
        return [self.dictionary, self.start, self.anchors, "own" if self.own else "shared"]


def _prefix(frame: str) -> str:
    return "" if frame == "centred" else f"{frame}-"


def _both_frames(frame: str) -> list[Arm]:
    """The arms that both frames have."""
    of, chosen = _prefix(frame), CHOSEN[frame]
    free, archetypal = ("free", "centroids", "kmeans"), ("archetypal", "centroids", "kmeans")
    frozen = ("frozen", "centroids", "kmeans")
    shared_seeds = 5 if frame == "centred" else 3
    return [
        Arm(f"{of}topk-random-own", "TopK, random start", frame, "free", "random", "none", True, 5, TOPK_RANDOM),
        Arm(f"{of}topk-kmeans-own", "TopK, own k-means start", frame, *free, True, 8, TOPK_KMEANS),
        Arm(f"{of}topk-kmeans-shared", "TopK, shared k-means start", frame, *free, False, 3, TOPK_KMEANS),
        Arm(f"{of}ra-own", "RA-SAE, own anchors", frame, *archetypal, True, 8, RA, chosen),
        Arm(f"{of}ra-shared", "RA-SAE, shared anchors", frame, *archetypal, False, shared_seeds, RA, chosen),
        Arm(f"{of}frozen-own", "frozen own centroids", frame, *frozen, True, 3, FROZEN),
        Arm(f"{of}frozen-shared", "frozen shared centroids", frame, *frozen, False, 3, FROZEN),
    ]


_KMEANS = ("archetypal", "centroids", "kmeans")
_AS_PUBLISHED = PUBLISHED | {"delta": 1.0}

ARMS: dict[str, Arm] = {
    arm.key: arm
    for arm in (
        *_both_frames("centred"),
        Arm("topk-random-shared", "TopK, shared random start", "centred", "free", "random", "none", False, 3,
            TOPK_RANDOM),
        Arm("ra-random-w", "RA-SAE, shared anchors, random W", "centred", "archetypal", "random-w", "kmeans", False, 3,
            CONTROL, CHOSEN["centred"]),
        Arm("ra-random-anchors", "RA-SAE, random anchors (no data)", "centred", "archetypal", "centroids", "random",
            True, 3, CONTROL, CHOSEN["centred"]),
        *_both_frames("raw"),
        Arm("raw-ra-published-own", "RA-SAE, published step, own anchors", "raw", *_KMEANS, True, 8,
            AS_PUBLISHED_COLOUR, _AS_PUBLISHED),
        Arm("raw-ra-published-shared", "RA-SAE, published step, shared anchors", "raw", *_KMEANS, False, 5,
            AS_PUBLISHED_COLOUR, _AS_PUBLISHED),
    )
}  # fmt: skip


def main_arms(frame: str) -> dict[str, str]:
    """Keys of the arms that notebooks 02 to 04 look at, by the kind of dictionary they stand for."""
    of = _prefix(frame)
    return {"topk": f"{of}topk-random-own", "topk-kmeans": f"{of}topk-kmeans-shared", "ra": f"{of}ra-shared"}


def sweep_arm(frame: str) -> str:
    """Key of the arm whose radius notebook 06 sweeps."""
    return f"{_prefix(frame)}ra-own"


def sweep_references(frame: str) -> tuple[str, ...]:
    """Keys of the arms beside it: free and frozen dictionaries from the same own centroids."""
    return f"{_prefix(frame)}topk-kmeans-own", f"{_prefix(frame)}frozen-own"


def explored_arms(frame: str) -> tuple[str, str]:
    """Keys of the arms whose features are looked at: free and archetypal, from the same own centroids of each seed."""
    return f"{_prefix(frame)}topk-kmeans-own", f"{_prefix(frame)}ra-own"
