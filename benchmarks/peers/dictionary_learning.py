"""dictionary_learning's `TopKTrainer.update`, what `trainSAE` does every step: `… dictionary_learning CASE PROBLEM`."""

import sys

from benchmarks.peers import STUBBED, stub
from benchmarks.problem import Problem, peak_memory, report


def main(case: str, text: str) -> None:
    stub("nnsight", "runs language models", LanguageModel=object)
    from dictionary_learning.trainers.top_k import TopKTrainer

    problem = Problem.from_json(text)
    before, batches = peak_memory(problem.device), problem.batches()
    trainer = TopKTrainer(
        steps=10**6,
        activation_dim=problem.d_model,
        dict_size=problem.n_features,
        k=problem.k,
        layer=0,
        lm_name="none",
        lr=problem.lr,
        warmup_steps=0,
        seed=0,
        device=problem.device,
    )
    done = 0

    def run_round() -> None:
        nonlocal done
        for x in batches:
            trainer.update(done, x)
            done += 1

    report(problem, run_round, trainer.ae, before=before, stubbed=STUBBED)


if __name__ == "__main__":
    main(*sys.argv[1:])
