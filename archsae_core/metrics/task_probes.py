"""Sparse probes of binary tasks: how well do a few features tell one class of prompts from the other?

The steps are those of `sae-probes` 0.4.2 (Kantamneni et al. 2025, arXiv 2502.16681; its `run_sae_evals.py` and
`utils_training.py`). Features are ranked by the difference of their mean codes in the two classes, each feature in
units of its mean code where it fires. A logistic regression with an L2 penalty is fitted on the first k; the penalty is
the best of ten on a part of the training prompts. Test prompts are looked at once, for the AUROC.
"""

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from archsae_core.checks import binary
from archsae_core.metrics.probing import auc
from archsae_core.models.sae import Codes

STRENGTHS = np.logspace(5, -5, 10)
"""Inverse penalties that are tried, the weakest penalty first; of equals the first is taken."""
FOLDS, ENOUGH = 6, 128
"""From `ENOUGH` training prompts on, one part of them is for validation; of fewer, each of `FOLDS` parts in turn."""
VALIDATION_SHARE, MOST_VALIDATION = 0.2, 100
"""That part: the last fifth of the prompts, at most so many."""
SEED = 42
"""Of the folds."""


def class_difference(
    codes: Codes, positive: Bool[np.ndarray, " n_prompts"], n_features: int
) -> Float[np.ndarray, " n_features"]:
    """|mean code on positive prompts − mean on the others| / mean code where it fires; 0 for one that never does."""
    positive = binary("positive", positive)
    indices, values = codes.indices.cpu().numpy().ravel(), codes.values.double().cpu().numpy()
    side = np.where(positive, 1 / max(positive.sum(), 1), -1 / max((~positive).sum(), 1))
    difference, total, count = (
        np.bincount(indices, weights.ravel(), n_features) for weights in (values * side[:, None], values, values > 0)
    )
    return np.abs(difference) * count / np.where(total > 0, total, 1.0)


def columns(codes: Codes, features: Int[np.ndarray, " k"]) -> Float[np.ndarray, "n_prompts k"]:
    """Codes of some features, with their zeros."""
    indices, values = codes.indices.cpu().numpy(), codes.values.double().cpu().numpy()
    return np.stack([np.where(indices == feature, values, 0.0).sum(axis=1) for feature in features], axis=1)


def sparse_probe_auc(
    train: tuple[Codes, Bool[np.ndarray, " n_train"]],
    test: tuple[Codes, Bool[np.ndarray, " n_test"]],
    n_features: int,
    sizes: Sequence[int],
) -> dict[int, float]:
    """Test AUROC of the regression on the k features that differ most in training, for every k of `sizes`."""
    ranked = np.argsort(-class_difference(*train, n_features), kind="stable")
    x, y = (columns(codes, ranked[: max(sizes)]) for codes in (train[0], test[0]))
    return {k: regression_auc((x[:, :k], train[1]), (y[:, :k], test[1])) for k in sizes}


def regression_auc(
    train: tuple[Float[np.ndarray, "n_train k"], Bool[np.ndarray, " n_train"]],
    test: tuple[Float[np.ndarray, "n_test k"], Bool[np.ndarray, " n_test"]],
) -> float:
    """Test AUROC of a logistic regression on all columns, its penalty chosen on the training prompts.

    One column needs no fit: every fit ranks the prompts as the column does, or the other way round where its mean is
    smaller on the positive training prompts. Raises ConfigError for labels that are not of two classes.
    """
    x, positive = train[0], binary("train", train[1], both=True)
    if x.shape[1] == 1:
        fitted = np.sign(x[positive].mean() - x[~positive].mean()) * test[0]
    else:
        fitted = _decide(x, positive, test[0], _best_strength(x, positive))
    return float(auc(fitted.reshape(-1, 1), binary("test", test[1]))[0])


def _best_strength(x: Float[np.ndarray, "n k"], positive: Bool[np.ndarray, " n"]) -> float:
    scores = np.zeros(len(STRENGTHS))
    for kept, held in _validation(positive):
        decided = [_decide(x[kept], positive[kept], x[held], strength) for strength in STRENGTHS]
        scores += auc(np.stack(decided, axis=1), positive[held])
    return float(STRENGTHS[scores.argmax()]) if scores.any() else 1.0


def _validation(positive: Bool[np.ndarray, " n"]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Training prompts to fit on and to choose the penalty by; none where a class has a single prompt."""
    from sklearn.model_selection import StratifiedKFold  # takes a second, which reading results need not wait for

    n, smaller = len(positive), int(min(positive.sum(), (~positive).sum()))
    if n >= ENOUGH:
        first = n - min(int(VALIDATION_SHARE * n), MOST_VALIDATION)
        yield np.arange(first), np.arange(first, n)
    elif smaller > 1:
        yield from StratifiedKFold(min(FOLDS, smaller), shuffle=True, random_state=SEED).split(positive, positive)


def _decide(
    x: Float[np.ndarray, "n k"], positive: Bool[np.ndarray, " n"], y: Float[np.ndarray, "m k"], strength: float
) -> Float[np.ndarray, " m"]:
    """Log-odds of the positive class for the rows of `y`, by a fit on `x`."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=1000)
    with warnings.catch_warnings():
        # separable classes with next to no penalty: the order of the prompts has settled long before the weights
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, positive).decision_function(y)
