"""What was expected of a result and did not come true: shown beside the result, where a reader must see it.

A notebook asserts only what holds whatever the parameters are. That L0 comes near k, say, is an expectation: with few
steps, or many active codes of few features, it fails, and the report goes on with a flag.
"""

from collections.abc import Iterable, Mapping


def with_flags(text: str, flags: Iterable[str]) -> str:
    """A Markdown text with a line for each flag after it; the text alone where there is none."""
    return "  \n".join([text, *(f"⚠ **Flag:** {flag}." for flag in flags)])


def l0(found: Mapping[str, float], k: int) -> list[str]:
    """Dictionaries whose mean number of active codes, by name, is more than 1 % off k."""
    return [
        f"L0 of `{name}` is {value:.1f}, not k = {k}: some tokens have fewer positive codes than k"
        for name, value in found.items()
        if abs(value - k) >= 0.01 * k
    ]
