"""What a training step has to do at least: multiplications and memory traffic, from the sizes alone."""

from typing import NamedTuple

from archsae_core.models.auxk import DENSE
from archsae_core.models.dictionary import saves_atoms
from archsae_core.models.w_step import BLOCKS
from benchmarks.problem import Problem

FLOAT = 4
ADAM = 7 * FLOAT
"""Bytes a weight: Adam reads weight, gradient and two moments, and writes weight and moments."""
SCRATCH = 110 << 20
"""Bytes that the libraries keep for themselves, measured: the same at every size."""


class Cost(NamedTuple):
    flops: float
    """Of dense products, which run at the machine's matrix rate."""
    traffic: float
    """Bytes read or written that no cache can save at these sizes."""

    def seconds(self, rate: float, bandwidth: float) -> float:
        return self.flops / rate + self.traffic / bandwidth


def step(problem: Problem, case: str) -> Cost:
    """Encoder product; W C and its gradient; sparse rows; Adam and the projection. A mirror step moves 1 / BLOCKS of W.

    `case`: topk, ra, ra-bf16, ra-published, ra-published-bf16 or ra-sparse.

    Sparse work (decode, and the gradients of codes, atoms and encoder) reads a row of d_model for each active code. The
    published step multiplies z W by C, a row for each token, where that takes less time: then
    decode and the gradients of codes and W read rows of n_anchors; decode and W's gradient may read them in bfloat16.
    AuxK multiplies all dead features where they are few; of many, each token has `aux_k` more codes.
    """
    d, n, m, batch = problem.d_model, problem.n_features, problem.n_anchors, problem.batch
    flops = 2 * batch * n * d
    aux_codes, sparse = min(problem.aux_k, problem.n_dead), problem.n_dead > DENSE * problem.aux_k
    codes = problem.k + aux_codes * sparse
    traffic = FLOAT * (4 * batch * codes * d + 3 * batch * n) + ADAM * 2 * n * d
    flops += 2 * batch * problem.n_dead * d * (1 if sparse else 5)
    kind, _, variant = case.partition("-")
    if variant == "sparse":
        # the slope along every anchor for the rows that move, then their hull points as sums of a few anchors
        flops += 2 * n * m * d / BLOCKS
        traffic += FLOAT * n / BLOCKS * (4 * m + problem.support * d)
    elif kind == "ra":
        published = variant.startswith("published")
        by_token = published and saves_atoms(n, d, batch, problem.k + aux_codes)
        share = 1 if published else 1 / BLOCKS
        flops += 2 * 2 * (batch + problem.n_dead * (not sparse) if by_token else n) * m * d * share
        traffic += FLOAT * (2 if variant.endswith("bf16") else 3) * batch * codes * m * by_token
        # W once for each product and, projected or multiplied, read and written; Adam where it moves W
        traffic += share * n * m * (4 * FLOAT + (ADAM if share == 1 else 0))
    return Cost(flops, traffic)


def memory(problem: Problem, case: str) -> int:
    """Bytes of weights, gradients, moments and activations of a step, the largest alive at once."""
    d, n, m, batch = problem.d_model, problem.n_features, problem.n_anchors, problem.batch
    floats = 4 * 2 * n * d + 2 * batch * n + 4 * batch * d + problem.steps * batch * d
    kind, _, variant = case.partition("-")
    if variant == "sparse":
        # values and 64-bit indices of the support, and the slopes of the rows on the move
        floats += m * d + 3 * n * problem.support + n * m / BLOCKS + 3 * n * d
    elif kind == "ra":
        # W at its start and in the model, and one block of it on the move; Adam: gradient and two moments as well
        of_w = {"": 2 + 2 / BLOCKS, "bf16": 2 + 2 / BLOCKS, "published": 5, "published-bf16": 5.5}[variant]
        floats += m * d + n * m * of_w + 3 * n * d
    return int(FLOAT * floats) + SCRATCH
