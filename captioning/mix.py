"""The job `mix`: a coin per image says whether its sample carries the synthetic or the raw caption."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import pyarrow as pa

from captioning.text import clean, kept_mask
from curation.stage import Progress, Stage
from schemas import recipe, tables
from schemas.ids import unit_interval
from schemas.reasons import Fallback
from schemas.tokens import MAX_TOKENS, count_tokens

SYNTHETIC, RAW = "synthetic", "raw"

Choice = tuple[str | None, str | None, Fallback | None]
"""(caption, its source, why it is not the one that the coin said)"""


def stage(data_recipe: recipe.DataRecipe) -> Stage:
    """The job as a map stage: reads `images`, `captions` and `selection`, writes `mix`."""
    section = data_recipe.mix
    return Stage(
        job="mix",
        outputs=("mix",),
        inputs=("images", "captions", "selection"),
        build=partial(Mixer, section),
        knobs={"mix.synthetic_share": section.synthetic_share, "mix.salt": section.salt},
    )


def choose(raw: str | None, synthetic: str | None, coin: float, synthetic_share: float) -> Choice:
    """Follow the coin, or fall back to the other caption where the one it names is missing.

    A coin under `synthetic_share` takes the synthetic caption, so raising the share only ever moves images from raw
    to synthetic.

    Returns:
        The caption, its source and the reason of a fallback; three times None where there is no caption at all.
    """
    if coin < synthetic_share:
        if synthetic is not None:
            return synthetic, SYNTHETIC, None
        return (raw, RAW, Fallback.SYNTHETIC_MISSING) if raw is not None else (None, None, None)
    if raw is not None:
        return raw, RAW, None
    return (synthetic, SYNTHETIC, Fallback.RAW_MISSING) if synthetic is not None else (None, None, None)


class Mixer:
    """The worker."""

    def __init__(self, section: recipe.Mix) -> None:
        self._section = section

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress) -> dict[str, pa.Table]:
        """Toss for the kept rows of one part; a row that was not kept has neither coin nor caption."""
        images = inputs["images"]
        kept = kept_mask(images, inputs["selection"])
        coins: list[float | None] = []
        choices: list[Choice] = []
        for image_id, row_kept, raw, synthetic in zip(
            images["image_id"].to_pylist(),
            kept,
            images["raw_caption"].to_pylist(),
            inputs["captions"]["caption"].to_pylist(),
            strict=True,
        ):
            coin = unit_interval(image_id, self._section.salt) if row_kept else None
            coins.append(coin)
            choices.append(
                (None, None, None)
                if coin is None
                else choose(clean(raw), synthetic, coin, self._section.synthetic_share)
            )
        num_tokens = [None if caption is None else count_tokens(caption) for caption, _, _ in choices]
        progress(images.num_rows)
        return {
            "mix": pa.table(
                {
                    "row_id": images["row_id"],
                    "image_id": images["image_id"],
                    "caption": [caption for caption, _, _ in choices],
                    "caption_source": [source for _, source, _ in choices],
                    "coin": coins,
                    "fallback": [fallback for _, _, fallback in choices],
                    "num_tokens": num_tokens,
                    "truncated": [None if count is None else count > MAX_TOKENS for count in num_tokens],
                },
                schema=tables.MIX,
            )
        }
