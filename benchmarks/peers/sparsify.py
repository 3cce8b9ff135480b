"""eai-sparsify's own `Trainer.fit` with Adam and AuxK: `python -m benchmarks.peers.sparsify CASE PROBLEM`.

It trains inside a language model's forward pass. The model here is one hook point that hands it the next batch.
"""

import sys

import torch

from benchmarks.peers import STUBBED
from benchmarks.problem import Problem, peak_memory, report


class Rows(torch.nn.Module):
    """A language model without layers: token i of its input becomes the i-th activation."""

    def __init__(self, batches: list[torch.Tensor]) -> None:
        super().__init__()
        self.point, self.batches = torch.nn.Identity(), batches
        self.base_model, self.device = self, batches[0].device
        self.dummy_inputs = {"x": torch.zeros(1, 1, dtype=torch.int64)}

    def __setattr__(self, name: str, value: object) -> None:
        # `base_model` is this module itself: registered as a submodule, it would have no end.
        object.__setattr__(self, name, value) if name == "base_model" else super().__setattr__(name, value)

    def forward(self, x: torch.Tensor) -> None:
        rows = len(self.batches[0])
        self.point(self.batches[int(x[0, 0]) // rows][None, : x.shape[1]])


class Tokens(torch.utils.data.Dataset):
    """Item i holds the numbers of the rows of batch i."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.items = problem, 10**6

    def __len__(self) -> int:
        return self.items

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        if i >= self.items:
            raise IndexError(i)
        return {"input_ids": torch.arange(self.problem.batch) + i * self.problem.batch}

    def select(self, rows: range) -> "Tokens":
        return self


def main(case: str, text: str) -> None:
    from sparsify import SaeConfig, TrainConfig, Trainer

    problem = Problem.from_json(text)
    before, batches, tokens = peak_memory(problem.device), problem.batches(), Tokens(problem)
    config = TrainConfig(
        SaeConfig(num_latents=problem.n_features, k=problem.k),
        batch_size=1,
        optimizer="adam",
        lr=problem.lr,
        lr_warmup_steps=0,
        auxk_alpha=1 / 32,
        hookpoints=["point"],
        log_to_wandb=False,
        save_every=10**9,
    )
    trainer = Trainer(config, tokens, Rows(batches))  # sees a million batches, so its learning rate hardly decays
    tokens.items, trainer.save = problem.steps, lambda: None
    STUBBED["Trainer.save"] = "writes a checkpoint at the end of every fit"
    (sae,) = trainer.saes.values()
    report(problem, trainer.fit, lambda x: sae(x).sae_out, before=before, stubbed=STUBBED)


if __name__ == "__main__":
    main(*sys.argv[1:])
