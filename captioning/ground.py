"""The job `ground`: how well each sentence of a caption fits its picture, and which of its nouns are nowhere in it.
Sentences are scored one by one, because CLIP reads 77 tokens and a synthetic caption has more. A low score marks a
sentence that may be made up; it is evidence for a person, and no caption is refused for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any

from engine.ahead import in_batches
from engine.map_job import MapJob
from engine.runner import Progress
from models.weights import CLIP_L14, OWLV2, find_frozen
from schemas import recipe
from schemas.columns import BESIDE
from schemas.late import late
from schemas.reasons import PixelError

with late(__name__):
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from captioning.detector import NounDetector
    from captioning.texts.text import kept_mask, raw_offers, sentences
    from models.clip import Clip, Embeddings, cosine
    from models.preprocessing import Pixels
    from schemas import tables
    from schemas.pixels import open_rgb

log = logging.getLogger(__name__)

DETECTED_AT_ONCE = 8
"""Most pictures in a batch where a detector looks too: one for it takes 11 MB."""


@dataclass(frozen=True)
class Said:
    """A caption of a picture, ready for the models."""

    source: int
    """The place of its source."""
    sentences: list[str]
    tokens: list[list[int]]
    """of each sentence"""
    nouns: list[str]
    """distinct; none where no detector looks for them"""
    queries: list[NDArray[np.int64]]


@dataclass(frozen=True)
class Looked:
    """A picture with its captions, ready for the models."""

    pixels: Pixels
    detected: NDArray[np.float32] | None
    """for the detector"""
    said: list[Said]


def map_job(data_recipe: recipe.DataRecipe) -> MapJob:
    """The job: reads `proxies`, `nouns` and tables of captions, writes `grounding`, a row per input and caption
    source."""
    section = data_recipe.ground
    captions = tuple(table for source in section.sources for table in caption_tables(source))
    return MapJob(
        job="ground",
        outputs=("grounding",),
        inputs=("proxies", *captions, "nouns"),
        build=partial(Grounder, section, data_recipe.run.threads),
        knobs={f"ground.{name}": value for name, value in section.content().items() if name != "enabled"},
        rows_per_input=len(section.sources),
        workers=section.workers,
        num_gpus=section.num_gpus(),
        overlaps=True,
        needs=(
            partial(find_frozen, section.clip, CLIP_L14, "ground.clip"),
            *([partial(find_frozen, section.detector, OWLV2, "ground.detector")] if section.nouns else []),
        ),
    )


def caption_tables(source: str) -> tuple[str, ...]:
    return {"synthetic": ("captions",), "raw": ("raw_captions", "selection")}.get(source, (f"{BESIDE}{source}",))


class Grounder:
    """The worker. It loads CLIP once, and the detector where the recipe wants it."""

    def __init__(self, section: recipe.Ground, threads: int) -> None:
        """Load the models. Raises ValueError: they are not on this machine."""
        self._section, self._threads, self._turn = section, threads, Lock()
        device = section.chosen_device()
        self._clip = Clip.load(section.clip, "ground.clip", device, half_on_gpu=True)
        self._detector = NounDetector.load(section.detector, "ground.detector", device) if section.nouns else None

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
        values = zip(range(len(rows)), proxies["jpeg"], *captions, strict=True)
        found = in_batches(
            partial(self._look, nouns, rows),
            values,
            self._score,
            threads=self._threads,
            size=min(self._section.batch_size, DETECTED_AT_ONCE if self._detector else self._section.batch_size),
            turn=self._turn,
        )
        for of_image, (_, scored) in zip(rows, found, strict=True):
            for source, columns in scored or ():
                of_image[source] |= columns
            progress(1)
        flat = [row for of_image in rows for row in of_image]
        return {"grounding": pa.Table.from_pylist(flat, schema=tables.schema_of("grounding"))}

    def _look(
        self,
        nouns: Mapping[tuple[int, str], list[str]],
        rows: Sequence[Sequence[Mapping[str, Any]]],
        values: tuple[Any, ...],
    ) -> Looked | None:
        """A proxy and its captions, prepared; None without a caption, or where the proxy is damaged, which is
        logged."""
        number, jpeg, *captions = values
        if all(caption is None for caption in captions):
            return None
        whole = self._detector is not None
        try:
            picture = open_rgb(jpeg.as_py() or b"", cover_px=None if whole else self._clip.shown.cover_px)
        except PixelError as error:
            log.warning("row %d of the part: its proxy cannot be decoded: %s", number, error)
            return None
        said = []
        for source, caption in enumerate(captions):
            if caption is not None:
                row, texts = rows[number][source], sentences(caption)
                named = nouns.get((row["row_id"], row["caption_source"]), []) if self._detector else []
                distinct = list(dict.fromkeys(named))
                queries = self._detector.queries(distinct) if self._detector else []
                said.append(Said(source, texts, [self._clip.tokens(text) for text in texts], distinct, queries))
        return Looked(self._clip.pixels(picture), self._detector.pixels(picture) if self._detector else None, said)

    def _score(self, batch: list[Looked]) -> Callable[[], Iterator[list[tuple[int, dict[str, Any]]]]]:
        """Show the models a batch, each picture once for all its captions; the function that is returned gives of each
        picture (place of the source, columns of its row)."""
        pictures = self._clip.embedding_pixels([looked.pixels for looked in batch])
        words = self._clip.embedding_tokens([text for looked in batch for said in looked.said for text in said.tokens])
        detected = [
            self._detector.scoring(looked.detected, said.queries)
            for looked in batch
            for said in looked.said
            if self._detector is not None and looked.detected is not None
        ]

        def columns() -> Iterator[list[tuple[int, dict[str, Any]]]]:
            rows, begin, scores = words(), 0, iter(detected)
            for looked, picture in zip(batch, pictures(), strict=True):
                found = []
                for said in looked.said:
                    row = self._sentences(said, rows[begin : begin + len(said.tokens)], picture[None])
                    if self._detector is not None:
                        row |= self._nouns(said.nouns, next(scores)())
                    begin += len(said.tokens)
                    found.append((said.source, row))
                yield found

        return columns

    def _sentences(self, said: Said, words: Embeddings, picture: Embeddings) -> dict[str, Any]:
        scores = cosine(words, picture)[:, 0].tolist()
        lowest = min(range(len(scores)), key=scores.__getitem__)
        return {
            "scorer": self._clip.name,
            "sentences": said.sentences,
            "sentence_scores": scores,
            "lowest_sentence": said.sentences[lowest],
            "lowest_score": scores[lowest],
            "mean_score": sum(scores) / len(scores),
            "num_cut": sum(len(tokens) > self._clip.max_tokens for tokens in said.tokens),
        }

    def _nouns(self, distinct: list[str], scores: list[float]) -> dict[str, Any]:
        assert self._detector is not None
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
        return table["caption"].to_pylist()
    offered = raw_offers(table, inputs["selection"])["caption"].to_pylist()
    kept = kept_mask(table, inputs["selection"])
    return [caption if row_kept else None for caption, row_kept in zip(offered, kept, strict=True)]
