"""The arms of the comparison, as data."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Arm:
    """One row of the comparison: what the dictionary is, where it starts, whose anchors it uses."""

    dictionary: str
    """`free`, `archetypal` or `frozen`."""
    start: str
    """`random` atoms, `centroids` (W = identity), or `random-w` (random rows of the simplex)."""
    anchors: str
    """`shared` by all seeds, or `per-seed`: refitted on disjoint training documents."""
    label: str
    """How figures and tables call it."""
    control: bool = False
    """Needs at most `CONTROL_SEEDS` seeds: no verdict rests on it."""

    def recipe(self) -> list[str]:
        """What a trained dictionary is determined by."""
        return [self.dictionary, self.start, self.anchors if self.start != "random" else "none"]


CONTROL_SEEDS = 3


ARMS = {
    "topk": Arm("free", "random", "shared", "TopK, random start"),
    "topk-kmeans": Arm("free", "centroids", "shared", "TopK, shared k-means start", control=True),
    "topk-kmeans-indep": Arm("free", "centroids", "per-seed", "TopK, own k-means start"),
    "ra": Arm("archetypal", "centroids", "shared", "RA-SAE, shared anchors"),
    "ra-random-w": Arm("archetypal", "random-w", "shared", "RA-SAE, random W"),
    "ra-indep-anchors": Arm("archetypal", "centroids", "per-seed", "RA-SAE, own anchors"),
    "frozen": Arm("frozen", "centroids", "shared", "frozen centroids", control=True),
    "frozen-indep": Arm("frozen", "centroids", "per-seed", "frozen own centroids", control=True),
}

MAIN_ARMS = ("topk", "topk-kmeans", "ra")
"""Arms that notebooks 02 to 04 look at."""

ABLATION_REFERENCES = ("topk", "topk-kmeans", "frozen")
"""Arms beside RA-SAE in the ablation."""
