"""Text that comes from data, shown so that nothing in it is hidden."""

import unicodedata

INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories of what cannot be seen, or changes how its surroundings are seen."""
SIGNS = {"\n": "⏎", "\t": "⇥", "\r": "␍"}


def visible(text: str) -> str:
    """The text with every invisible character written out: line ends as ⏎, others as ⟨U+202E⟩."""
    return "".join(
        SIGNS.get(character, f"⟨U+{ord(character):04X}⟩") if unicodedata.category(character) in INVISIBLE else character
        for character in text
    )
