"""SAELens' own `SAETrainer.fit` on a `TopKTrainingSAE`, in fp32 or with its bf16 autocast: `… saelens CASE PROBLEM`.

Its dense codes are taken: its sparse ones have no backward pass on a CPU (torch 2.13).
"""

import itertools
import logging
import sys

from benchmarks.peers import STUBBED, stub, stub_root
from benchmarks.problem import Problem, peak_memory, report


def make_stubs() -> None:
    stub_root("sae-lens", "sae_lens", "imports every runner", logger=logging.getLogger("sae_lens"))
    stub_root("transformer-lens", "transformer_lens", "imports its models")
    stub("wandb", "logging is switched off")
    from transformer_lens.hook_points import HookedRootModule

    stub(
        "transformer_lens.HookedTransformer", "its models; the base class is its own", HookedRootModule=HookedRootModule
    )


def main(case: str, text: str) -> None:
    make_stubs()
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.registry import register_sae_class, register_sae_training_class
    from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    # the root module does this for all of its classes
    register_sae_class("topk", TopKSAE, TopKSAEConfig)
    register_sae_training_class("topk", TopKTrainingSAE, TopKTrainingSAEConfig)

    problem = Problem.from_json(text)
    before, batches = peak_memory(problem.device), problem.batches()
    sae = TopKTrainingSAE(
        TopKTrainingSAEConfig(
            d_in=problem.d_model, d_sae=problem.n_features, k=problem.k, device=problem.device, dtype="float32"
        )
    )
    config = SAETrainerConfig(
        total_training_samples=0,
        train_batch_size_samples=problem.batch,
        lr=problem.lr,
        lr_end=problem.lr / 10,
        device=problem.device,
        autocast=case == "topk-bf16",
        logger=LoggingConfig(log_to_wandb=False),
    )
    trainer = SAETrainer(config, sae, itertools.cycle(batches))

    def run_round() -> None:
        config.total_training_samples += problem.steps * problem.batch
        trainer.fit()

    report(problem, run_round, sae, before=before, stubbed=STUBBED)


if __name__ == "__main__":
    main(*sys.argv[1:])
