"""Types of transformers, for annotations.

Importing its models takes three seconds, and reading results, training on activations or comparing dictionaries needs
none of them: until a model is loaded, a language model is a module and its tokenizer anything.
"""

from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
else:
    PreTrainedModel = nn.Module
    PretrainedConfig = PreTrainedTokenizerBase = Any

__all__ = ["PreTrainedModel", "PreTrainedTokenizerBase", "PretrainedConfig"]
