"""Selectors: what scores candidate passages by how much they would help the language model."""

from gainrag.selectors.cross_encoder import CrossEncoderSelector

__all__ = ["CrossEncoderSelector"]
