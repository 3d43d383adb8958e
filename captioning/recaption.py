"""The job `caption`: a synthetic caption for every kept picture, and a reason for every row without one."""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice

import pyarrow as pa
from PIL import Image

from captioning.captioner import (
    CAPTIONER_ERRORS,
    Captioner,
    CaptionerUnusable,
    CaptionFailure,
    Generated,
    make_captioner,
    seed_of,
)
from captioning.text import clean, kept_mask
from curation.stage import Progress, Stage, naming
from schemas import recipe, tables
from schemas.pixels import PixelError, open_rgb
from schemas.reasons import CaptionReason
from schemas.tokens import count_tokens

log = logging.getLogger(__name__)

FAILURES_IN_A_ROW = 64
"""Pictures that fail one after the other before the job stops: then it is the captioner, not the pictures."""

Decoded = tuple[str, Image.Image | None]
"""(image_id, picture); the picture is None where its proxy cannot be decoded."""


def stage(data_recipe: recipe.DataRecipe) -> Stage:
    """The job as a map stage: reads `proxies` and `selection`, writes `captions`, takes finished captions over."""
    section = data_recipe.caption
    return Stage(
        job="caption",
        outputs=("captions",),
        inputs=("proxies", "selection"),
        build=partial(Recaptioner, partial(make_captioner, section), data_recipe.run.threads),
        knobs={f"caption.{name}": value for name, value in section.knobs().items()},
        reuses=True,
        workers=section.num_workers(),
        num_gpus=section.num_gpus(),
    )


