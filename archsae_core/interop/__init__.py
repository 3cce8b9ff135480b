"""Trained dictionaries in other tools, and other people's here: what opens where is in docs/interop.md."""

from archsae_core.interop.opening import open_sae
from archsae_core.interop.overcomplete import from_overcomplete
from archsae_core.interop.saelens import from_saelens, to_saelens

__all__ = ["from_overcomplete", "from_saelens", "open_sae", "to_saelens"]
