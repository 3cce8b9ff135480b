"""Time this package's training step, all bookkeeping included: `python -m benchmarks.ours CASE PROBLEM`."""

import sys
from contextlib import nullcontext

import torch

from archsae_core.models.dictionary import make_dictionary
from archsae_core.models.sae import SAE
from archsae_core.models.training import Trainer
from archsae_study.settings.config import configure
from benchmarks.problem import Problem, peak_memory, report

KINDS = {"topk": ("free", "random"), "ra": ("archetypal", "centroids")}
"""Dictionary and start of each kind of step."""
PUBLISHED = {"w_step": "published", "unit_norm": False, "learn_scale": True}
CASES = {
    "topk": ("topk", {}),
    "ra": ("ra", {"w_step": "mirror", "w_dtype": "float32"}),
    "ra-bf16": ("ra", {"w_step": "mirror", "w_dtype": "bfloat16"}),
    "ra-published": ("ra", PUBLISHED | {"w_dtype": "float32"}),
    "ra-published-bf16": ("ra", PUBLISHED | {"w_dtype": "bfloat16"}),
}
"""Kind and parameters of each case. What stands before a dash is the kind of step that peers are compared by."""


def make_trainer(problem: Problem, case: str, seed: int) -> Trainer:
    """A trainer at step 0, its encoder calibrated as a run's is."""
    kind, parameters = CASES[case]
    sizes = {"n_features": problem.n_features, "k": problem.k, "n_anchors": problem.n_anchors, "lr": problem.lr}
    sizes["decay"] = 0.0  # the other packages' rates do not fall within the steps that are timed either
    sizes["aux_k"] = problem.aux_k
    config = configure(sizes | {"batch_size": problem.batch} | parameters)
    generator = torch.Generator().manual_seed(seed)
    dictionary = make_dictionary(
        *KINDS[kind],
        problem.anchors().cpu(),
        config.dictionary,
        config.training,
        generator,
    )
    sae = SAE(dictionary, problem.k, torch.zeros(problem.d_model), 1.0).to(problem.device)
    sae.calibrate(problem.batches()[0])
    return Trainer(sae, config.training)


def main(case: str, text: str) -> None:
    problem = Problem.from_json(text)
    before, batches = peak_memory(problem.device), problem.batches()
    trainers = [make_trainer(problem, case, seed) for seed in range(problem.seeds)]
    # Streams let small kernels of several dictionaries share a GPU.
    several = problem.seeds > 1 and torch.device(problem.device).type == "cuda"
    streams = [torch.cuda.stream(torch.cuda.Stream()) if several else nullcontext() for _ in trainers]

    def run_round() -> None:
        for x in batches:
            for trainer, stream in zip(trainers, streams, strict=True):
                if problem.n_dead:
                    trainer.last_fired.fill_(trainer.step)
                    trainer.last_fired[: problem.n_dead] = trainer.step - trainer.config.dead_after - 1
                with stream:
                    trainer.train_step(x)

    report(problem, run_round, trainers[0].sae, before=before)


if __name__ == "__main__":
    main(*sys.argv[1:])
