"""The job `ground`: how well each sentence of a caption fits its picture, and which of its nouns are nowhere in it.

Sentences are scored one by one, because CLIP reads 77 tokens and a synthetic caption has more. A low score marks a
sentence that may be made up; it is evidence for a person, and no caption is refused for it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
from PIL import Image

from captioning.detector import NounDetector
from captioning.texts.text import kept_mask, raw_offers, sentences
from engine.ahead import ahead
from engine.map_job import MapJob
from engine.runner import Progress
from models.clip import Clip, cosine
from models.weights import CLIP_L14, OWLV2, find_frozen
from schemas import recipe, tables
from schemas.pixels import PixelError, open_rgb

log = logging.getLogger(__name__)

Picture = tuple[int, Image.Image | None]
"""(row in the part, picture); None where the proxy cannot be decoded."""


def map_job(data_recipe: recipe.DataRecipe) -> MapJob:
    """The job as a map stage: reads `proxies`, `nouns` and the tables of the captions, writes `grounding`, one row per
    input and caption source."""
    section = data_recipe.ground
    speed = {"enabled", "batch_size", "device"}
    captions = tuple(table for source in section.sources for table in caption_tables(source))
    return MapJob(
        job="ground",
        outputs=("grounding",),
        inputs=("proxies", *captions, "nouns"),
        build=partial(Grounder, section, data_recipe.run.threads),
        knobs={f"ground.{name}": value for name, value in section.resolved().items() if name not in speed},
        rows_per_input=len(section.sources),
        needs=(
            partial(find_frozen, section.clip, CLIP_L14, "ground.clip"),
            *([partial(find_frozen, section.detector, OWLV2, "ground.detector")] if section.nouns else []),
        ),
    )


def caption_tables(source: str) -> tuple[str, ...]:
    """The tables that the captions of a source are read from."""
    return {"synthetic": ("captions",), "raw": ("raw_captions", "selection")}.get(source, (f"{tables.BESIDE}{source}",))


class Grounder:
    """The worker. It loads CLIP once, and the detector where the recipe wants it."""

    def __init__(self, section: recipe.Ground, threads: int) -> None:
        """Load the models.

        Raises:
            ValueError: they are not on this machine.
        """
        self._section, self._threads = section, threads
        self._clip = Clip.load(section.clip, "ground.clip", section.device)
        self._detector = (
            NounDetector.load(section.detector, "ground.detector", section.device) if section.nouns else None
        )

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress) -> dict[str, pa.Table]:
        """Score the captions of one part; a row without caption or picture has nulls."""
        proxies, sources = inputs["proxies"], self._section.sources
        captions = [_captions(inputs, source) for source in sources]
        nouns = nouns_by_caption(inputs["nouns"])
        ids = zip(proxies["row_id"].to_pylist(), proxies["image_id"].to_pylist(), strict=True)
        rows: list[list[dict[str, Any]]] = [
            [{"row_id": row_id, "image_id": image_id, "caption_source": source} for source in sources]
            for row_id, image_id in ids
        ]
        todo = [number for number in range(len(rows)) if any(texts[number] is not None for texts in captions)]
        progress(len(rows) - len(todo))
        batch: list[tuple[int, Image.Image]] = []
        for number, picture in ahead(partial(_decoded, proxies["jpeg"]), todo, self._threads):
            if picture is None:
                progress(1)
            else:
                batch.append((number, picture))
            if len(batch) == self._section.batch_size:
                self._score(batch, captions, nouns, rows)
                progress(len(batch))
                batch = []
        self._score(batch, captions, nouns, rows)
        progress(len(batch))
        flat = [row for of_image in rows for row in of_image]
        return {"grounding": pa.Table.from_pylist(flat, schema=tables.GROUNDING)}

    def _score(
        self,
        batch: Sequence[tuple[int, Image.Image]],
        captions: Sequence[Sequence[str | None]],
        nouns: Mapping[tuple[int, str], list[str]],
        rows: Sequence[Sequence[dict[str, Any]]],
    ) -> None:
        """Fill in the rows of a batch; a picture is looked at once for all its captions."""
        if not batch:
            return
        todo = [
            (place, rows[number][source], sentences(texts[number] or ""))
            for place, (number, _) in enumerate(batch)
            for source, texts in enumerate(captions)
            if texts[number] is not None
        ]
        pictures = self._clip.embed_images([picture for _, picture in batch])
        words = self._clip.embed_texts([sentence for _, _, texts in todo for sentence in texts])
        begin = 0
        for place, row, texts in todo:
            end = begin + len(texts)
            scores = cosine(words[begin:end], pictures[place : place + 1])[:, 0].tolist()
            begin = end
            lowest = min(range(len(scores)), key=scores.__getitem__)
            row |= {
                "scorer": self._clip.name,
                "sentences": texts,
                "sentence_scores": scores,
                "lowest_sentence": texts[lowest],
                "lowest_score": scores[lowest],
                "mean_score": sum(scores) / len(scores),
                "num_cut": sum(self._clip.num_tokens(text) > self._clip.max_tokens for text in texts),
            }
            if self._detector is not None:
                row |= self._nouns(batch[place][1], nouns.get((row["row_id"], row["caption_source"]), []))

    def _nouns(self, picture: Image.Image, nouns: Sequence[str]) -> dict[str, Any]:
        """The columns of the detector."""
        assert self._detector is not None
        distinct = list(dict.fromkeys(nouns))
        scores = self._detector.scores(picture, distinct)
        ungrounded = [
            noun for noun, score in zip(distinct, scores, strict=True) if score < self._section.min_noun_score
        ]
        return {
            "detector": self._detector.name,
            "nouns": distinct,
            "noun_scores": scores,
            "ungrounded": ungrounded,
            "ungrounded_share": len(ungrounded) / len(distinct) if distinct else None,
        }


def nouns_by_caption(table: pa.Table) -> dict[tuple[int, str], list[str]]:
    """(row_id, caption source) -> the nouns of that caption, of a part of `nouns`."""
    columns = (table[name].to_pylist() for name in ("row_id", "caption_source", "nouns"))
    return {(row_id, source): nouns for row_id, source, nouns in zip(*columns, strict=True) if nouns}


def _captions(inputs: Mapping[str, pa.Table], source: str) -> list[str | None]:
    """The captions of a source by row of the part; of a raw one only where the row was kept."""
    table = inputs[caption_tables(source)[0]]
    if source != "raw":
        captions: list[str | None] = table["caption"].to_pylist()
        return captions
    offered = raw_offers(table, inputs["selection"])["caption"].to_pylist()
    kept = kept_mask(table, inputs["selection"])
    return [caption if row_kept else None for caption, row_kept in zip(offered, kept, strict=True)]


def _decoded(jpegs: pa.ChunkedArray, number: int) -> Picture:
    """A proxy as a picture; a damaged one is logged, not raised."""
    try:
        return number, open_rgb(jpegs[number].as_py() or b"")
    except PixelError as error:
        log.warning("row %d of the part: its proxy cannot be decoded: %s", number, error)
        return number, None
