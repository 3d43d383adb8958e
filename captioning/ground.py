"""The job `ground`: how well each sentence of a caption fits its picture, and which of its nouns are nowhere in it.

Sentences are scored one by one, because CLIP reads 77 tokens and a synthetic caption has more. A low score marks a
sentence that may be made up; it is evidence for a person, not a verdict, and nothing is refused for it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
from PIL import Image

from captioning.detector import NounDetector
from captioning.sentences import sentences
from curation.ahead import ahead
from curation.clip import Clip, cosine
from curation.stage import Progress, Stage
from schemas import recipe, tables
from schemas.pixels import PixelError, open_rgb

log = logging.getLogger(__name__)

Picture = tuple[int, Image.Image | None]
"""(row in the part, picture); None where the proxy cannot be decoded."""


def stage(data_recipe: recipe.DataRecipe) -> Stage:
    """The job as a map stage: reads `proxies`, `captions` and `nouns`, writes `grounding`."""
    section = data_recipe.ground
    speed = {"enabled", "batch_size", "device"}
    return Stage(
        job="ground",
        outputs=("grounding",),
        inputs=("proxies", "captions", "nouns"),
        build=partial(Grounder, section, data_recipe.run.threads),
        knobs={f"ground.{name}": value for name, value in section.resolved().items() if name not in speed},
    )


class Grounder:
    """The worker: CLIP, and the detector where it is asked for, loaded once."""

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
        """Score the synthetic captions of one part; a row without caption or picture has nulls."""
        proxies = inputs["proxies"]
        captions: list[str | None] = inputs["captions"]["caption"].to_pylist()
        nouns = synthetic_nouns(inputs["nouns"])
        row_ids: list[int] = proxies["row_id"].to_pylist()
        rows: list[dict[str, Any]] = [
            {"row_id": row_id, "image_id": image_id}
            for row_id, image_id in zip(row_ids, proxies["image_id"].to_pylist(), strict=True)
        ]
        todo = [number for number, caption in enumerate(captions) if caption is not None]
        progress(len(captions) - len(todo))
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
        return {"grounding": pa.Table.from_pylist(rows, schema=tables.GROUNDING)}

    def _score(
        self,
        batch: Sequence[tuple[int, Image.Image]],
        captions: Sequence[str | None],
        nouns: Mapping[int, list[str]],
        rows: list[dict[str, Any]],
    ) -> None:
        """Fill in the rows of a batch."""
        if not batch:
            return
        texts = [sentences(captions[number] or "") for number, _ in batch]
        pictures = self._clip.embed_images([picture for _, picture in batch])
        words = self._clip.embed_texts([sentence for sentences_ in texts for sentence in sentences_])
        begin = 0
        for place, (number, picture) in enumerate(batch):
            end = begin + len(texts[place])
            scores = cosine(words[begin:end], pictures[place : place + 1])[:, 0].tolist()
            begin = end
            lowest = min(range(len(scores)), key=scores.__getitem__)
            rows[number] |= {
                "scorer": self._clip.name,
                "sentences": texts[place],
                "sentence_scores": scores,
                "lowest_sentence": texts[place][lowest],
                "lowest_score": scores[lowest],
                "mean_score": sum(scores) / len(scores),
                "num_cut": sum(self._clip.num_tokens(text) > self._clip.max_tokens for text in texts[place]),
            }
            if self._detector is not None:
                rows[number] |= self._nouns(picture, nouns.get(rows[number]["row_id"], []))

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


def synthetic_nouns(table: pa.Table) -> dict[int, list[str]]:
    """row_id -> the nouns of its synthetic caption, of a part of `nouns`."""
    columns = (table[name].to_pylist() for name in ("row_id", "caption_source", "nouns"))
    return {row_id: nouns for row_id, source, nouns in zip(*columns, strict=True) if source == "synthetic" and nouns}


def _decoded(jpegs: pa.ChunkedArray, number: int) -> Picture:
    """A proxy as a picture; a damaged one is logged, not raised."""
    try:
        return number, open_rgb(jpegs[number].as_py() or b"")
    except PixelError as error:
        log.warning("row %d of the part: its proxy cannot be decoded: %s", number, error)
        return number, None
