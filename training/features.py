"""Which sets of features a recipe and its stages want, and whether those that are there can be used."""

from __future__ import annotations

import hashlib
import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from schemas.buckets import TABLES
from schemas.features import LATENTS, MIXED, NULL_FILE, TOSSED, VERSION, difference, read_record
from schemas.files import at_hand, read_file
from schemas.seal import read_json, write_json
from schemas.shard_index import INDEX_FILE, no_index
from schemas.training import Stage, TrainingRecipe
from schemas.unread import why_damaged
from training.data.stored import StoredArrays
from training.data.tars import Copies
from training.encoders.make import Encoders
from training.encoders.weights import weights_digests
from training.stages import pixel_multiple

USED_FILE = "features.json"
"""The file in a stage's folder that says which features it trains on."""


@dataclass(frozen=True)
class FeatureSet:
    """One set of features."""

    name: str
    folder: Path
    arrays: tuple[str, ...]
    stage: Stage | None
    """The stage whose pictures a set of latents holds; None is a set of text."""
    made_by: dict[str, Any]
    """The knobs that its numbers depend on, by dotted path; None where this machine does not know a value."""
    rounded: str | None
    """The dtype, where storing rounds what the encoder gives."""


def text_set(recipe: TrainingRecipe) -> FeatureSet:
    """The captions, the same for every stage: a toss needs both of a picture, else the chosen one is enough."""
    knobs = recipe.text
    made_by: dict[str, Any] = {f"text.{name}": getattr(knobs, name) for name in ("encoder", "channels", "max_tokens")}
    if knobs.encoder == "t5":
        made_by["text.precision"] = knobs.precision
    precision = knobs.precision if knobs.encoder == "t5" else "fp32"
    if recipe.data.captions == "mix":
        return _set(recipe, f"text-{knobs.encoder}", MIXED, None, made_by, precision)
    return _set(recipe, f"text-{knobs.encoder}-toss", TOSSED, None, made_by | {"data.captions": "toss"}, precision)


def latents_set(recipe: TrainingRecipe, stage: Stage) -> FeatureSet:
    """The pictures of a stage; stages that crop to the same shapes share a set."""
    knobs = recipe.latents
    made_by: dict[str, Any] = {"latents.codec": knobs.codec, "latents.channels": knobs.channels}
    if knobs.codec == "sdxl":
        made_by |= {"latents.posterior": knobs.posterior, "latents.precision": knobs.precision}
    made_by |= {"stage.resolution": stage.resolution, "stage.multi_aspect": stage.multi_aspect}
    name = f"latents-{knobs.codec}-{stage.resolution}px"
    if not stage.multi_aspect:
        name += "-square"
    elif stage.resolution not in TABLES:  # sides are then rounded to what the model divides them into
        made_by["pixel_multiple"] = pixel_multiple(recipe, stage)
        name += f"-by{made_by['pixel_multiple']}"
    precision = knobs.precision if knobs.codec == "sdxl" else "fp32"
    return _set(recipe, name, LATENTS, stage, made_by, precision)


def _set(
    recipe: TrainingRecipe,
    name: str,
    arrays: tuple[str, ...],
    stage: Stage | None,
    made_by: dict[str, Any],
    precision: str,
) -> FeatureSet:
    digests = weights_digests(recipe.latents, recipe.text)
    kind = "text.weights" if stage is None else "latents.weights"
    weights = {f"{kind} (content)": digests[kind]} if kind in digests else {}
    dtype = recipe.features.dtype
    made_by = {"version": VERSION} | made_by | weights | {"features.dtype": dtype}
    rounded = dtype if dtype == "bf16" and precision == "fp32" else None
    return FeatureSet(name, recipe.features_folder / name, arrays, stage, made_by, rounded)


def index_digest(recipe: TrainingRecipe) -> str:
    """The digest of the shard index: every sample, with offsets and sizes of members. Raises ValueError: there is
    none."""
    path = recipe.dataset_folder / "shards" / INDEX_FILE
    try:
        with at_hand(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise no_index(path) from None
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read ({why_damaged(error)}); build the dataset first (sigma build)"
        ) from None


