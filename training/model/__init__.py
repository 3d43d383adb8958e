"""Holds PixArt-Σ as the paper describes it and reads its published weights; others use the names below."""

from training.model.convert import LoadReport, load_weights
from training.model.pixart import KVCompression, PixArt, PixArtConfig

__all__ = ["KVCompression", "LoadReport", "PixArt", "PixArtConfig", "load_weights"]
