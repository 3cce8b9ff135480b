"""Text that comes from data, placed in Markdown: what a document, topic or name holds is shown and does nothing."""

import re
from collections.abc import Sequence

SYNTAX = re.compile(r"[\\`*_{}\[\]()#+!|~$&<>\"'^=@:.]")
"""Characters that Markdown, HTML or MathJax could take for structure in a line; `:`, `.` and `@` make bare links."""


def literal(text: str) -> str:
    """`text` for a sentence or a table cell of Markdown: characters of its syntax become entities, line ends ⏎.

    Entities cannot stand for structure in Markdown. MathJax reads the finished page instead, so that each $ and each
    backslash stands in a <span> of its own as well: no pair can start a formula.
    """
    text = SYNTAX.sub(lambda match: _entity(match[0]), text)
    return re.sub(r"\r\n?|\n", "⏎", text.replace("\0", "\ufffd"))


def _entity(character: str) -> str:
    entity = f"&#{ord(character)};"
    return f"<span>{entity}</span>" if character in "$\\" else entity


def context_html(tokens: Sequence[str], values: Sequence[float], marked: int) -> str:
    """A context for Markdown: the marked token in <mark>, others with a code above 0 in <b>; tokens are `literal`.

    Only tags without CSS, which GitHub's viewer keeps.
    """
    pieces = []
    for i, (token, value) in enumerate(zip(tokens, values, strict=True)):
        text = literal(token)
        tag = "mark" if i == marked else "b" if value > 0 else None
        pieces.append(f"<{tag}>{text}</{tag}>" if tag else text)
    return "".join(pieces)
