"""Notebook 02: figures, tables and the finding."""

from IPython.display import Markdown

from archsae_study.experiments.dictionaries import DictionaryResult
from archsae_study.pages.style import finding, setting
from archsae_study.pages.training import curves, log_table, quality_table
from archsae_study.report import Report

__all__ = ["Report", "conclusion", "curves", "headline", "log_table", "quality_table", "setting"]


def headline(standard: DictionaryResult) -> Markdown:
    """The finding of notebook 02."""
    return finding("standard_sae", one=standard, moved=list(standard.cosine_with_start.values())[-1])


def conclusion(standard: DictionaryResult) -> Markdown:
    """What the baseline does, and what it does not say."""
    return finding("standard_sae_conclusion", q=standard.quality)
