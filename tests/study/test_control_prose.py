"""Sentences of the controls say what their tables hold, whichever way the numbers fall."""

import matplotlib.pyplot as plt
import pytest

from archsae_core.storage import read_json
from archsae_study.experiments import claims
from archsae_study.pages import control_plots, control_prose, plots, prose
from archsae_study.source import PROJECT


def span(estimate, half=0.1):
    return {"estimate": estimate, "low": estimate - half, "high": estimate + half}


def swap_table(partner):
    share = {"partner": partner, "second": span(1.2), "random": span(1.5)}
    empty = {"partner": None, "second": None, "random": None}
    arm = {"label": "TopK", "pairs": 2, "cosine": [0.8, 0.3, 0.0], "share": share}
    arm["points"] = [{"cosine": 0.8, "kl": [0.1, 0.2, 0.3, 0.2]}, {"cosine": 0.9, "kl": [0.1, 0.2, 0.3, 0.0]}]
    bins = [
        {"low": 0.7, "high": 0.9, "pairs": 2, "share": share},
        {"low": 0.9, "high": 1.0, "pairs": 0, "share": empty},
    ]
    return {"arms": {"topk": arm}, "bins": bins}


def test_swap_says_where_a_match_helps():
    assert "cosines 0.7 to 0.9" in control_prose.swap(swap_table(span(0.4)))
    assert "0.400 [0.300, 0.500]" in control_prose.swap(swap_table(span(0.4)))
    assert "no bin" in control_prose.swap(swap_table(span(0.95)))  # the interval holds 1
    assert control_prose.swap_bins(swap_table(span(0.4))).count("\n") == 2  # empty bins are left out
    assert control_prose.swap({"reason": "nothing fires"}) == "Not testable here: nothing fires."


def test_reappearance_names_the_arms_and_the_side():
    def row(auc, ce):
        found = {"auc": auc, "ce": ce}
        scores = {name: {"stable": 0, "unstable": 0, "difference": value} for name, value in found.items()}
        return {"label": "x", "features": 9, "rate": 0.5, "stable": 5, "matched": 4, "scores": scores}

    none = {"label": "y", "features": 9, "rate": 1.0, "stable": 9, "matched": 0, "scores": None}
    table = {"arms": {"topk": row(span(0.2), span(0.0)), "ra": row(span(-0.2), span(0.05)), "frozen": none}}
    lines = control_prose.reappearance(table).splitlines()
    assert "higher in `topk` and lower in `ra` (2 arms" in lines[0]
    assert "no clear difference in any (0 arms" in lines[1]
    assert "no clear difference in any (2 arms" in lines[2]
    assert "–" in control_prose.reappearance_table(table)


def test_structure_separates_start_and_constraint():
    names = control_prose.STRUCTURE
    rows = [{"arm": arm, "label": arm, "when": "trained", "n_tokens": 10} | dict.fromkeys(names, value)
            for arm, value in (("topk", 0.1), ("topk-kmeans", 0.5), ("ra", 0.4))]  # fmt: skip
    text = control_prose.structure({"rows": rows})
    assert "| OOD score | +0.400 | -0.100 |" in text
    assert "In 6 of the 6 metrics the start" in text


def probing_table(gain, verdict, published=None):
    rows = [{"name": name, "label": name, "kind": kind, "accuracy": {"1": span(0.2), "5": span(0.3)}, "entropy": 1.0,
             "entropy_features": 5.0, "seeds": 3}
            for name, kind in (("topk", "trained"), ("ra", "trained"), ("random directions", "control"))]  # fmt: skip
    raw = {"1": span(0.2), "5": span(0.3), "all": span(0.9)}
    rows.append(rows[0] | {"name": "raw", "label": "raw activations", "kind": "ceiling", "accuracy": raw})
    about = {"headline": 5, "topics": 5, "passage": 32, "passages": {"train": 1, "heldout": 1}}
    gains = {"gain": gain, "published_gain": published}
    decided = {"verdict": verdict, "reason": "why", "pair": gain and ("ra", "topk")}
    return {
        "rows": rows,
        "verdict": decided | gains | {"by_size": {"1": gains, "5": gains}},
        "documents": {"train": 1, "heldout": 1},
    } | about


def test_probing_reports_verdict_controls_and_ceiling():
    text = control_prose.probing(probing_table(span(0.01), "not supported"))
    assert "**Interpretability: not supported**: why." in text
    assert "ra gains 0.010 [-0.090, 0.110] over topk" in text
    assert "random directions 0.300" in text
    assert "0.900" in text
    assert "gains" not in control_prose.probing(probing_table(None, "undetermined"))
    assert "(all coordinates: 0.900)" in control_prose.probing_table(probing_table(None, "undetermined"))
    assert control_prose.probing_table({"reason": "no labels"}) == "Not testable here: no labels."


def test_probing_reports_the_gains_of_other_sizes():
    text = control_prose.probing(probing_table(span(0.01), "not supported", span(-0.2)))
    assert "the two gains are 0.010 [-0.090, 0.110] and -0.200 [-0.300, -0.100] with 1." in text
    assert "with 5" not in text


def test_identifiability_reports_the_best_of_each_kind():
    def case(allowed, *shares):
        rows = [{"arm": arm, "label": arm, "share": span(value, 0.0), "cosine": 0.5}
                for arm, value in zip(("topk", "ra", "ra"), shares, strict=True)]  # fmt: skip
        return {"label": "x", "allowed": span(allowed, 0.0), "rows": rows}

    cases = {"outside": case(0.25, 1.0, 0.2, 0.3), "centred": case(1.0, 0.9, 0.8, 0.7)}
    sizes = {"atoms": 24, "d_model": 24, "active": 2, "seeds": 3, "steps": 5, "threshold": 0.9}
    text = control_prose.identifiability({"cases": cases} | sizes)
    assert "allows only 25% of the atoms, the best RA-SAE finds 30% and the free dictionary 100%" in text
    assert "80% and 90%" in text


@pytest.mark.parametrize(
    ("plot", "table"),
    [(control_plots.swap, swap_table(span(0.4))), (control_plots.swap, {"reason": "none"}),
     (control_plots.probing, probing_table(None, "undetermined")), (control_plots.probing, {"reason": "none"})],
)  # fmt: skip
def test_figures_can_be_drawn(plot, table):
    figure = plot(table)
    assert len(figure.axes) >= 1
    plt.close(figure)


def test_an_ablation_that_does_no_harm_leaves_a_dash():
    """An untrained language model loses nothing, so no share of a loss is recovered."""
    table = read_json(PROJECT / "results" / "eval_results.json")["table"]
    for sae in table["saes"].values():
        sae["behaviour"] |= {"recovered_mean": None, "recovered_zero": None}
        sae["behaviour"]["intervals"] |= {"recovered_mean": None, "recovered_zero": None}
    assert "RA-SAE recovers – of the CE loss" in prose.evaluation(table)
    assert "| CE recovered, mean ablation | – | – | – |" in prose.evaluation_table(table)
    assert claims.loss_recovered({"evaluation": table}).outcome == "not testable here"
    figure = plots.evaluation(table)
    assert "–" in {text.get_text() for axis in figure.axes for text in axis.texts}
    plt.close(figure)
