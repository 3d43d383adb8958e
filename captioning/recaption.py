"""The job `caption`: a synthetic caption for every kept picture, and a reason for every row without one."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

from captioning.meter import Meter
from engine.ahead import ahead
from engine.failed_rows import FailureLimit
from engine.map_job import MapJob
from engine.paid import Paid
from engine.runner import Progress
from schemas import recipe
from schemas.columns import BESIDE
from schemas.late import late
from schemas.reasons import PURGED, CaptionReason, PixelError

with late(__name__):
    import pyarrow as pa

    from captioning import asking
    from captioning.captioners.base import Captioner, Generated
    from captioning.captioners.make import find_captioner, make_captioner
    from captioning.judging import judged_again
    from captioning.texts.gate import Judgement, judge
    from captioning.texts.text import kept_mask
    from captioning.watch import Watch
    from schemas import tables
    from schemas.pixels import open_rgb

log = logging.getLogger(__name__)

NOT_TRIED = frozenset({CaptionReason.NOT_SELECTED.value, PURGED})
"""Reasons that do not count as failures: the captioner was never called."""

_RESULT_COLUMNS = ("caption", "num_tokens", "reason", "refused_caption", "cut")


def map_jobs(data_recipe: recipe.DataRecipe) -> list[MapJob]:
    """The job as map jobs: the captioner that the mix takes, then the extra ones. Each reads `proxies` and `selection`,
    writes a table of its own, and asks for no caption that was paid for."""
    section = data_recipe.caption
    extra_captioners = {f"{BESIDE}{name}": section.for_extra_captioner(name) for name in section.beside}
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
    """The worker: the captioner is built once, then part after part is captioned."""

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
        """Load the captioner. `threads`: they decode proxies ahead of it. `table`: what is written. `gpus`: those that
        this worker holds; None is one where the captioner has put itself on a GPU. `price_per_gpu_hour`: None counts no
        cost. `languages`: those of captions; None is any. `max_failed_share`: see `Watch`."""
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
        self._watch = Watch(self._captioner.name, max_failed_share)

    def __call__(
        self, inputs: Mapping[str, pa.Table], progress: Progress, paid: Paid | None = None
    ) -> dict[str, pa.Table]:
        """Caption the kept rows of one part, a picture that several rows share once. A caption that was paid for is
        judged again and taken over where captioner, revision, prompt and parameters are the same; so is an answer that
        was refused, where asking again cannot change it, and every answer noted since the part was last whole. Answers
        are noted while others are in flight. Raises CaptionerUnusable: nearly all of the last have no caption."""
        proxies = inputs["proxies"]
        image_ids: list[str | None] = proxies["image_id"].to_pylist()
        kept = kept_mask(proxies, inputs["selection"])
        known = self._finished(paid.earlier() if paid else None, captions_only=True)
        noted = self._finished(paid.noted() if paid else None, captions_only=False)
        known |= noted
        todo = {
            image_id: row
            for row, image_id in reversed(list(enumerate(image_ids)))  # the first of rows that share a picture
            if kept[row] and image_id is not None and image_id not in known
        }
        progress(len(image_ids) - len(todo))
        identities = proxies.select(["row_id", "image_id"])
        if todo:
            self._watch.see(result.watched() for result in noted.values())

        def keep(results: Mapping[str, asking.CaptionResult]) -> None:
            if paid is not None:
                rows = [todo[image_id] for image_id in results]
                paid.note(self._rows(identities.take(rows), list(results.values())))
            known.update(results)
            progress(len(results), self._meter.take())

        # threads decode ahead of the captioner, as many pictures as it has in flight
        pictures = ahead(
            _decode, _of_rows(proxies["jpeg"], todo), self._threads, self._captioner.window + self._threads
        )
        with closing(pictures):
            asking.Asking(self._captioner, pictures, self._judged, self._watch, self._meter, keep).run()
        not_selected = asking.CaptionResult(reason=CaptionReason.NOT_SELECTED)
        found = [
            known.get(image_id or "", asking.FAILED) if row_kept else not_selected
            for image_id, row_kept in zip(image_ids, kept, strict=True)
        ]
        return {self._table: self._rows(proxies, found)}

    def _finished(self, rows: pa.Table | None, captions_only: bool) -> dict[str, asking.CaptionResult]:
        """image_id -> result of this captioner's earlier runs, without failures, which are tried again. Texts are
        judged anew, so that the rules of today hold and no captioner is called again. `captions_only`: leave out
        refused answers, unless the captioner would write them again."""
        if rows is None:
            return {}
        found = {}
        for row in rows.select(["image_id", *_RESULT_COLUMNS, *self._marks]).to_pylist():
            if any(row[name] != mark for name, mark in self._marks.items() if (name, mark) != ("revision", None)):
                continue  # a server tells its revision only with an answer: one that changed it still paid for these
            again = judged_again(row, self._languages, self._captioner.prompt)
            if again is not None:
                result = _result(*again, row["num_tokens"], row["revision"])
                if captions_only and result.caption is None and self._captioner.retries_help:
                    continue
            elif captions_only or row["reason"] == CaptionReason.CAPTIONER_FAILED:
                continue
            else:
                result = asking.CaptionResult(num_tokens=row["num_tokens"], reason=row["reason"])
            found[row["image_id"]] = result
        return found

    def _judged(self, answer: Generated) -> asking.CaptionResult:
        found = judge(answer.text, ended=answer.ended, languages=self._languages, prompt=self._captioner.prompt)
        return _result(answer.text, found, answer.num_tokens, answer.revision)

    def _rows(self, proxies: pa.Table, results: Sequence[asking.CaptionResult]) -> pa.Table:
        """Rows of the table, one per result, on the rows of `proxies`."""
        columns = {"row_id": proxies["row_id"], "image_id": proxies["image_id"]}
        columns |= {name: pa.array([mark] * len(results), pa.string()) for name, mark in self._marks.items()}
        columns |= {
            "revision": pa.array([found.revision or self._marks["revision"] for found in results], pa.string()),
            "caption": pa.array([found.caption for found in results], pa.string()),
            "num_tokens": pa.array([found.num_tokens for found in results], pa.int32()),
            "reason": pa.array([found.reason and str(found.reason) for found in results], pa.string()),
            "refused_caption": pa.array([found.refused for found in results], pa.string()),
            "cut": pa.array([list(found.cut) or None for found in results], pa.list_(pa.string())),
        }
        return pa.table(columns, schema=tables.schema_of("captions"))


def _result(answer: str, found: Judgement, num_tokens: int | None, revision: str | None) -> asking.CaptionResult:
    refused = (answer or None) if found.reason else None
    return asking.CaptionResult(found.caption, num_tokens, found.reason, refused, found.cut, revision)


def _of_rows(jpegs: Iterable[Any], todo: Mapping[str, int]) -> Iterator[tuple[str, Any]]:
    """(image_id, proxy) of some rows of a part, in its order."""
    wanted = {row: image_id for image_id, row in todo.items()}
    return ((wanted[row], jpeg) for row, jpeg in enumerate(jpegs) if row in wanted)


def _decode(todo: tuple[str, Any]) -> asking.Decoded:
    """The proxy of an (image_id, proxy) as a picture; a damaged proxy is logged, not raised."""
    image_id, jpeg = todo
    try:
        return image_id, open_rgb(jpeg.as_py() or b"")
    except PixelError as error:
        log.warning("image %s: its proxy cannot be decoded: %s", image_id, error)
        return image_id, None


def _uses_gpu() -> bool:
    """True if the captioner that was just made is on a GPU; torch is not imported for captioners without it."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())
