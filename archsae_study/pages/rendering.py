"""Text around an activation as plain text and as HTML. Tokens are data: whatever they hold is escaped."""

import html
from collections.abc import Sequence


def context_html(tokens: Sequence[str], values: Sequence[float], marked: int) -> str:
    """A context as HTML: the marked token in <mark>, others with a code above 0 in <b>. Tokens are data: all escaped.

    Only tags without CSS, which GitHub's viewer keeps. Each $ stands in its own <span>: no pair can start a formula.
    """
    pieces = []
    for i, (token, value) in enumerate(zip(tokens, values, strict=True)):
        text = html.escape(token).replace("\n", "⏎").replace("$", "<span>$</span>")
        tag = "mark" if i == marked else "b" if value > 0 else None
        pieces.append(f"<{tag}>{text}</{tag}>" if tag else text)
    return "".join(pieces)
