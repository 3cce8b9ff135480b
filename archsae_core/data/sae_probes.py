"""The tables of the wheel `sae-probes` (Kantamneni et al. 2025, arXiv 2502.16681), and their long rows as documents.

The package itself is never imported: it would bring SAELens, TransformerLens and XGBoost.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet

from archsae_core.data.copies import without_copies

MIN_WORDS = 100
"""Rows with fewer words are no documents."""
DOCUMENTS_VERSION = 3
"""Version of the choice of documents: a change of it makes them anew."""
DOCUMENTS = "documents.parquet"
"""File with the columns `text` and `source`."""
CODE = re.compile(r"\d+_(code|agnews)_.*")
"""Sets of code. All but one of the 1,707 long rows of the `agnews` sets are their negatives, which are code as well."""
PARTS = {
    r"94_ai_gen": "essays, partly written by machines",
    r"45_context_ans": "passages with a question",
    r"4[89]_cm_.*": "personal dilemmas",
    r"100_news_fake|\d+_news_class.*": "news, true and fake",
    r"111_yelp_data|112_amzn_rev|157_amazon_5star": "reviews",
    r"\d+_cancer_cat.*": "papers on cancer",
    r"\d+_disease_class.*": "medical abstracts",
    r"\d+_wikidata.*": "biographies",
    r"103_it_tick|15[123]_it_tick_.*": "IT tickets",
    r"110_aimade_humangpt3": "texts by people and by GPT-3",
}
"""What the sets hold, by their names; the rest is `OTHER`."""
OTHER = "other sets"


class PromptTable(NamedTuple):
    """One set of labelled prompts, in the order of the file."""

    prompts: list[str]
    """Text of each row."""
    targets: np.ndarray
    """Value to be predicted: one a row, of whatever type the file holds."""


def read_table(path: Path) -> PromptTable:
    """Rows of one .csv.zst of the wheel; equal to what pandas reads, as the package does."""
    with pyarrow.input_stream(path, compression="zstd") as stream:
        table = pyarrow.csv.read_csv(
            stream,
            # one block: a quoted prompt may hold line breaks, which a boundary of blocks would cut
            read_options=pyarrow.csv.ReadOptions(block_size=2**30, use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=["prompt", "target"], column_types={"prompt": pyarrow.string()}
            ),
        )
    return PromptTable(table["prompt"].to_pylist(), np.array(table["target"].to_pylist()))


def long_rows(tables: Iterable[Path]) -> dict[str, str]:
    """Different rows of at least `MIN_WORDS` words outside the sets of code, each with its part of the wheel.

    Tables are taken in the order of their numbers.
    """
    sources: dict[str, str] = {}
    numbered = [path for path in tables if path.name[0].isdigit()]  # the list of the tables has no number
    for path in sorted(numbered, key=lambda path: int(path.name.partition("_")[0])):
        name = path.name.removesuffix(".csv.zst")
        if not CODE.fullmatch(name):
            for prompt in read_table(path).prompts:
                if len(prompt.split()) >= MIN_WORDS:
                    sources.setdefault(prompt, _part(name))
    return sources


def write_documents(tables: Iterable[Path], target: Path) -> None:
    """Write `DOCUMENTS` into folder `target`: the long rows, of exact and near copies the first."""
    sources = long_rows(tables)
    texts = list(sources)
    columns = {"text": [texts[i] for i in without_copies(texts)]}
    columns["source"] = [sources[text] for text in columns["text"]]
    pyarrow.parquet.write_table(pyarrow.table(columns), target / DOCUMENTS, compression="zstd")


def _part(name: str) -> str:
    return next((part for pattern, part in PARTS.items() if re.fullmatch(pattern, name)), OTHER)
