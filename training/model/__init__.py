"""PixArt-Σ as the paper describes it, and the reading of its published weights."""

from training.model.convert import LoadReport, load_weights
from training.model.pixart import KVCompression, PixArt, PixArtConfig

__all__ = ["KVCompression", "LoadReport", "PixArt", "PixArtConfig", "load_weights"]
