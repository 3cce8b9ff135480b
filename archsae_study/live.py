"""Cells that need the models themselves: `%%live` on their first line.

They run where the models are at hand. Where the numbers come from committed results, which hold no models, such a cell
shows a note instead: a reader who presses Run All sees no traceback.
"""

from collections.abc import Callable

from IPython import get_ipython
from IPython.display import Markdown

MARK = "%%live"
NOTE = (
    "*This cell looks at the trained models, which the committed results do not hold. "
    "`compute = True` in the parameters cell trains them; `make report` did, for the committed pages.*"
)


def note() -> Markdown:
    """What a live cell shows where there is no model."""
    return Markdown(NOTE)


def install(is_live: Callable[[], bool]) -> None:
    """Let cells that begin with `%%live` run in this kernel where `is_live()` says so, and show `note` elsewhere.

    Nothing happens outside IPython. A second call takes the place of the first.
    """
    shell = get_ipython()
    if shell is None:
        return

    def live_cell(lines: list[str]) -> list[str]:
        if not lines or lines[0].strip() != MARK:
            return lines
        return lines[1:] if is_live() else [f"from {__name__} import note as _note\n", "_note()\n"]

    transforms = shell.input_transformer_manager.cleanup_transforms
    transforms[:] = [known for known in transforms if getattr(known, "__name__", None) != live_cell.__name__]
    transforms.append(live_cell)
