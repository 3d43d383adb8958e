"""The job `screen` measures the faults of a picture and stores them; `select` decides whether they refuse it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
from PIL import Image

from curation.scores.border import border
from curation.scores.classifier import ImageClassifier, find_classifier
from curation.scores.sharpness import sharpness
from curation.scores.upscale import upscale
from curation.sources import read_original
from engine.ahead import ahead
from engine.map_job import MapJob, Worker, naming
from engine.runner import Progress
from models.clip import Clip, Pixels, cosine
from models.fetching import find_packaged
from models.weights import CENTERFACE, CLIP_L14, PPOCR_DETECTOR, find_frozen
from schemas.pixels import PixelError, open_rgb
from schemas.recipe import DataRecipe
from schemas.scores import PUBLISHED, Screen
from schemas.tables import SCREENS

log = logging.getLogger(__name__)

CLIP_SIMILARITY = "clip_similarity"


def map_job(recipe: DataRecipe) -> MapJob:
    """The job that turns proxies into `screens`; captions are read only where they are compared."""
    section = recipe.screen
    return MapJob(
        job="screen",
        inputs=("proxies", "images", *(["raw_captions"] if section.clip_similarity else [])),
        outputs=("screens",),
        build=partial(ScreenWorker, section, recipe.run.threads),
        knobs={f"screen.{name}": value for name, value in section.knobs().items()},
        workers=section.workers,
        num_gpus=section.num_gpus(),
        needs=(
            *(partial(find_classifier, name, each) for name, each in sorted(section.classifiers.items())),
            *([partial(find_frozen, section.clip, CLIP_L14, "screen.clip")] if section.clip_similarity else []),
            *([partial(find_packaged, PPOCR_DETECTOR)] if section.text_area else []),
            *([partial(find_packaged, CENTERFACE)] if section.faces else []),
        ),
    )


class MeasuredPicture(NamedTuple):
    """A row with its measures, and the models' inputs for it."""

    row: dict[str, Any]
    pixels: dict[str, Pixels]
    caption: str | None


class ScreenWorker(Worker):
    """Decodes and measures on threads, then runs the models in batches."""

    def __init__(self, section: Screen, threads: int) -> None:
        """Load the models.

        Raises:
            ValueError: one is not on this machine.
        """
        from curation.scores.faces import FaceDetector  # here: planning a build needs no OpenCV
        from curation.scores.text_area import TextDetector

        self._section, self._threads = section, threads
        device = section.chosen_device()
        self._classifiers = {
            name: ImageClassifier.load(name, classifier, device)
            for name, classifier in sorted(section.classifiers.items())
        }
        self._clip = Clip.load(section.clip, "screen.clip", device) if section.clip_similarity else None
        self._text = TextDetector() if section.text_area else None
        self._faces = FaceDetector() if section.faces else None

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress) -> Mapping[str, pa.Table]:
        """`proxies` and `images` in, `screens` out; a row without a picture has nulls."""
        proxies, images = inputs["proxies"], inputs["images"]
        captions = inputs["raw_captions"]["caption"] if self._clip else pa.nulls(proxies.num_rows, pa.string())
        size = self._section.batch_size if self._section.uses_models() else 1
        rows: list[dict[str, Any]] = []
        batch: list[MeasuredPicture] = []
        measure = partial(self._measure, proxies, images, captions)
        for seen in ahead(measure, range(proxies.num_rows), self._threads, window=size + 2 * self._threads):
            batch.append(seen)
            if len(batch) == size:
                rows += self._classify(batch, progress)
                batch = []
        rows += self._classify(batch, progress)
        return {"screens": pa.Table.from_pylist(rows, schema=SCREENS)}

    def _measure(self, proxies: pa.Table, images: pa.Table, captions: pa.ChunkedArray, place: int) -> MeasuredPicture:
        """Measure one picture, and prepare the models' inputs."""
        row = {name: proxies[name][place].as_py() for name in ("row_id", "image_id")}
        jpeg = proxies["jpeg"][place].as_py()
        if jpeg is None:
            return MeasuredPicture(row, {}, None)
        with naming(f"{row['image_id']} (row {row['row_id']})"):
            picture = open_rgb(jpeg)
            original = images.slice(place, 1).to_pylist()[0]
            row |= self._measured(picture, original)
            caption = captions[place].as_py()
            pixels = {name: model.pixels(picture) for name, model in self._classifiers.items()}
            if self._clip is not None and caption is not None:
                pixels[CLIP_SIMILARITY] = self._clip.pixels(picture)
        return MeasuredPicture(row, pixels, caption)

    def _measured(self, proxy: Image.Image, original: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of the screens that look at one picture at a time."""
        found: dict[str, Any] = {}
        if self._section.sharpness:
            found["sharpness"] = sharpness(proxy)
        if self._section.border:
            share, box = border(proxy)
            scale = (original["width"] / proxy.width, original["height"] / proxy.height) * 2
            box_px = [round(edge * factor) for edge, factor in zip(box, scale, strict=True)]
            found |= {"border": share, "border_box": box_px}
        if self._section.upscale:
            picture = proxy if proxy.size == (original["width"], original["height"]) else full_size(original)
            found["upscale"] = upscale(picture) if picture is not None else None
        models = {}
        if self._text is not None:
            found["text_area"] = self._text(proxy).share
            models["text_area"] = self._text.name
        if self._faces is not None:
            faces = self._faces(proxy)
            found |= {"faces": len(faces.scores), "face_area": faces.largest}
            models["faces"] = self._faces.name
        if models:
            found["models"] = models
        return found

    def _classify(self, batch: list[MeasuredPicture], progress: Progress) -> list[dict[str, Any]]:
        """The rows of a batch with the models' columns filled in."""
        rows = [seen.row for seen in batch]
        there = [seen for seen in batch if seen.pixels]
        for name, model in self._classifiers.items():
            asked = [seen for seen in there if name in seen.pixels]
            scores = model.scores([seen.pixels[name] for seen in asked]).tolist() if asked else []
            for seen, score in zip(asked, scores, strict=True):
                if name in PUBLISHED:
                    seen.row[name] = score
                else:
                    seen.row.setdefault("classes", {})[name] = score
                seen.row.setdefault("models", {})[name] = model.name
        compared = [seen for seen in there if CLIP_SIMILARITY in seen.pixels]
        if self._clip is not None and compared:
            pictures = self._clip.embed_pixels([seen.pixels[CLIP_SIMILARITY] for seen in compared])
            texts = self._clip.embed_texts([seen.caption or "" for seen in compared])
            for seen, similarity in zip(compared, cosine(pictures, texts).diagonal().tolist(), strict=True):
                seen.row[CLIP_SIMILARITY] = similarity
                seen.row.setdefault("models", {})[CLIP_SIMILARITY] = self._clip.name
        progress(len(batch))
        return rows


def full_size(original: Mapping[str, Any]) -> Image.Image | None:
    """The picture at its own size, read from its source again. None, and a line in the log, where its bytes have
    changed since it was ingested.

    Args:
        original: a row of `images`.
    """
    try:
        data = read_original(*(original[name] for name in ("source", "member", "byte_offset", "num_bytes")))
        if hashlib.sha256(data).hexdigest() == original["sha256"]:
            return open_rgb(data, max_pixels=original["width"] * original["height"])
        why = "has other bytes than were ingested"
    except (OSError, PixelError) as error:
        why = " ".join(str(error).split())
    log.warning("image %s: its original cannot be measured: %s", original["image_id"], why)
    return None
