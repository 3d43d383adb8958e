"""The job `caption`: a synthetic caption for every kept picture, and a reason for every row without one."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import pyarrow as pa
from PIL import Image

from captioning.captioners.base import (
    CAPTIONER_ERRORS,
    Answer,
    Captioner,
    CaptionerUnusable,
    CaptionFailure,
    Generated,
    seed_of,
)
from captioning.captioners.make import find_captioner, make_captioner
from captioning.meter import Meter
from captioning.texts.gate import judge
from captioning.texts.text import kept_mask
from captioning.watch import Watch
from engine.ahead import ahead
from engine.failed_rows import FailureLimit
from engine.map_job import MapJob, naming
from engine.paid import Paid
from engine.runner import Progress
from schemas import recipe, tables
from schemas.pixels import PixelError, open_rgb
from schemas.reasons import PURGED, CaptionReason
from schemas.tokens import count_tokens

log = logging.getLogger(__name__)

FAILURES_IN_A_ROW = 64
"""Pictures that fail one after the other before the job stops: then it is the captioner, not the pictures."""

Decoded = tuple[str, Image.Image | None]
"""(image_id, picture); the picture is None where its proxy cannot be decoded."""


@dataclass(frozen=True)
class CaptionResult:
    """The outcome for one picture: a caption, or the reason why there is none."""

    caption: str | None = None
    num_tokens: int | None = None
    """as the captioner counted; None where it does not count them"""
    reason: str | None = None
    refused: str | None = None
    """the answer that the gate refused, as it was written"""
    cut: tuple[str, ...] = ()
    """what was taken off around the caption"""


NOT_TRIED = frozenset({CaptionReason.NOT_SELECTED.value, PURGED})
"""Reasons that do not count as failures: the captioner was never called."""

_RESULT_COLUMNS = ("caption", "num_tokens", "reason", "refused_caption", "cut")

FAILED = CaptionResult(reason=CaptionReason.CAPTIONER_FAILED)


def map_jobs(data_recipe: recipe.DataRecipe) -> list[MapJob]:
    """The job as map jobs: the captioner that the mix takes, then the extra ones.

    Each reads `proxies` and `selection`, writes a table of its own, and asks for no caption that was paid for.
    """
    section = data_recipe.caption
    extra_captioners = {f"{tables.BESIDE}{name}": section.for_extra_captioner(name) for name in section.beside}
    return [_map_job(data_recipe, own, table) for table, own in ({"captions": section} | extra_captioners).items()]


def _map_job(data_recipe: recipe.DataRecipe, section: recipe.Caption, table: str) -> MapJob:
    languages = data_recipe.clean.languages
    knobs = {f"caption.{name}": value for name, value in section.knobs().items()}
    if languages != recipe.Clean().languages:  # captions of datasets before the gate knew languages stay up to date
        knobs["clean.languages"] = languages
    return MapJob(
        job="caption",
        outputs=(table,),
        inputs=("proxies", "selection"),
        build=partial(
            Recaptioner,
            partial(make_captioner, section),
            data_recipe.run.threads,
            table,
            section.gpus_per_worker,
            section.price_per_gpu_hour,
            languages,
            section.max_failed_share,
        ),
        knobs=knobs,
        pays=True,
        workers=section.num_workers(),
        num_gpus=section.num_gpus(),
        failures=FailureLimit("caption", section.max_failed_share, NOT_TRIED),
        needs=(partial(find_captioner, section),),
    )


class Recaptioner:
    """The worker: the captioner is built once, then part after part is captioned in batches."""

    def __init__(
        self,
        make: Callable[[], Captioner],
        threads: int,
        table: str = "captions",
        gpus: float | None = 0,
        price_per_gpu_hour: float | None = None,
        languages: Collection[str] | None = ("en",),
        max_failed_share: float = 0.05,
    ) -> None:
        """Load the captioner.

        Args:
            make: gives the captioner.
            threads: how many threads decode proxies ahead of it.
            table: what is written.
            gpus: that this worker holds; None is one where the captioner has put itself on a GPU.
            price_per_gpu_hour: for the counters; None counts no cost.
            languages: that captions may be in; None is any.
            max_failed_share: of pictures without a caption; see `Watch`.
        """
        self._captioner = make()
        self._marks: dict[str, str | None] = {
            "captioner": self._captioner.name,
            "revision": self._captioner.revision,
            "prompt": self._captioner.prompt,
            "parameters": json.dumps(dict(self._captioner.parameters), sort_keys=True),
        }
        """Author and way of writing: the columns in which a caption must agree to be taken over."""
        self._threads, self._table = threads, table
        self._meter = Meter(float(_uses_gpu()) if gpus is None else gpus, price_per_gpu_hour)
        self._languages = languages
        self._num_failures = 0
        self._watch = Watch(self._captioner.name, max_failed_share)

    def __call__(
        self, inputs: Mapping[str, pa.Table], progress: Progress, paid: Paid | None = None
    ) -> dict[str, pa.Table]:
        """Caption the kept rows of one part.

        A picture that several rows share is captioned once. A caption that was paid for is judged again and taken over
        where captioner, revision, prompt and parameters are the same; so is an answer that was refused, where asking
        again cannot change it, and every answer noted since the part was last whole. Each batch is noted before the
        next is begun.

        Raises:
            CaptionerUnusable: nearly all of the last pictures have no caption.
        """
        proxies = inputs["proxies"]
        image_ids: list[str | None] = proxies["image_id"].to_pylist()
        kept = kept_mask(proxies, inputs["selection"])
        known = self._finished(paid.earlier() if paid else None, captions_only=True)
        noted = self._finished(paid.noted() if paid else None, captions_only=False)
        known |= noted
        todo = {
            image_id: row
            for row, image_id in enumerate(image_ids)
            if kept[row] and image_id is not None and image_id not in known
        }
        progress(len(image_ids) - len(todo))
        identities = proxies.select(["row_id", "image_id"])
        if todo:
            self._watch.see((result.reason, result.refused) for result in noted.values())
        for batch in self._batches(proxies["jpeg"], todo):
            results = self._caption_all(batch)
            if paid is not None:
                rows = [todo[image_id] for image_id in results]
                paid.note(self._rows(identities.take(rows), list(results.values())))
            known |= results
            progress(len(batch), self._meter.take())
            self._watch.see((result.reason, result.refused) for result in results.values())
        not_selected = CaptionResult(reason=CaptionReason.NOT_SELECTED)
        found = [
            known.get(image_id or "", FAILED) if row_kept else not_selected
            for image_id, row_kept in zip(image_ids, kept, strict=True)
        ]
        return {self._table: self._rows(proxies, found)}

    def _finished(self, rows: pa.Table | None, captions_only: bool) -> dict[str, CaptionResult]:
        """image_id -> result of this captioner's earlier runs, without failures, which are tried again.

        Texts are judged anew, so that the rules of today hold and no captioner is called again.

        Args:
            captions_only: leave out refused answers, unless the captioner would write them again.
        """
        if rows is None:
            return {}
        found = {}
        for row in rows.select(["image_id", *_RESULT_COLUMNS, *self._marks]).to_pylist():
            if any(row[name] != mark for name, mark in self._marks.items()):
                continue
            answer = row["caption"] if row["refused_caption"] is None else row["refused_caption"]
            if answer is not None:
                result = self._judged(Generated(answer, row["reason"] != CaptionReason.CUT, row["num_tokens"]))
                if result.caption is not None:
                    result = replace(result, cut=(*result.cut, *(row["cut"] or ())))
                if captions_only and result.caption is None and self._captioner.retries_help:
                    continue
            elif captions_only or row["reason"] == CaptionReason.CAPTIONER_FAILED:
                continue
            else:
                result = CaptionResult(num_tokens=row["num_tokens"], reason=row["reason"])
            found[row["image_id"]] = result
        return found

    def _batches(self, jpegs: pa.ChunkedArray, todo: Mapping[str, int]) -> Iterator[list[Decoded]]:
        """The pictures of the rows (image_id -> row), as many at once as the captioner takes.

        Threads decode ahead; at most two batches and one picture per thread wait in memory.
        """
        window = 2 * self._captioner.batch_size + self._threads
        pictures = ahead(partial(_decode, jpegs), todo.items(), self._threads, window)
        while True:
            with self._meter.timing("waiting_s"):
                batch = list(islice(pictures, self._captioner.batch_size))
            if not batch:
                return
            yield batch

    def _caption_all(self, batch: Sequence[Decoded]) -> dict[str, CaptionResult]:
        """A result for every picture of a batch; refused captions are written once more, together, where that helps."""
        pictures = {image_id: picture for image_id, picture in batch if picture is not None}
        results = {image_id: FAILED for image_id, _ in batch} | self._judge(self._ask(pictures, attempt=0))
        if self._captioner.retries_help:
            refused = {image_id: pictures[image_id] for image_id, found in results.items() if _is_refused(found)}
            again = self._judge(self._ask(refused, attempt=1))
            # where the second try fails, the reason of the first one is kept
            results |= {image_id: found for image_id, found in again.items() if found is not FAILED}
        self._meter.add(images=len(pictures))
        return results

    def _ask(self, pictures: Mapping[str, Image.Image], attempt: int) -> dict[str, Answer]:
        """Ask about some pictures at once; where that fails, one by one, so that one cannot spoil the others."""
        if not pictures:
            return {}
        image_ids = list(pictures)
        try:
            with naming(f"one of {', '.join(image_ids)}"), self._meter.timing("model_s"):
                answers = self._captioner.caption(
                    list(pictures.values()), [seed_of(image_id, attempt) for image_id in image_ids]
                )
        except CaptionerUnusable as error:
            error.__notes__.clear()  # it is not about these pictures
            raise
        except CAPTIONER_ERRORS as error:
            if len(pictures) == 1:
                self._count_failure(image_ids[0], error)
                return {image_ids[0]: CaptionFailure(str(error))}
            found: dict[str, Answer] = {}
            for image_id, picture in pictures.items():
                found |= self._ask({image_id: picture}, attempt)
            return found
        assert len(answers) == len(pictures), f"{self._captioner.name}: {len(answers)} for {len(pictures)} pictures"
        if not all(isinstance(answer, CaptionFailure) for answer in answers):
            self._num_failures = 0
        for image_id, answer in zip(image_ids, answers, strict=True):
            if isinstance(answer, CaptionFailure):
                self._count_failure(image_id, answer.reason)
        return dict(zip(image_ids, answers, strict=True))

    def _judge(self, answers: Mapping[str, Answer]) -> dict[str, CaptionResult]:
        """The quality gate's word on every answer."""
        results: dict[str, CaptionResult] = {}
        for image_id, answer in answers.items():
            if isinstance(answer, CaptionFailure):
                results[image_id] = FAILED
                continue
            results[image_id] = self._judged(answer)
            self._meter.add(tokens=count_tokens(answer.text) if answer.num_tokens is None else answer.num_tokens)
        return results

    def _judged(self, answer: Generated) -> CaptionResult:
        prompt = self._captioner.prompt
        found = judge(answer.text, ended=answer.ended, languages=self._languages, prompt=prompt)
        refused = (answer.text or None) if found.reason else None
        return CaptionResult(found.caption, answer.num_tokens, found.reason, refused, found.cut)

    def _count_failure(self, image_id: str, why: object) -> None:
        log.warning("image %s: captioner %s failed: %s", image_id, self._captioner.name, why)
        self._num_failures += 1
        if self._num_failures >= FAILURES_IN_A_ROW:
            raise CaptionerUnusable(
                f"captioner {self._captioner.name} failed on {FAILURES_IN_A_ROW} pictures one after the other, "
                f"the last time with: {' '.join(str(why).split())}"
            )

    def _rows(self, proxies: pa.Table, results: Sequence[CaptionResult]) -> pa.Table:
        """Rows of the table, one per result, on the rows of `proxies`."""
        columns = {"row_id": proxies["row_id"], "image_id": proxies["image_id"]}
        columns |= {name: pa.array([mark] * len(results), pa.string()) for name, mark in self._marks.items()}
        columns |= {
            "caption": pa.array([found.caption for found in results], pa.string()),
            "num_tokens": pa.array([found.num_tokens for found in results], pa.int32()),
            "reason": pa.array([found.reason and str(found.reason) for found in results], pa.string()),
            "refused_caption": pa.array([found.refused for found in results], pa.string()),
            "cut": pa.array([list(found.cut) or None for found in results], pa.list_(pa.string())),
        }
        return pa.table(columns, schema=tables.CAPTIONS)


def _is_refused(result: CaptionResult) -> bool:
    return result.reason is not None and result is not FAILED


def _decode(jpegs: pa.ChunkedArray, todo: tuple[str, int]) -> Decoded:
    """The proxy of an (image_id, row) as a picture; a damaged proxy is logged, not raised."""
    image_id, row = todo
    try:
        return image_id, open_rgb(jpegs[row].as_py() or b"")
    except PixelError as error:
        log.warning("image %s: its proxy cannot be decoded: %s", image_id, error)
        return image_id, None


def _uses_gpu() -> bool:
    """True if the captioner that was just made is on a GPU; torch is not imported for captioners without it."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())
