"""Random mixtures of parameters: an accepted one ends well, any other is refused by name, before work."""

import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from archsae_core.config import ACTIVATION_FUNCTIONS, BOS, DTYPES, FRAMES, W_STEPS
from archsae_study.protocol.arms import ARMS
from soak.studies import attempt

NUMBERS = {
    "layer": (0, 2), "context": (3, 64), "tokens": (600, 5000), "n_anchors": (2, 40), "anchor_tokens": (1, 900),
    "kmeans_iterations": (1, 4), "anchor_folds": (1, 5), "n_features": (1, 48), "k": (1, 12), "steps": (1, 6),
    "batch_size": (2, 300), "aux_k": (1, 80), "dead_after": (1, 6), "checkpoint_every": (1, 6), "seed": (0, 2**40 - 1),
    "support": (1, 64), "n_seeds": (2, 3), "longer_factor": (1, 3), "ablation_steps": (1, 4), "ablation_seeds": (2, 3),
    "heldout_tokens": (2, 400), "behaviour_tokens": (1, 200), "feature": (0, 47),
}  # fmt: skip
"""Least and greatest of each whole number: a study of seconds, but for a field that another one forbids."""
SHARES = {
    "heldout_fraction": (0.001, 0.49), "validation_fraction": (0.001, 0.49), "smoothing": (1e-6, 1 - 1e-6),
    "outlier_factor": (1, 50), "delta": (0, 8), "lr": (1e-6, 0.1), "w_lr": (1e-6, 0.1), "decay": (0, 1),
    "aux_coefficient": (0, 2),
}  # fmt: skip
CHOICES = {
    "dtype": DTYPES, "bos": BOS, "frame": FRAMES, "activation": ACTIVATION_FUNCTIONS, "w_step": W_STEPS,
    "w_dtype": DTYPES, "unit_norm": (False, True), "learn_scale": (False, True), "near_copies": (False, True),
    "other_settings": (False, True),
}  # fmt: skip
LISTS = {
    "deltas": st.lists(st.floats(0, 8), min_size=1, max_size=3, unique=True),
    "arms": st.lists(st.sampled_from(sorted(ARMS)), min_size=1, max_size=4, unique=True),
}
FEW_ARMS = ("topk-random-own", "topk-kmeans-own", "ra-own", "raw-ra-own")
BASE = {"arms": FEW_ARMS, "other_settings": False, "probe_tasks": 1}
"""What a mixture is laid over: few runs, so that it takes seconds."""
BAD = st.sampled_from([0, -1, -0.5, float("nan"), float("inf"), "", "perhaps", 10**9, []])


def drawn(bad: float = 0.02) -> st.SearchStrategy[dict[str, Any]]:
    """Some fields with values in their range; each is, with a chance of `bad`, something else."""
    good = {name: st.integers(*ends) for name, ends in NUMBERS.items()}
    good |= {name: st.floats(*ends) for name, ends in SHARES.items()}
    good |= {name: st.sampled_from(values) for name, values in CHOICES.items()}
    good |= LISTS
    rarely = st.floats(0, 1, allow_nan=False).map(lambda draw: draw > 1 - bad)
    mixed = {name: rarely.flatmap(lambda is_bad, field=field: BAD if is_bad else field) for name, field in good.items()}
    return st.fixed_dictionaries({}, optional=mixed)


def run(
    folder: Path, work: Callable[[Mapping[str, Any], Path], object], examples: int, number: int = 0
) -> tuple[list[dict[str, Any]], list[str]]:
    """One row, and what failed; `work` is `tables` or `whole`, `number` chooses the examples."""
    counts, problems = Counter[str](), []

    @seed(number)
    @settings(max_examples=examples, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(drawn())
    def every_one_ends_well(parameters: Mapping[str, Any]) -> None:
        root = folder / str(counts.total())
        ended = attempt(BASE | dict(parameters), root, work)
        shutil.rmtree(root, ignore_errors=True)
        counts[ended.how] += 1
        if ended.how == "failed":
            problems.append(f"{dict(parameters)}: {ended.message}")

    every_one_ends_well()
    row = {"configurations": counts.total(), "ended well": counts["done"], "refused by name": counts["refused"]}
    return [row], problems
