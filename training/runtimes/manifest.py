"""The manifest of an exported model: what it is, what it came from, what it can draw, and how exact it is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field

from schemas.commit import write_bytes
from schemas.strict import StrictModel, fingerprint
from schemas.texts import parse_json
from training.runtimes.kinds import Recipe, Runtime

if TYPE_CHECKING:  # a manifest is read without torch, which takes a second
    from training.model.pixart import PixArtConfig

MANIFEST = "manifest.json"
NULL_CAPTION_FILE = "null_caption.safetensors"
"""The null caption, (max caption tokens, caption channels), under its official name."""
FORMAT = 1
"""Of the manifest; a folder of a higher one is refused."""
Pixels = Annotated[int, Field(gt=0)]


class Origin(StrictModel):
    """The weights that were exported."""

    name: str
    """Name of the file or folder, without the folders above it."""
    stage: str | None = None
    """The stage of training, where it is a checkpoint of ours."""
    weights: str
    """16 hex digits that name the content of the file or folder."""
    averaged: bool = True
    """The average of a checkpoint, not its last weights."""


class Sizes(StrictModel):
    """The pictures that the graph can draw, by height and width."""

    multiple_px: Pixels
    """Height and width are multiples of it."""
    minimum_px: Pixels
    maximum_px: Pixels
    fixed: tuple[tuple[int, int], ...] = ()
    """(height, width) of a runtime that takes these alone; empty where any size between the limits will do."""

    def refuse(self, height: int, width: int) -> None:
        """Raise a ValueError where a picture of height x width px cannot be drawn."""
        if self.fixed and (height, width) not in self.fixed:
            there = ", ".join(f"{rows}x{columns}" for rows, columns in self.fixed)
            raise ValueError(
                f"{height}x{width} px (height x width): this export draws {there} alone; export it again with "
                f"--size {height}x{width}"
            )
        for side in (height, width):
            if side % self.multiple_px or not self.minimum_px <= side <= self.maximum_px:
                raise ValueError(
                    f"{height}x{width} px (height x width): this export draws multiples of {self.multiple_px} from "
                    f"{self.minimum_px} to {self.maximum_px} px; choose such a size"
                )


class Parity(StrictModel):
    """One comparison of the exported model with torch in fp32, on random input."""

    timestep: float
    height_px: Pixels
    width_px: Pixels
    tokens: Pixels
    relative_error: float
    """Norm of the difference over the norm of torch's noise."""

    @property
    def sqnr_db(self) -> float:
        """The noise as a signal over its error, in decibels."""
        return -20 * math.log10(max(self.relative_error, 1e-12))


class Layer(StrictModel):
    """A linear layer that the recipe's rounding moves, measured on its own: its input is what torch gives in fp32."""

    name: str
    relative_error: float
    """Norm of the change of its output over the norm of the output."""


class Manifest(StrictModel):
    """What `manifest.json` holds."""

    sigma_runtime: int = FORMAT
    """The format of this file."""
    runtime: Runtime
    runtime_version: str
    """Of the package that wrote the graph."""
    recipe: Recipe
    origin: Origin
    architecture: dict[str, Any]
    """The fields of `PixArtConfig`: widths, image size, position-embedding interpolation, KV compression."""
    guidance: float | None = None
    """The guidance that a distilled model has folded in; null where the sampler guides."""
    sizes: Sizes
    parity: tuple[Parity, ...] = ()
    worst_layers: tuple[Layer, ...] = ()
    """The five linear layers that the recipe moves most; none in fp32."""
    files: dict[str, str]
    """sha256 of every other file of the folder, by its name."""

    @property
    def config(self) -> PixArtConfig:
        """The architecture as the model takes it."""
        from training.model.pixart import KVCompression, PixArtConfig

        kv = self.architecture["kv_compression"]
        compression = kv and KVCompression(tuple(kv["layers"]), kv["ratio"])
        return PixArtConfig(**(self.architecture | {"kv_compression": compression}))

    def write(self, folder: Path) -> None:
        """Write `manifest.json`, with a digest of the manifest itself as its last key."""
        content = self.resolved()
        text = json.dumps(content | {"digest": fingerprint(content)}, indent=2)
        write_bytes(folder / MANIFEST, f"{text}\n".encode())

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the manifest of a folder; what is in the other files is not looked at. Raises ValueError: the folder is
        no export of ours, is of a newer version, its manifest was changed, or a file of it is gone."""
        path = folder / MANIFEST
        make = "make one with sigma export"
        if not path.is_file():
            raise ValueError(f"{folder}: holds no {MANIFEST}, so it is no exported model; {make}")
        try:
            content = parse_json(path.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise ValueError(f"{path}: cannot be read ({error}); {make}") from None
        if not isinstance(content, dict) or not isinstance(content.get("sigma_runtime"), int):
            raise ValueError(f"{path}: is no manifest of sigma export; {make}")
        if content["sigma_runtime"] > FORMAT:
            raise ValueError(
                f"{path}: is of format {content['sigma_runtime']}, here up to {FORMAT} is known; update Sigma, or "
                "export the model again with this one"
            )
        if content.pop("digest", None) != fingerprint(content):
            raise ValueError(f"{path}: was changed after the export; {make}")
        manifest = cls.from_mapping(content, origin=str(path))
        for name in manifest.files:
            if not (folder / name).is_file():  # a pipe would be waited for
                raise ValueError(f"{folder / name}: is gone or no file; export the model again")
        return manifest


def refuse_changes(folder: Path, files: Mapping[str, str]) -> None:
    """Raise a ValueError where a file of an export is missing or is not what was exported."""
    from training.model.seal import digested

    for name, expected in files.items():
        path = folder / name
        try:
            found = digested(path, path.stat().st_size).hexdigest()
        except OSError as error:
            raise ValueError(f"{path}: cannot be read ({error.strerror}); export the model again") from None
        if found != expected:
            raise ValueError(f"{path}: was changed after the export (its sha256 is another); export the model again")
