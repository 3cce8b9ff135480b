"""Archetypal sparse autoencoders for language models: the package behind the notebooks."""

__version__ = "0.1.0"