class Recaptioner:
    """The worker: the captioner is built once, then part after part is captioned in batches."""

    def __init__(self, make: Callable[[], Captioner], threads: int) -> None:
        """Load the captioner.

        Args:
            make: gives the captioner.
            threads: how many threads decode proxies ahead of it.
        """
        self._captioner = make()
        self._parameters = json.dumps(dict(self._captioner.parameters), sort_keys=True)
        self._threads = threads
        self._num_failures = 0

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress) -> dict[str, pa.Table]:
        """Caption the kept rows of one part.

        A picture that several rows share is captioned once. Its caption in `captions.previous` is taken over where
        captioner, revision, prompt and parameters are the same.
        """
        proxies = inputs["proxies"]
        image_ids: list[str | None] = proxies["image_id"].to_pylist()
        kept = kept_mask(proxies, inputs["selection"])
        captions = self._finished(inputs.get("captions.previous"))
        todo = {
            image_id: row
            for row, image_id in enumerate(image_ids)
            if kept[row] and image_id is not None and image_id not in captions
        }
        progress(len(image_ids) - len(todo))
        captions |= self._caption_all(proxies["jpeg"], todo, progress)
        rows = [
            self._row(captions.get(image_id or "", CaptionReason.CAPTIONER_FAILED))
            if row_kept
            else self._row(CaptionReason.NOT_SELECTED)
            for image_id, row_kept in zip(image_ids, kept, strict=True)
        ]
        columns = {"row_id": proxies["row_id"], "image_id": proxies["image_id"]}
        schema = pa.schema([field for field in tables.CAPTIONS if field.name not in columns])
        table = pa.Table.from_pylist(rows, schema=schema)
        for place, (name, column) in enumerate(columns.items()):
            table = table.add_column(place, tables.CAPTIONS.field(name), column)
        return {"captions": table}

    def _finished(self, previous: pa.Table | None) -> dict[str, str | CaptionReason]:
        """image_id -> caption, of what this captioner has written before."""
        if previous is None:
            return {}
        marks = self._marks()
        return {
            row["image_id"]: row["caption"]
            for row in previous.select(["image_id", "caption", *marks]).to_pylist()
            if row["caption"] is not None and all(row[name] == mark for name, mark in marks.items())
        }

    def _caption_all(
        self, jpegs: pa.ChunkedArray, todo: Mapping[str, int], progress: Progress
    ) -> dict[str, str | CaptionReason]:
        """image_id -> its caption, or the reason why there is none, for the rows (image_id -> row) to do."""
        results: dict[str, str | CaptionReason] = {}
        pictures = self._decoded_ahead(jpegs, todo)
        while batch := list(islice(pictures, self._captioner.batch_size)):
            whole = [(image_id, picture) for image_id, picture in batch if picture is not None]
            results |= dict.fromkeys((image_id for image_id, _ in batch), CaptionReason.CAPTIONER_FAILED)
            results |= self._caption_batch([image_id for image_id, _ in whole], [picture for _, picture in whole])
            progress(len(batch))
        return results

    def _decoded_ahead(self, jpegs: pa.ChunkedArray, todo: Mapping[str, int]) -> Iterator[Decoded]:
        """The pictures in order, decoded on threads; at most two batches and one per thread wait in memory."""
        window = 2 * self._captioner.batch_size + self._threads
        with ThreadPoolExecutor(self._threads, thread_name_prefix="decode") as pool:
            waiting: deque[Future[Decoded]] = deque()
            for image_id, row in todo.items():
                waiting.append(pool.submit(_decode, image_id, jpegs[row].as_py()))
                if len(waiting) >= window:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _caption_batch(self, image_ids: list[str], pictures: list[Image.Image]) -> dict[str, str | CaptionReason]:
        """Caption a batch; where it fails, caption its pictures one by one, so that one cannot spoil the others."""
        if not pictures:
            return {}
        try:
            with naming(f"one of {', '.join(image_ids)}"):
                answers = self._captioner.caption(pictures, [seed_of(image_id) for image_id in image_ids])
        except CaptionerUnusable as error:
            error.__notes__.clear()  # it is not about these pictures
            raise
        except CAPTIONER_ERRORS as error:
            if len(pictures) > 1:
                results: dict[str, str | CaptionReason] = {}
                for image_id, picture in zip(image_ids, pictures, strict=True):
                    results |= self._caption_batch([image_id], [picture])
                return results
            return {image_ids[0]: self._failed(image_ids[0], error)}
        if any(isinstance(answer, Generated) for answer in answers):
            self._num_failures = 0
        assert len(answers) == len(pictures), f"{self._captioner.name}: {len(answers)} for {len(pictures)} pictures"
        return {
            image_id: self._failed(image_id, answer.reason)
            if isinstance(answer, CaptionFailure)
            else clean(answer.text) or CaptionReason.EMPTY_CAPTION
            for image_id, answer in zip(image_ids, answers, strict=True)
        }

    def _failed(self, image_id: str, why: object) -> CaptionReason:
        log.warning("image %s: captioner %s failed: %s", image_id, self._captioner.name, why)
        self._num_failures += 1
        if self._num_failures >= FAILURES_IN_A_ROW:
            raise CaptionerUnusable(
                f"captioner {self._captioner.name} failed on {FAILURES_IN_A_ROW} pictures one after the other, "
                f"the last time with: {' '.join(str(why).split())}"
            )
        return CaptionReason.CAPTIONER_FAILED

    def _marks(self) -> dict[str, str | None]:
        """Who writes, and how: the columns in which a caption must agree to be taken over."""
        return {
            "captioner": self._captioner.name,
            "revision": self._captioner.revision,
            "prompt": self._captioner.prompt,
            "parameters": self._parameters,
        }

    def _row(self, result: str | CaptionReason) -> dict[str, str | int | None]:
        """The columns of one row beyond its identity."""
        reason = str(result) if isinstance(result, CaptionReason) else None
        caption = None if reason else str(result)
        num_tokens = None if caption is None else count_tokens(caption)
        return {**self._marks(), "caption": caption, "num_tokens": num_tokens, "reason": reason}


def _decode(image_id: str, jpeg: bytes | None) -> Decoded:
    """A proxy as a picture; a damaged one is logged, not raised."""
    try:
        return image_id, open_rgb(jpeg or b"")
    except PixelError as error:
        log.warning("image %s: its proxy cannot be decoded: %s", image_id, error)
        return image_id, None
