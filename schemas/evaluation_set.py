"""The knobs of an evaluation set: which pictures of a dataset it takes, how many of a category, and their prompts."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from schemas.recipe import Run
from schemas.strict import StrictModel

Share = Annotated[float, Field(gt=0, le=1)]
Category = Annotated[str, Field(pattern=r"^[^\W_][\w &+-]*$", max_length=80)]
"""Also the name of a folder."""


class EvaluationSet(StrictModel):
    """Choose pictures and prompts for evaluating a model. The same dataset and knobs give the same set."""

    num_categories: Annotated[int, Field(ge=1)] = 10
    """Categories that are taken where none are named: the most common head nouns of the captions, the first noun of a
    caption that is not in `ignored_nouns`."""
    per_category: Annotated[int, Field(ge=1)] = 3000
    """Pictures of each category. The paper's set: 30,000 pictures, here 10 x 3,000 as MJHQ-30K has them."""
    categories: dict[Category, tuple[str, ...]] = {}
    """Category -> its nouns, as they are in the table `nouns`: {animals: [cat, dog], food: [bread, soup]}. A picture is
    in the category of the first noun of its caption that any of them has. Takes the place of `num_categories`."""
    ignored_nouns: tuple[str, ...] = (
        *("photo", "photograph", "picture", "image", "shot", "view", "scene", "close-up", "closeup", "background"),
        *("foreground", "front", "side", "top", "group", "pair", "couple", "lot", "set", "piece", "portrait"),
    )
    """Nouns that say how a picture was made or how much of something there is, and are no head noun."""
    min_short_side_px: Annotated[int, Field(ge=1)] = 1024
    """Shortest allowed short side, in upright px."""
    aesthetic_share: Share = 0.5
    """Share of the dataset's samples, those of the highest aesthetic score, that may be taken."""
    max_source_share: Share = 0.5
    """Largest share of a category that one source may give, where the candidates are of several sources."""
    min_sharpness: Annotated[float, Field(ge=0)] | None = None
    """Lowest allowed `screens.sharpness`, in grey levels; null keeps all, as in every limit below. A picture whose
    screen the dataset has not computed passes."""
    max_upscale: Annotated[float, Field(ge=1)] | None = 1.5
    """Largest factor by which a picture may look enlarged."""
    max_border: Annotated[float, Field(ge=0, le=1)] | None = 0.02
    """Largest share of the picture that is frame or bars."""
    max_nsfw: Annotated[float, Field(ge=0, le=1)] | None = 0.2
    """Largest probability of the classifier `nsfw`."""
    max_watermark: Annotated[float, Field(ge=0, le=1)] | None = 0.5
    """Largest probability of the classifier `watermark`."""
    min_clip_similarity: Annotated[float, Field(ge=-1, le=1)] | None = 0.2
    """Lowest cosine between picture and raw caption."""
    max_text_area: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest share of the picture that is writing."""
    max_faces: Annotated[int, Field(ge=0)] | None = None
    """Most faces in a picture."""
    max_face_area: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest share of the picture that one face covers."""
    min_tokens: Annotated[int, Field(ge=1)] = 5
    """Fewest CLIP tokens of a prompt, its begin and end not counted."""
    max_tokens: Annotated[int, Field(ge=1, le=248)] = 75
    """Most CLIP tokens of a prompt, its begin and end not counted: CLIP reads 75, Long-CLIP 248."""
    against: tuple[str, ...] = ()
    """Training datasets that the set must have no picture and no prompt of, as folders or addresses in a store."""
    max_distance: Annotated[int, Field(ge=0, le=6)] | None = 3
    """Largest Hamming distance of two pHashes that counts as the same picture, as `dedup.max_distance`."""
    salt: str = "evaluation set"
    """Names the coin that decides between candidates; another one takes others."""
    run: Run = Run()

    @model_validator(mode="after")
    def _possible(self) -> Self:
        nouns = [noun for listed in self.categories.values() for noun in listed]
        if twice := [noun for noun in nouns if nouns.count(noun) > 1]:
            raise ValueError(f"categories: {twice[0]!r} is in two of them")
        if empty := [name for name, listed in self.categories.items() if not listed]:
            raise ValueError(f"categories.{empty[0]}: name at least one noun")
        if self.min_tokens > self.max_tokens:
            raise ValueError("min_tokens is more than max_tokens")
        return self
