"""Share-Captioner, the captioner of PixArt-Σ's data, on transformers' own classes. A recipe uses `RecipeCaptioner`, or
`VllmCaptioner` whose language half is on vLLM; `ShareCaptioner` with a `Decoding` captions pictures without one."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imported where they are used: the model and its decoding need torch and transformers alone
    from captioning.captioners.share_captioner.captioner import RecipeCaptioner
    from captioning.captioners.share_captioner.checkpoint import ShareCaptioner
    from captioning.captioners.share_captioner.generation import Decoding
    from captioning.captioners.share_captioner.vllm_captioner import VllmCaptioner

__all__ = ["Decoding", "RecipeCaptioner", "ShareCaptioner", "VllmCaptioner"]
_MODULES = {
    "Decoding": "generation",
    "RecipeCaptioner": "captioner",
    "ShareCaptioner": "checkpoint",
    "VllmCaptioner": "vllm_captioner",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
