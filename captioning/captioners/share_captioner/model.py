"""Share-Captioner as a module: EVA ViT-g, a connector, InternLM-7B; with the prompt they share and their pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel, Blip2VisionConfig, Blip2VisionModel

from captioning.captioners.share_captioner.dimensions import Dimensions, QFormerDimensions, ResamplerChoices
from captioning.captioners.share_captioner.language import InternLM, language_config
from captioning.captioners.share_captioner.resampler import Resampler

PIXEL_MEAN = np.array((0.48145466, 0.4578275, 0.40821073), np.float32)
PIXEL_STD = np.array((0.26862954, 0.26130258, 0.27577711), np.float32)


class QFormer(nn.Module):
    """The connector of the v1 base: learned queries through a BERT whose layers look at the picture."""

    def __init__(self, num_queries: int, dimensions: QFormerDimensions, vision_width: int) -> None:
        super().__init__()
        self.query_tokens = nn.Parameter(torch.empty(1, num_queries, dimensions.width))
        self.qformer = Blip2QFormerModel(
            Blip2QFormerConfig(
                hidden_size=dimensions.width,
                num_hidden_layers=dimensions.depth,
                num_attention_heads=dimensions.heads,
                intermediate_size=dimensions.mlp,
                hidden_act="gelu",
                layer_norm_eps=dimensions.ln_eps,
                cross_attention_frequency=dimensions.cross_attention_every,
                encoder_hidden_size=vision_width,
            )
        )

    def forward(self, vision: Tensor) -> Tensor:
        """(B, N, vision width) -> (B, queries, width)."""
        queries = self.query_tokens.expand(len(vision), -1, -1)
        return self.qformer(query_embeds=queries, encoder_hidden_states=vision).last_hidden_state


class ShareCaptionerModel(nn.Module):
    """Pictures and prompt ids to logits; `captioning.captioners.share_captioner.loading` fills it."""

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        self.dimensions = dimensions
        self.vision = Blip2VisionModel(
            Blip2VisionConfig(
                hidden_size=dimensions.vision_width,
                intermediate_size=dimensions.vision_mlp,
                num_hidden_layers=dimensions.vision_depth,
                num_attention_heads=dimensions.vision_heads,
                patch_size=dimensions.patch_size,
                image_size=dimensions.image_size,
                hidden_act="gelu",  # the exact one, by erf
                layer_norm_eps=dimensions.vision_ln_eps,
                qkv_bias=True,
            )
        )
        width, connector = dimensions.vision_width, dimensions.connector
        self.connector: Resampler | QFormer
        if isinstance(connector, ResamplerChoices):
            setattr(self.vision, "post_layernorm", nn.Identity())  # noqa: B010, mypy: the blocks' output is not normalised
            self.connector = Resampler(dimensions.num_queries, dimensions.connector_width, width, connector)
        else:
            self.vision.post_layernorm = nn.LayerNorm(width, eps=dimensions.ln_vision_eps)
            self.connector = QFormer(dimensions.num_queries, connector, width)
        self.projection = nn.Linear(dimensions.connector_width, dimensions.hidden_size)
        self.flag_image_start = nn.Parameter(torch.empty(1, 1, dimensions.hidden_size))
        self.flag_image_end = nn.Parameter(torch.empty(1, 1, dimensions.hidden_size))
        self.language = InternLM(language_config(dimensions))

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, image_size, image_size), normalised -> the embeddings between the flags, (B, queries, hidden)."""
        vision = self.vision(pixel_values=pixel_values).last_hidden_state
        return self.projection(self.connector(vision))

    def prompt(self, image_embeds: Tensor, ids_before: Tensor, ids_after: Tensor) -> Tensor:
        """Text, start flag, picture, end flag, text: (B, L, hidden), the same L for every picture. `image_embeds` is
        (B, queries, hidden); the ids are (L1,) and (L2,), or (B, L1) and (B, L2)."""
        batch = len(image_embeds)
        embed = self.language.get_input_embeddings()
        before, after = (embed(ids).expand(batch, -1, -1) for ids in (ids_before, ids_after))
        start, end = (flag.expand(batch, -1, -1) for flag in (self.flag_image_start, self.flag_image_end))
        return torch.cat((before, start, image_embeds, end, after), dim=1)


def preprocess(images: Sequence[Image.Image], size_px: int) -> Tensor:
    """(B, 3, size, size) float32: squashed to a square by bicubic resampling, without crop or padding, normalised.
    Alpha is dropped, as published, not composited: the colours under transparent pixels count."""
    return torch.stack([_normalised(image, size_px) for image in images])


def _normalised(image: Image.Image, size_px: int) -> Tensor:
    squashed = image.convert("RGB").resize((size_px, size_px), Image.Resampling.BICUBIC)
    pixels = (np.asarray(squashed, np.float32) / np.float32(255) - PIXEL_MEAN) / PIXEL_STD
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())
