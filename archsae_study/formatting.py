"""Values, intervals and tables as a reader sees them."""

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from archsae_core.metrics.intervals import Interval
from archsae_core.text import visible

ROWS = 12
"""Rows that a table shows in running text; a longer one opens by a click."""


STYLE = re.compile(r"<style scoped>.*?</style>\n", re.DOTALL)
"""Of pandas: JupyterLab has a style of its own, and GitHub's viewer takes it out."""


class ShownTable(pd.DataFrame):
    """A table as a notebook shows it: cells whole, a caption above, behind a click where it is longer than `ROWS`.

    Whatever pandas derives from it is a plain data frame again.
    """

    _metadata = ["caption"]  # noqa: RUF012 - pandas reads the names of its subclass's attributes here

    def _repr_html_(self) -> str:
        """What Jupyter shows; only tags that GitHub's viewer keeps."""
        # pandas cuts cells at 50 characters unless told not to
        whole = ("display.max_colwidth", None, "display.max_rows", None, "display.max_columns", None)
        with pd.option_context(*whole, "display.html.use_mathjax", False):  # what is between two $ is no formula
            shown = super()._repr_html_()
        shown = STYLE.sub("", shown)
        caption = html.escape(self.caption, quote=False)
        if len(self) > ROWS:
            return folded(f"{caption or 'Table'} ({len(self)} rows)", shown)
        return f"<p><em>{caption}</em></p>\n{shown}" if caption else shown


def cell(value: Any) -> str:
    """One value as a table shows it: floats with three decimals, intervals with their ends, None as a dash."""
    if value is None:
        return "–"
    if isinstance(value, Interval):
        return interval(value)
    if isinstance(value, float):
        return _minus(f"{value:z.3f}" if abs(value) < 1000 else f"{value:,.0f}")
    return _minus(f"{value:,}") if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _minus(number: str) -> str:
    """A number with a minus sign in place of the hyphen."""
    return number.replace("-", "−")


def interval(found: Interval | None, digits: int = 3) -> str:
    """`0.930 [0.910, 0.950]`, the estimate alone where there are too few seeds for an interval, a dash for None."""
    if found is None:
        return cell(None)
    if found.low is None:
        return _minus(f"{found.estimate:z.{digits}f}")
    return _minus(f"{found.estimate:z.{digits}f} [{found.low:z.{digits}f}, {found.high:z.{digits}f}]")


def signed(value: float | Interval | None, digits: int = 3) -> str:
    """`+0.038`, or `+0.038 [+0.021, +0.055]`, with a minus sign that is one; a dash for None."""
    if value is None:
        return cell(None)
    if not isinstance(value, Interval):
        return _minus(f"{value:+z.{digits}f}")
    if value.low is None:
        return signed(value.estimate, digits)
    return f"{signed(value.estimate, digits)} [{signed(value.low, digits)}, {signed(value.high, digits)}]"


def percent(value: float | None, digits: int = 1) -> str:
    """`2.4%`, a dash for None."""
    return cell(None) if value is None else _minus(f"{value:z.{digits}%}")


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> ShownTable:
    """Rows as a data frame of formatted cells, which a notebook shows as a table; the first column is the index."""
    formatted = [[cell(value) for value in row] for row in rows]
    shown = pd.DataFrame(formatted, columns=list(header)).set_index(header[0])
    # its name above the first column, not in a row of its own
    found = ShownTable(shown.rename_axis(index=None, columns=header[0]))
    found.caption = caption
    return found


def markdown(shown: pd.DataFrame) -> str:
    """The same table as Markdown, for pages that are no notebook."""
    return markdown_table(
        [shown.columns.name or "", *shown.columns],
        [[key, *row] for key, row in zip(shown.index, shown.to_numpy(), strict=True)],
    )


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; cells as `cell` shows them."""
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *(f"| {' | '.join(map(cell, row))} |" for row in rows)])


def foreign(text: str) -> str:
    """A name of someone else's for a cell of a Markdown table that a terminal shows as well.

    Invisible characters are written out, since a terminal acts on them; what would end the cell or start a tag, code or
    a link becomes an entity.
    """
    return re.sub(r"[|<>&`\[]", lambda match: f"&#{ord(match[0])};", visible(text))


def folded(title: str, content: str) -> str:
    """HTML that a reader opens by a click: for long tables."""
    return f"<details><summary>{title}</summary>\n\n{content}\n\n</details>"
