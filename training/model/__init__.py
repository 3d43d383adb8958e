"""Holds PixArt-Σ as the paper describes it and reads its published weights; others use the names below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imported where they are used: torch takes a second, and `training.model.seal` does without
    from training.model.convert import LoadReport, load_weights
    from training.model.pixart import KVCompression, PixArt, PixArtConfig

__all__ = ["KVCompression", "LoadReport", "PixArt", "PixArtConfig", "load_weights"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from training.model import convert, pixart

    return getattr(convert if hasattr(convert, name) else pixart, name)
