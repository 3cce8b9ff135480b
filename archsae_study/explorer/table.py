"""The features as a table, for pandas."""

import pandas as pd

from archsae_study.explorer.page import Explorable

COLUMNS = (
    "name",
    "density",
    "maximum",
    "mean_active",
    "stability",
    "probe",
    "probe_topic",
    "purity",
    "entropy",
    "topic",
)
"""Fields of `data.Summary` that become columns as they are."""


def features_frame(source: Explorable) -> pd.DataFrame:
    """One row a feature of every dictionary, indexed by `dictionary` (its key) and `feature`.

    Columns are the fields of `data.Summary`, and its `tokens`, `promoted` and `suppressed` as lists of strings,
    heaviest first. What is not known is NaN or None.
    """
    frames = []
    for about in source.about.dictionaries:
        summaries = source.summaries(about.key)
        columns = {name: [getattr(summary, name) for summary in summaries] for name in COLUMNS}
        columns |= {
            name: [[each.token for each in getattr(summary, name)] for summary in summaries]
            for name in ("tokens", "promoted", "suppressed")
        }
        features = [summary.feature for summary in summaries]
        index = pd.MultiIndex.from_product([[about.key], features], names=["dictionary", "feature"])
        numeric = dict.fromkeys(("stability", "probe", "purity", "entropy"), float)
        frames.append(pd.DataFrame(columns, index=index).astype(numeric))
    return pd.concat(frames)
