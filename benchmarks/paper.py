"""Larger studies on paper: `python -m benchmarks.paper`, what they cost on one H100 and what gives out first.

No GPU has measured these numbers: they are products, traffic and sizes (`theory`) over a data sheet's rates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from archsae_study.formatting import markdown_table as table
from benchmarks import theory
from benchmarks.problem import Problem

GIB = 2**30
PRODUCTS = 0.4 * 495e12
"""FLOP/s of a step's float32 products: two fifths of the H100 SXM's dense TF32 rate (NVIDIA's data sheet)."""
FORWARD = 0.4 * 989e12
"""FLOP/s of the language model: two fifths of the dense bfloat16 rate."""
BANDWIDTH = 0.7 * 3.35e12
"""Bytes/s: seven tenths of the data sheet's."""
DEVICE = 80 * 10**9
"""Bytes of the GPU's memory."""
PER_ANCHOR = 100
"""Activations clustered for each centroid."""
ITERATIONS = 10
"""Of k-means."""


@dataclass(frozen=True)
class Large:
    """A study of one residual stream."""

    n_features: int
    """As many anchors."""
    parameters: float = 7e9
    """Of the language model."""
    depth: float = 2 / 3
    """Share of its blocks below the layer."""
    d_model: int = 4096
    tokens: float = 1e9
    """Read once; each is a row of one batch."""
    k: int = 64
    batch: int = 4096

    @property
    def problem(self) -> Problem:
        """Sizes of a training step."""
        return Problem(self.d_model, self.n_features, self.n_features, self.k, self.batch, steps=1)

    @property
    def reading(self) -> float:
        """Seconds of the language model: two operations for each weight below the layer and token."""
        return 2 * self.parameters * self.depth * self.tokens / FORWARD

    @property
    def stored(self) -> float:
        """Bytes of the activations in 16 bits, which this design keeps on disk to shuffle them."""
        return 2 * self.d_model * self.tokens

    @property
    def clustering(self) -> float:
        """Seconds of k-means."""
        products = 2 * PER_ANCHOR * self.n_features * self.n_features * self.d_model
        return ITERATIONS * products / PRODUCTS

    @property
    def clustered(self) -> int:
        """Bytes of the activations that k-means holds in memory, in 32 bits."""
        return theory.FLOAT * PER_ANCHOR * self.n_features * self.d_model

    @property
    def similarity(self) -> int:
        """Bytes of the cosines of two dictionaries, which an exact matching holds."""
        return theory.FLOAT * self.n_features**2

    def training(self, case: str) -> float:
        """Seconds of all steps of one dictionary."""
        return self.tokens / self.batch * theory.step(self.problem, case).seconds(PRODUCTS, BANDWIDTH)


CASES = {"topk": "TopK", "ra": "RA-SAE, mirror step", "ra-published": "RA-SAE, published step",
         "ra-sparse": "RA-SAE, sparse support"}  # fmt: skip


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def _size(size: float) -> str:
    return f"{size / 1e12:.1f} TB" if size >= 1e12 else f"{size / 1e9:.1f} GB"


def page(studies: Sequence[Large] = (Large(16384), Large(65536))) -> str:
    """Markdown: what each study costs, a column each."""
    rows: list[tuple[str, ...]] = [
        ("reading a layer of a 7 B model", *(_hours(one.reading) for one in studies)),
        ("its activations on disk, 16 bits", *(_size(one.stored) for one in studies)),
        ("k-means, 10 iterations", *(_hours(one.clustering) for one in studies)),
        ("activations that k-means holds", *(_size(one.clustered) for one in studies)),
    ]
    for case, name in CASES.items():
        cells = []
        for one in studies:
            needed = theory.memory(one.problem, case)
            fits = "" if needed <= DEVICE else ", **does not fit**"
            cells.append(f"{_hours(one.training(case))}, {_size(needed)}{fits}")
        rows.append((f"training of one dictionary: {name}", *cells))
    rows.append(("cosines of two dictionaries, to match them", *(_size(one.similarity) for one in studies)))
    titles = (f"{one.n_features:,} features and anchors" for one in studies)
    return table(("1 B tokens, d_model 4,096, one H100, on paper", *titles), rows)


def largest(case: str) -> int:
    """The most features, with as many anchors, in powers of two, that train in the GPU's memory."""
    n = 1024
    while theory.memory(replace(Large(2 * n).problem), case) <= DEVICE:
        n *= 2
    return n


def main() -> None:
    print(page())
    for case, name in CASES.items():
        print(f"{name}: up to {largest(case):,} features and as many anchors in {_size(DEVICE)}")


if __name__ == "__main__":
    main()
