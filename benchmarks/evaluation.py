"""Evaluation of two SAEs on held-out text, CE and KL included: `python -m benchmarks.evaluation` prints the seconds.

The SAEs are at their start, a free dictionary and an archetypal one: what they hold does not change what it costs.
"""

import itertools
import tempfile
import time
from pathlib import Path

import torch

from archsae_core.data.activations import extract, fit_normalizer, open_activations
from archsae_core.data.tokens import TokenSet
from archsae_core.metrics.behaviour import behaviour
from archsae_core.metrics.reconstruction import document_sums, quality_intervals, summarise
from archsae_core.models.dictionary import make_dictionary
from archsae_core.models.sae import SAE
from archsae_study.engine.study import Study
from benchmarks import of_study
from benchmarks.extraction import first_windows
from benchmarks.ours import KINDS

ROWS = 4096
"""Activations scored at a time."""


def run(study: Study, tokens: int) -> dict[str, float | int]:
    """Seconds to score two SAEs on `tokens` held-out tokens, by part."""
    config, model = study.config, study.model
    text: TokenSet = first_windows(study.tokens.heldout, tokens)
    with tempfile.TemporaryDirectory() as folder:
        extract({config.language_model.layer: Path(folder)}, model, text, progress=False)
        heldout = open_activations(Path(folder), config.activations.outlier_factor)
        normalizer = fit_normalizer(heldout, config.activations.frame)
        points = normalizer.normalize(heldout.gather(heldout.kept[: config.anchors.n_anchors]))
        saes = {}
        for arm in ("topk", "ra"):
            dictionary = make_dictionary(
                *KINDS[arm],
                points,
                config.dictionary,
                config.training,
                torch.Generator().manual_seed(0),
            )
            saes[arm] = SAE(dictionary, config.dictionary.k, *normalizer).to(study.device)
        marks = [time.perf_counter()]
        for sae in saes.values():
            batches = ((heldout.gather(rows), heldout.document[rows]) for rows in heldout.kept.split(ROWS))
            sums = document_sums(sae, batches)
            summarise(sums), quality_intervals(sums)
        marks.append(time.perf_counter())
        behaviour(
            model, config.language_model.layer, text, saes, normalizer.mean.to(study.device), max_norm=heldout.threshold
        )
        marks.append(time.perf_counter())
    quality, ce = (after - before for before, after in itertools.pairwise(marks))
    return {"tokens": text.n_tokens, "quality_s": quality, "ce_and_kl_s": ce, "seconds": quality + ce}


if __name__ == "__main__":
    of_study.main("evaluation", __doc__, run, tokens=20_000)
