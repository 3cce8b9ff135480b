"""Time overcomplete's own training loop: `python peer_overcomplete.py SITE CASE PROBLEM`, in a process of its own.

What is stubbed: the package's root module, which imports image models (torchvision, OpenCV). `overcomplete.sae` and
`overcomplete.metrics` are the package's own.
"""

import contextlib
import io
import sys
import types


def main(site: str, case: str, text: str) -> None:
    sys.path.insert(0, site)
    root = types.ModuleType("overcomplete")
    root.__path__ = [f"{site}/overcomplete"]
    sys.modules["overcomplete"] = root
    import torch
    from overcomplete.sae import RATopKSAE, TopKSAE, train_sae
    from problem import Problem, report

    problem = Problem.from_json(text)
    encoder = torch.nn.Linear(problem.d_model, problem.n_features)

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = encoder

        def forward(self, x):
            pre = self.linear(x)
            return pre, torch.relu(pre)

    sizes = {"nb_concepts": problem.n_features, "top_k": problem.k, "encoder_module": Encoder()}
    if case == "topk":
        model = TopKSAE(problem.d_model, **sizes)
    else:
        model = RATopKSAE(problem.d_model, points=problem.anchors(), delta=1.0, **sizes)
    optimizer, batches = torch.optim.Adam(model.parameters(), lr=problem.lr), problem.batches()

    def criterion(x, x_hat, pre_codes, codes, dictionary):
        return (x - x_hat).square().mean()

    def run_round() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            train_sae(model, batches, criterion, optimizer, nb_epochs=1)

    report(problem, run_round)


if __name__ == "__main__":
    main(*sys.argv[1:])
