"""The job `screen` measures the faults of a picture and stores them; `select` decides whether they refuse it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

from curation.ingest.away import AwayCheck
from engine.ahead import in_batches
from engine.map_job import MapJob, Worker, naming
from engine.runner import Progress
from models.weights import CENTERFACE, CLIP_L14, PPOCR_DETECTOR, find_frozen
from schemas.late import late
from schemas.reasons import PixelError
from schemas.recipe import DataRecipe
from schemas.scores import PUBLISHED, Screen

with late(__name__):
    import pyarrow as pa
    from PIL import Image

    from curation.scores.border import border
    from curation.scores.classifier import ImageClassifier, find_classifier
    from curation.scores.sharpness import sharpness
    from curation.scores.upscale import upscale
    from curation.sources import read_original
    from curation.sources.storage import unreadable
    from models.clip import Clip, cosine
    from models.fetching import find_packaged
    from models.preprocessing import Pixels, cover_of
    from schemas.pixels import open_rgb
    from schemas.tables import schema_of

log = logging.getLogger(__name__)

CLIP_SIMILARITY = "clip_similarity"


def map_job(recipe: DataRecipe) -> MapJob:
    """The job that turns proxies into `screens`; captions are read only where they are compared."""
    section, away = recipe.screen, AwayCheck(recipe.all_sources(), recipe.ingest.stop_after_failures)
    return MapJob(
        job="screen",
        inputs=("proxies", "images", *(["raw_captions"] if section.clip_similarity else [])),
        outputs=("screens",),
        build=partial(ScreenWorker, section, recipe.run.threads, away),
        knobs={f"screen.{name}": value for name, value in section.knobs().items()},
        workers=section.workers,
        num_gpus=section.num_gpus(),
        overlaps=True,
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
    caption: list[int]
    """as tokens of CLIP"""


class ScreenWorker(Worker):
    """Decodes and measures on threads, then runs the models in batches."""

    def __init__(self, section: Screen, threads: int, away: AwayCheck) -> None:
        """Load the models. Raises ValueError: one is not on this machine."""
        from curation.scores.faces import FaceDetector  # here: planning a build needs no OpenCV
        from curation.scores.text_area import TextDetector

        self._section, self._threads, self._away, self._turn = section, threads, away, Lock()
        device = section.chosen_device()
        self._classifiers = {
            name: ImageClassifier.load(name, classifier, device)
            for name, classifier in sorted(section.classifiers.items())
        }
        self._clip = None
        if section.clip_similarity:
            self._clip = Clip.load(section.clip, "screen.clip", device, half_on_gpu=True)
        self._text = TextDetector() if section.text_area else None
        self._faces = FaceDetector() if section.faces else None
        shown = [model.shown for model in self._classifiers.values()] + ([self._clip.shown] if self._clip else [])
        measured = section.columns() - {*section.classifiers, "classes", CLIP_SIMILARITY}
        self._cover_px = None if measured else cover_of(shown)

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress) -> Mapping[str, pa.Table]:
        """`proxies` and `images` in, `screens` out; a row without a picture has nulls."""
        proxies, images = inputs["proxies"], inputs["images"]
        captions = inputs["raw_captions"]["caption"] if self._clip else pa.nulls(proxies.num_rows, pa.string())
        columns = (proxies["row_id"], proxies["image_id"], proxies["jpeg"], captions)
        found = in_batches(
            partial(self._measure, images),
            zip(range(proxies.num_rows), *columns, strict=True),
            self._classify,
            threads=self._threads,
            size=self._section.batch_size if self._section.uses_models() else 1,
            kind=lambda seen: tuple((name, each.shape) for name, each in seen.pixels.items()) or None,
            turn=self._turn,
        )
        rows = []
        for seen, classified in found:
            rows.append(_merged(seen.row, classified or {}))
            progress(1)
        return {"screens": pa.Table.from_pylist(rows, schema=schema_of("screens"))}

    def _measure(self, images: pa.Table, values: tuple[Any, ...]) -> MeasuredPicture:
        place, (row_id, image_id, jpeg, caption) = values[0], (value.as_py() for value in values[1:])
        row = {"row_id": row_id, "image_id": image_id}
        if jpeg is None:
            return MeasuredPicture(row, {}, [])
        with naming(f"{image_id} (row {row_id})"):
            picture = open_rgb(jpeg, cover_px=self._cover_px)
            row |= self._measured(picture, images.slice(place, 1).to_pylist()[0])
            pixels = {name: model.pixels(picture) for name, model in self._classifiers.items()}
            if self._clip is None or caption is None:
                return MeasuredPicture(row, pixels, [])
            pixels[CLIP_SIMILARITY] = self._clip.pixels(picture)
        return MeasuredPicture(row, pixels, self._clip.tokens(caption))

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
            is_whole = proxy.size == (original["width"], original["height"])
            picture = proxy if is_whole else full_size(original, self._away)
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

    def _classify(self, batch: list[MeasuredPicture]) -> Callable[[], Iterator[dict[str, Any]]]:
        """Show the models a batch; the function that is returned gives their columns of each row."""
        scores = {
            name: self._classifiers[name].scoring([seen.pixels[name] for seen in batch])
            for name in batch[0].pixels
            if name in self._classifiers
        }
        if self._clip is not None and CLIP_SIMILARITY in batch[0].pixels:
            pictures = self._clip.embedding_pixels([seen.pixels[CLIP_SIMILARITY] for seen in batch])
            texts = self._clip.embedding_tokens([seen.caption for seen in batch])
            scores[CLIP_SIMILARITY] = lambda: cosine(pictures(), texts()).diagonal()

        def columns() -> Iterator[dict[str, Any]]:
            names = {name: model.name for name, model in self._classifiers.items()}
            names |= {CLIP_SIMILARITY: self._clip.name} if self._clip is not None else {}
            found = {name: get().tolist() for name, get in scores.items()}
            for values in zip(*found.values(), strict=True):
                row: dict[str, Any] = {"models": {name: names[name] for name in found}}
                for name, value in zip(found, values, strict=True):
                    if name in PUBLISHED or name == CLIP_SIMILARITY:
                        row[name] = value
                    else:
                        row.setdefault("classes", {})[name] = value
                yield row

        return columns


def _merged(measured: dict[str, Any], classified: dict[str, Any]) -> dict[str, Any]:
    """The columns of a row; both may say which models they come from."""
    models = measured.get("models", {}) | classified.get("models", {})
    return measured | classified | ({"models": models} if models else {})


def full_size(original: Mapping[str, Any], away: AwayCheck) -> Image.Image | None:
    """The picture at its own size, read from its source again. None, and a line in the log, where it is gone or its
    bytes have changed since it was ingested. `original`: a row of `images`. Raises SourceAway: so are all others."""
    try:
        data = read_original(*(original[name] for name in ("source", "member", "byte_offset", "num_bytes")))
        away.see(original, None)
        if hashlib.sha256(data).hexdigest() == original["sha256"]:
            return open_rgb(data, max_pixels=original["width"] * original["height"])
        why = "has other bytes than were ingested"
    except PixelError as error:
        why = " ".join(str(error).split())
    except OSError as error:
        why = unreadable(error).detail
        away.see(original, (unreadable(error).reason, why))
    log.warning("image %s: its original cannot be measured: %s", original["image_id"], why)
    return None
