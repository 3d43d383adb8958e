"""The recipe's sections `aesthetic` and `screen`: the measurements of every picture, and how their models run."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, field_validator, model_validator

from schemas.devices import OnDevice
from schemas.reasons import Rejection
from schemas.strict import StrictModel

PUBLISHED = ("nsfw", "watermark")
"""Columns that a published classifier fills where the recipe names no other; its label has the column's name."""


class Limit(NamedTuple):
    """The column of `screens` that a knob of `select` limits, and why a picture beyond it is refused."""

    column: str
    reason: Rejection


LIMITS = {
    "min_sharpness": Limit("sharpness", Rejection.BLURRED),
    "max_upscale": Limit("upscale", Rejection.UPSCALED),
    "max_border": Limit("border", Rejection.BORDERED),
    "max_nsfw": Limit("nsfw", Rejection.NSFW),
    "max_watermark": Limit("watermark", Rejection.WATERMARKED),
    "min_clip_similarity": Limit("clip_similarity", Rejection.CAPTION_OFF),
    "max_text_area": Limit("text_area", Rejection.TEXT),
    "max_faces": Limit("faces", Rejection.FACES),
    "max_face_area": Limit("face_area", Rejection.LARGE_FACE),
}
"""The limits by their knob, in the order in which `select` applies them."""

LIMITED = tuple(limit.column for limit in LIMITS.values())
"""The columns of `screens` that have a limit."""

LATER = ("max_text_area", "max_faces", "max_face_area")
"""Limits that records of earlier builds do not name: one that is null counts as absent, so that these stay as good."""

SWITCHES = {"face_area": "faces"}
"""Column -> the switch of `screen` that fills it, where that has another name."""


class Models(OnDevice):
    """The knobs by which a job runs its models. They change no more than the last digits of a result."""

    batch_size: Annotated[int, Field(ge=1)] = 64
    """Pictures per pass."""
    device: str = "auto"
    """`auto` takes a GPU where there is one; else a name of torch, such as cuda:1 or cpu."""

    def uses_models(self) -> bool:
        """True if the job has a model to run."""
        raise NotImplementedError

    def model_device(self) -> str:
        return self.device

    def num_gpus(self) -> float | None:
        """A job without models has no use for a GPU, whatever the recipe says."""
        return super().num_gpus() if self.uses_models() else 0

    def content(self) -> dict[str, Any]:
        """The knobs that decide the job's results."""
        return {name: value for name, value in self.resolved().items() if name not in Models.model_fields}


class Aesthetic(Models):
    """Score every picture; the threshold is a knob of `select`."""

    scorer: Literal["photographic", "laion"] = "photographic"
    """`photographic` measures sharpness, contrast, colourfulness and exposure, on a scale of 1 to 10. No weights.
    `laion` is LAION's predictor: CLIP ViT-L/14 and a linear head, trained on people's ratings of 1 to 10."""
    clip: str | None = None
    """CLIP for `laion`: a folder, or a hub id in the local cache. Null: CLIP ViT-L/14, the only one the published
    head fits."""
    head: str | None = None
    """Head for `laion`: a .pth or .safetensors file, a folder with one, or a hub id in the local cache. Null: LAION's
    sac+logos+ava1-l14-linearMSE."""
    store_embeddings: bool = False
    """Keep the CLIP embeddings of `laion` in the table `embeddings`, in 16 bits: 1.5 kB a picture.
    False deletes those of an earlier run."""

    @model_validator(mode="after")
    def _has_embeddings_to_store(self) -> Self:
        if self.store_embeddings and self.scorer != "laion":
            raise ValueError("store_embeddings needs scorer: laion, which makes them")
        return self

    def uses_models(self) -> bool:
        return self.scorer == "laion"

    def knobs(self) -> dict[str, Any]:
        """The knobs that decide the scores: the scorer, and its models."""
        return self.content() if self.uses_models() else {"scorer": self.scorer}


class Classifier(StrictModel):
    """An image classifier of transformers, and which of its labels is read."""

    model: str | None = None
    """A folder, or a hub id in the local cache. Null: the published model of the columns `nsfw` and `watermark`."""
    label: str | None = None
    """The label whose probability is the score. Null: `nsfw` or `watermark`, in the columns of these names."""


class Screen(Models):
    """Look for flaws of a picture: columns of `screens`. All off by default; the limits are knobs of `select`."""

    sharpness: bool = False
    """Measure how sharp the sharpest tenth of the picture is."""
    upscale: bool = False
    """Estimate by what factor the picture was enlarged, from its spectrum. Reads each original that is larger than
    its proxy once more."""
    border: bool = False
    """Measure frames and letterbox bars."""
    classifiers: dict[str, Classifier] = {}
    """Column -> image classifier. `nsfw: {}` and `watermark: {}` take the published ones; a column of any other name
    names its `model` and `label`, and its scores are in the column `classes`."""
    clip_similarity: bool = False
    """Cosine of CLIP between the picture and its raw caption, as `clean` left it."""
    text_area: bool = False
    """Measure how much of the picture is writing, with PP-OCRv4's detector (`sigma weights get ppocr-detector`)."""
    faces: bool = False
    """Count faces and measure the largest, with CenterFace (`sigma weights get centerface`)."""
    clip: str | None = None
    """CLIP for `clip_similarity`: a folder, or a hub id in the local cache. Null: CLIP ViT-L/14."""

    @field_validator("classifiers")
    @classmethod
    def _can_be_columns(cls, value: dict[str, Classifier]) -> dict[str, Classifier]:
        for name, classifier in value.items():
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(f"{name!r}: the name of a column is lower-case letters, digits and _")
            if name not in PUBLISHED and not (classifier.model and classifier.label):
                raise ValueError(f"{name} needs a model and a label; only {' and '.join(PUBLISHED)} have their own")
        return value

    def uses_models(self) -> bool:
        """Classifiers and CLIP run on a GPU where there is one; the other screens are work of the CPU."""
        return bool(self.classifiers) or self.clip_similarity

    def columns(self) -> frozenset[str]:
        """The columns of `screens` that the job fills."""
        measured = {name for name in LIMITED if getattr(self, SWITCHES.get(name, name), False)}
        own = {name for name in self.classifiers if name in PUBLISHED}
        others = {"classes"} if self.classifiers.keys() - own else set()
        return frozenset(measured | own | others)

    def knobs(self) -> dict[str, Any]:
        """The knobs that decide the job's results."""
        # a screen that came later counts where it is on, so that earlier records are as good
        counts = {"clip": self.clip_similarity, "text_area": self.text_area, "faces": self.faces}
        return {name: value for name, value in self.content().items() if counts.get(name, True)}

    def how_to_compute(self, column: str) -> str:
        """The knob that fills a column, as an override."""
        if column in PUBLISHED:
            return f"screen.classifiers.{column}={{}}"
        return (
            "a classifier in screen.classifiers"
            if column == "classes"
            else f"screen.{SWITCHES.get(column, column)}=true"
        )
