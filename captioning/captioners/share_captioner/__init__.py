"""Share-Captioner, the captioner of PixArt-Σ's data, on transformers' own classes.

A recipe uses `RecipeCaptioner`; `ShareCaptioner` with a `Decoding` captions pictures without one.
"""

from captioning.captioners.share_captioner.captioner import RecipeCaptioner
from captioning.captioners.share_captioner.checkpoint import ShareCaptioner
from captioning.captioners.share_captioner.generation import Decoding

__all__ = ["Decoding", "RecipeCaptioner", "ShareCaptioner"]
