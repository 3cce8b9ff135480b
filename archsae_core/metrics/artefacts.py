"""Tokens that are formatting rather than words: white space, punctuation, markup. No person or model judges them.

A feature whose activation mass lies on such tokens is real, but it is about how the text is written down.
"""

import re
import unicodedata
from collections.abc import Sequence

from archsae_core.metrics.contexts import PART

KINDS = ("white space", "punctuation", "markup")
"""Of formatting tokens."""
WORD = -1
"""Stands for no kind: a token with a letter, a digit, a sign of currency, or a part of one."""
MARKUP = re.compile(
    r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});"  # entities: &#233; &amp;
    r"|</?[A-Za-z][^<>\n]{0,200}>"  # tags
    r"|<!--"
    r"|<\|[^|<>\n]{1,40}\|>"  # what language models write between documents
)


def kind_of(token: str) -> int:
    """Index in `KINDS` of white space or punctuation, `WORD` for anything else; the token alone shows no markup.

    Punctuation has characters of Unicode's categories P, S and C alone, but for currencies. A token without text is a
    `WORD`: it starts a character that a later one completes.
    """
    if not token or PART in token:
        return WORD
    signs = token.strip()
    if not signs:
        return KINDS.index("white space")
    categories = {unicodedata.category(character) for character in signs if not character.isspace()}
    formatting = all(category[0] in "PSC" and category != "Sc" for category in categories)
    return KINDS.index("punctuation") if formatting else WORD


def kinds_of(tokens: Sequence[str]) -> list[int]:
    """`kind_of` every token of a text that the tokens join to; those of an entity or a tag are markup."""
    kinds = [kind_of(token) for token in tokens]
    text = "".join(tokens)
    inside = bytearray(len(text))
    for match in MARKUP.finditer(text):
        inside[match.start() : match.end()] = b"\1" * (match.end() - match.start())
    start = 0
    for i, token in enumerate(tokens):
        if any(inside[start : start + len(token)]):
            kinds[i] = KINDS.index("markup")
        start += len(token)
    return kinds
