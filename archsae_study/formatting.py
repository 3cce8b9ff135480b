"""Values, intervals and tables as a reader sees them."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from archsae_core.metrics.intervals import Interval


def cell(value: Any) -> str:
    """One value as a table shows it: floats with three decimals, intervals with their ends, None as a dash."""
    if value is None:
        return "–"
    if isinstance(value, Interval):
        return interval(value)
    if isinstance(value, float):
        return f"{value:z.3f}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def interval(found: Interval | None, digits: int = 3) -> str:
    """`0.930 [0.910, 0.950]`, the estimate alone where there are too few seeds for an interval, a dash for None."""
    if found is None:
        return cell(None)
    if found.low is None:
        return f"{found.estimate:z.{digits}f}"
    return f"{found.estimate:z.{digits}f} [{found.low:z.{digits}f}, {found.high:z.{digits}f}]"


def signed(value: float | Interval | None, digits: int = 3) -> str:
    """`+0.038`, or `+0.038 [+0.021, +0.055]`, with a minus sign that is one; a dash for None."""
    if value is None:
        return cell(None)
    if not isinstance(value, Interval):
        return f"{value:+z.{digits}f}".replace("-", "−")
    if value.low is None:
        return signed(value.estimate, digits)
    return f"{signed(value.estimate, digits)} [{signed(value.low, digits)}, {signed(value.high, digits)}]"


def percent(value: float | None, digits: int = 1) -> str:
    """`2.4%`, a dash for None."""
    return cell(None) if value is None else f"{value:.{digits}%}"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> pd.DataFrame:
    """Rows as a data frame of formatted cells, which a notebook shows as a table; the first column is the index."""
    formatted = [[cell(value) for value in row] for row in rows]
    shown = pd.DataFrame(formatted, columns=list(header)).set_index(header[0])
    # its name above the first column, not in a row of its own
    return shown.rename_axis(index=None, columns=header[0])


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


def folded(title: str, content: str) -> str:
    """HTML that a reader opens by a click: for long tables."""
    return f"<details><summary>{title}</summary>\n\n{content}\n\n</details>"
