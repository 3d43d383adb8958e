"""Share-Captioner, the captioner of PixArt-Σ's data, on transformers' own classes."""

from captioning.captioners.share_captioner.captioner import Generated, ShareCaptioner
from captioning.captioners.share_captioner.generation import Decoding
from captioning.captioners.share_captioner.recipe_captioner import RecipeCaptioner

__all__ = ["Decoding", "Generated", "RecipeCaptioner", "ShareCaptioner"]
