"""The table of published claims, of one notebook or of all."""

import pandas as pd

from archsae_study.experiments.claims import CLAIMS, Results
from archsae_study.formatting import table


def claims_table(notebook: str | None = None, **results: object) -> pd.DataFrame:
    """Claims of one notebook (None: of all), judged by the results that are given by the names of `Results`."""
    given = Results(**results)
    rows = []
    for claim in CLAIMS:
        if notebook is None or notebook in claim.notebooks:
            ours, outcome = claim.judged(given)
            rows.append([claim.claim, claim.source, claim.published, ours, str(outcome)])
    caption = "Published claims against this run" if notebook else "All published claims against this run"
    if any("†" in published for _, _, published, *_ in rows):
        caption += ". †: known from secondary sources"
    return table(["published claim", "source", "published", "this run", "outcome"], rows, caption)
