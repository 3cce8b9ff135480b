"""Time this package's training step, all bookkeeping included: `python -m benchmarks.ours CASE PROBLEM`."""

import sys

import torch

from archsae_core.arms import ARMS
from archsae_core.config import configure
from archsae_core.dictionary import make_dictionary
from archsae_core.sae import SAE
from archsae_core.training import Trainer
from benchmarks.problem import Problem, report

CASES = {"topk": ("topk", "mirror"), "ra": ("ra", "mirror"), "ra-published": ("ra", "published")}


def main(case: str, text: str) -> None:
    problem, (arm, w_step) = Problem.from_json(text), CASES[case]
    sizes = {"n_features": problem.n_features, "k": problem.k, "n_anchors": problem.n_anchors, "lr": problem.lr}
    config = configure(sizes | {"w_step": w_step, "batch_size": problem.batch})
    dictionary = make_dictionary(ARMS[arm], config, problem.anchors(), torch.Generator().manual_seed(0))
    trainer = Trainer(SAE(dictionary, problem.k, torch.zeros(problem.d_model), 1.0), config)
    batches = problem.batches()

    def run_round() -> None:
        for x in batches:
            trainer.train_step(x)

    report(problem, run_round)


if __name__ == "__main__":
    main(*sys.argv[1:])