@dataclass(frozen=True)
class StageFeatures:
    """The sets that a stage trains on; what is None is encoded while training."""

    latents: FeatureSet | None
    text: FeatureSet | None
    description: str
    """One line for the log."""

    def arrays(self, copies: Copies | None) -> tuple[StoredArrays | None, StoredArrays | None]:
        sets = (self.latents, self.text)
        latents, text = (None if found is None else StoredArrays(found.folder, copies) for found in sets)
        return latents, text

    def tar_folders(self, shards: Path) -> list[Path]:
        """The folders of which most of each tar is read; where latents are there, of pictures at most captions are."""
        sets = [found.folder for found in (self.latents, self.text) if found is not None]
        return sets if self.latents is not None else [shards, *sets]

    def load_others(self, encoders: Encoders) -> None:
        """Load the encoders that are still needed, so that a device's free memory is known."""
        if self.latents is None:
            _ = encoders.codec
        if self.text is None:
            _ = encoders.text

    @property
    def rounded(self) -> dict[str, str]:
        """The dtype of each kind whose numbers differ from those encoded while training; exact ones are left out."""
        kinds = (("latents", self.latents), ("text", self.text))
        return {kind: found.rounded for kind, found in kinds if found is not None and found.rounded is not None}

    def null_caption(self, encoders: Encoders) -> Tensor:
        """The null caption, (max_tokens, channels), without loading a text encoder where the features have it."""
        if self.text is None:
            return encoders.text.null()
        path, record = self.text.folder / NULL_FILE, read_record(self.text.folder)
        try:
            data = read_file(path)
            if record is not None and record.null_crc32 not in (None, zlib.crc32(data)):
                raise ValueError("its checksum is wrong")
            return torch.from_numpy(np.load(io.BytesIO(data), allow_pickle=False))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{path}: cannot be read ({why_damaged(error)}); delete {self.text.folder}, then run sigma encode "
                "RECIPE"
            ) from None


def stage_features(recipe: TrainingRecipe, stage: Stage) -> StageFeatures:
    """The features that a stage trains on. Raises ValueError: a set was made by another encoder or of another index, is
    not finished, or is required and absent."""
    if recipe.features.use == "off":
        return StageFeatures(None, None, "latents and text are encoded while training: features.use is off")
    index = index_digest(recipe)
    latents, text = latents_set(recipe, stage), text_set(recipe)
    has_latents, has_text = (_usable(found, index) for found in (latents, text))
    missing = [found.name for found, usable in ((latents, has_latents), (text, has_text)) if not usable]
    if missing and recipe.features.use == "require":
        raise ValueError(
            f"{recipe.features_folder}: no {' and no '.join(missing)} here, and features.use is require; "
            "make them with sigma encode RECIPE, or set features.use=auto"
        )
    description = ", ".join(
        f"{kind} {f'from {found.folder}' if usable else 'encoded while training'}"
        for kind, found, usable in (("latents", latents, has_latents), ("text", text, has_text))
    )
    if missing:
        description += f" (sigma encode RECIPE makes {' and '.join(missing)})"
    return StageFeatures(latents if has_latents else None, text if has_text else None, description)


def keep_features(folder: Path, features: StageFeatures, begun: bool) -> None:
    """Write which features a stage trains on into its folder, or compare them with those it began with. Features that
    round nothing may come and go. `begun`: the stage has a checkpoint; one without the file was trained without
    features. Raises ValueError: the stage began with features that are rounded otherwise, or with none."""
    path = folder / USED_FILE
    if path.is_file() or begun:
        try:
            stored = read_json(path)["rounded"] if path.is_file() else {}
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"{path}: damaged ({why_damaged(error)}); remove it if the stage trains without features that round, "
                "or remove this folder to start the stage again"
            ) from None
        if stored != features.rounded:
            was, now = (", ".join(f"{k} in {v}" for k, v in found.items()) for found in (stored, features.rounded))
            raise ValueError(
                f"{folder}: was trained with {f'features that round {was}' if was else 'no features that round'}, now "
                f"there are {f'some that round {now}' if now else 'none'}; set features.use or features.dtype back, or "
                "remove this folder to start the stage again"
            )
    write_json(path, {"used": features.description, "rounded": features.rounded})


def _usable(wanted: FeatureSet, index: str) -> bool:
    """Whether a set exists. Raises ValueError: it exists and cannot be used."""
    record = read_record(wanted.folder)
    if record is None:
        return False
    refuse_other(wanted, record.made_by)
    if record.index is None:
        raise ValueError(f"{wanted.folder}: is not finished; run sigma encode RECIPE again, or set features.use=off")
    if record.index != index:
        raise ValueError(
            f"{wanted.folder}: belongs to another shard index; run sigma encode RECIPE again, "
            "which encodes what changed, or set features.use=off"
        )
    return True


def refuse_other(wanted: FeatureSet, made_by: dict[str, Any]) -> None:
    """Raise ValueError, naming the first knob that differs, for a set that another encoder made."""
    differs = difference(made_by, wanted.made_by)
    if differs is not None:
        raise ValueError(
            f"{wanted.folder}: was encoded with {differs}; set it back, replace it with sigma encode RECIPE --redo, "
            "name another features.folder, or set features.use=off"
        )
