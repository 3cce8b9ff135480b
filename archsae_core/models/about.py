"""Where an SAE comes from: what its weights do not say."""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from archsae_core.metadata import read_fields

OWN_UNITS = "The codes of each feature count in units of its own threshold."
"""Note of an imported JumpReLU SAE whose thresholds differ."""


@dataclass(frozen=True)
class About:
    """Model, text, run and scores of an SAE, kept with its weights. Every field may be unknown."""

    model: str | None = None
    """Language model: name on the hub, of an embedded model, or a folder."""
    revision: str | None = None
    """Hub revision of `model`."""
    layer: int | None = None
    """Residual stream after this block, counted from 0: `hidden_states[layer + 1]`."""
    context: int | None = None
    """Tokens in one sequence fed to the language model."""
    prepend_bos: bool | None = None
    """Whether each sequence began with the beginning-of-sequence token."""
    excluded_positions: tuple[int, ...] = ()
    """Positions of a sequence that the SAE was never trained on."""
    text: str | None = None
    """The training text, as `CorpusConfig.text` names it."""
    arm: str | None = None
    """Arm of the comparison that it belongs to."""
    seed: int | None = None
    steps: int | None = None
    """Optimiser steps."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Scores on held-out text."""
    licence: str | None = None
    """SPDX identifier in lower case, as the hub writes licences."""
    source: str | None = None
    """Where it was imported from, if it was."""
    k_recorded: bool | None = None
    """False where k is a guess, since the files that it was imported from do not say how many features are active."""
    note: str | None = None
    """What else whoever uses it has to know, as a sentence."""

    @property
    def reads_elsewhere(self) -> bool:
        """Whether its source names a place of the model other than the residual stream after a block."""
        return self.layer is None and (self.source or "").startswith("SAELens, ")

    @property
    def has_own_units(self) -> bool:
        """Whether the codes of each feature count in units of its own threshold."""
        return self.note == OWN_UNITS

    def known(self) -> dict[str, Any]:
        """The fields that say something, ready for JSON."""
        found = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        found["excluded_positions"], found["metrics"] = list(self.excluded_positions), dict(self.metrics)
        return {name: value for name, value in found.items() if value not in (None, [], {})}

    @classmethod
    def read(cls, found: Any) -> "About":
        """What `known` gave, without fields of other versions. Raises ConfigError naming a field of another kind."""
        kept = read_fields(found, typing.get_type_hints(cls), "about.")
        return cls(**(kept | {"excluded_positions": tuple(kept.get("excluded_positions", ()))}))
