"""Share-Captioner, the captioner of PixArt-Σ's data, on transformers' own classes.

A recipe uses `RecipeCaptioner`, or `VllmCaptioner` whose language half is on vLLM; `ShareCaptioner` with a `Decoding`
captions pictures without one.
"""

from captioning.captioners.share_captioner.captioner import RecipeCaptioner
from captioning.captioners.share_captioner.checkpoint import ShareCaptioner
from captioning.captioners.share_captioner.generation import Decoding
from captioning.captioners.share_captioner.vllm_captioner import VllmCaptioner

__all__ = ["Decoding", "RecipeCaptioner", "ShareCaptioner", "VllmCaptioner"]
