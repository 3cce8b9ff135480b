"""overcomplete's own training loop, `train_sae`, with a plain linear encoder: `… overcomplete CASE PROBLEM`."""

import sys

from benchmarks.peers import STUBBED, stub_root
from benchmarks.problem import Problem, peak_memory, report


def main(case: str, text: str) -> None:
    stub_root("overcomplete", "overcomplete", "imports image models: torchvision, OpenCV")
    import torch
    from overcomplete.sae import RATopKSAE, TopKSAE, train_sae

    class Encoder(torch.nn.Linear):
        def forward(self, x):
            pre = super().forward(x)
            return pre, torch.relu(pre)

    problem = Problem.from_json(text)
    before, batches = peak_memory(problem.device), problem.batches()
    encoder = Encoder(problem.d_model, problem.n_features, device=problem.device)
    sizes = {"nb_concepts": problem.n_features, "top_k": problem.k, "encoder_module": encoder}
    sizes["device"] = problem.device
    if case == "topk":
        model = TopKSAE(problem.d_model, **sizes)
    else:
        model = RATopKSAE(problem.d_model, points=problem.anchors(), delta=1.0, **sizes)
    optimizer = torch.optim.Adam(model.parameters(), lr=problem.lr)

    def criterion(x, x_hat, pre_codes, codes, dictionary):
        return (x - x_hat).square().mean()

    def run_round() -> None:
        train_sae(model, batches, criterion, optimizer, nb_epochs=1, device=problem.device)

    report(problem, run_round, lambda x: model(x)[2], before=before, stubbed=STUBBED)


if __name__ == "__main__":
    main(*sys.argv[1:])
