"""Pairs of pictures that two models have made of the same prompts, and what is asked about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, NamedTuple

from engine.dataset import Dataset
from evaluation.judge.reply import question
from evaluation.picture_files import read_picture
from schemas.captioners import ChatSection
from schemas.files import entries_in, place_of
from schemas.ids import unit_interval
from schemas.judging import Aspect, Judged, JudgeRecipe
from schemas.strict import fingerprint

Order = Literal["ab", "ba"]
ORDERS: tuple[Order, Order] = ("ab", "ba")


@dataclass(frozen=True)
class Picture:
    """Where the bytes of a picture are, and the digest of its pixels."""

    root: Path
    """Of its evaluation."""
    file: str
    offset: int | None
    size: int | None
    pixel_sha256: str

    def data(self) -> bytes:
        """The bytes of the picture's file. Raises OSError: they cannot be read."""
        return read_picture(self.root, vars(self))


@dataclass(frozen=True)
class Pair:
    """The pictures of two models of one prompt."""

    prompt_id: str
    number: int
    prompt: str
    models: tuple[str, str]
    pictures: tuple[Picture, Picture]

    @property
    def is_equal(self) -> bool:
        return self.pictures[0].pixel_sha256 == self.pictures[1].pixel_sha256

    @cached_property
    def blind_id(self) -> str:
        """The id that people see. It depends on the pixels and the prompt, and on no model's name."""
        return fingerprint(["pair", self.prompt, *sorted(picture.pixel_sha256 for picture in self.pictures)])

    @cached_property
    def blind_order(self) -> Order:
        """The order in which people see the pictures, by a coin that knows the pixels and the prompt alone."""
        heads = unit_interval(self.blind_id, "order") < 0.5
        return "ab" if heads == (self.pictures[0].pixel_sha256 < self.pictures[1].pixel_sha256) else "ba"

    def shown(self, order: Order) -> tuple[Picture, Picture]:
        first, second = self.pictures
        return (first, second) if order == "ab" else (second, first)

    def row(self, aspect: str, order: Order, kind: str) -> dict[str, Any]:
        """The columns of a verdict that say what it is about."""
        models = dict(zip(("model_a", "model_b"), self.models, strict=True))
        place = {"prompt_id": self.prompt_id, "number": self.number, "aspect": aspect, "order": order, "kind": kind}
        return models | place


class Question(NamedTuple):
    """What a model is asked about pictures."""

    key: str
    """The same for the same pictures in the same order, text, model and knobs."""
    text: str
    pictures: tuple[Picture, ...]
    """In the order in which they are sent."""
    place: Mapping[str, Any]
    """The columns of an answer that say what it is about."""


def questions_of(pair: Pair, aspects: tuple[Aspect, ...], section: ChatSection) -> list[Question]:
    """Every aspect of a pair in both orders."""
    found = []
    for aspect in aspects:
        text = question(aspect, pair.prompt)
        for order in ORDERS:
            pictures = pair.shown(order)
            asked = {"text": text, "pictures": [each.pixel_sha256 for each in pictures], "judge": section.knobs()}
            found.append(Question(fingerprint(asked), text, pictures, pair.row(aspect, order, "model")))
    return found


class Pairs(NamedTuple):
    pairs: list[Pair]
    num_prompts: int
    """Whose pictures are compared."""
    num_all: int
    """Prompts that the evaluations have."""

    @property
    def different(self) -> list[Pair]:
        """Those whose pictures differ: nobody is asked about the others."""
        return [pair for pair in self.pairs if not pair.is_equal]


def find_pairs(recipe: JudgeRecipe) -> Pairs:
    """The pairs of all models, prompt by prompt, in an order that a higher `max_prompts` only adds to. Raises
    ValueError: a folder is no evaluation or lacks a model, two have other prompts, or a picture is missing."""
    prompts, pictures = dict[str, str](), dict[str, Mapping[tuple[str, int], Picture | str]]()
    read: dict[str, dict[str, str]] = {}
    for name, judged in recipe.models.items():
        dataset = Dataset(place_of(judged.evaluation))
        if judged.evaluation not in read:
            read[judged.evaluation] = _prompts(dataset)
            prompts = prompts or read[judged.evaluation]
            _refuse_other_prompts(recipe, judged, prompts, read[judged.evaluation])
        pictures[name] = _pictures(dataset, judged.model or name)
    chosen = sorted(prompts, key=lambda prompt_id: (unit_interval(prompt_id, "judge"), prompt_id))[: recipe.max_prompts]
    numbers = range(min(max((number for _, number in found), default=0) for found in pictures.values()) + 1)
    for name, judged in recipe.models.items():
        _refuse_missing(
            f"{judged.evaluation}, model {name}",
            pictures[name],
            [(prompt_id, number) for prompt_id in chosen for number in numbers],
        )
    pairs = [
        Pair(prompt_id, number, prompts[prompt_id], models, (pictures[models[0]][at], pictures[models[1]][at]))  # type: ignore[arg-type]
        for prompt_id in chosen
        for number in numbers
        for at in [(prompt_id, number)]
        for models in combinations(recipe.models, 2)
    ]
    return Pairs(pairs, len(chosen), len(prompts))


def _prompts(dataset: Dataset) -> dict[str, str]:
    rows = dataset.read_table("prompts", ["prompt_id", "prompt", "reason"]).to_pylist()
    found = {row["prompt_id"]: row["prompt"] for row in rows if row["reason"] is None}
    if not found:
        raise ValueError(f"{dataset.root}: has no prompts; name a folder that sigma evaluate has written")
    return found


def _refuse_other_prompts(
    recipe: JudgeRecipe, judged: Judged, wanted: Mapping[str, str], found: Mapping[str, str]
) -> None:
    first = next(iter(recipe.models.values())).evaluation
    for prompt_id in dict.fromkeys([*wanted, *found]):
        here, there = wanted.get(prompt_id), found.get(prompt_id)
        if here != there:
            texts = [f"{text[:80]!r}" if text else "nothing" for text in (here, there)]
            raise ValueError(
                f"{first} and {judged.evaluation} have other prompts, first {prompt_id}: {texts[0]} there, {texts[1]} "
                "here; only pictures of the same prompts compare"
            )


def _pictures(dataset: Dataset, model: str) -> dict[tuple[str, int], Picture | str]:
    """(prompt_id, number) -> the picture, or the reason why there is none; one that is blank is one all the same."""
    table = f"pictures/{model}"
    if not dataset.parts(table):
        known = sorted(name for name in entries_in(dataset.folder("pictures")) if name[0] != ".")
        raise ValueError(f"{dataset.root}: has no pictures of a model {model}; it has {', '.join(known) or 'none'}")
    columns = ["prompt_id", "number", "file", "offset", "size", "pixel_sha256", "reason"]
    return {
        (row["prompt_id"], row["number"]): row["reason"] or "not there"
        if row["pixel_sha256"] is None
        else Picture(dataset.root, row["file"], row["offset"], row["size"], row["pixel_sha256"])
        for row in dataset.read_table(table, columns).to_pylist()
    }


def _refuse_missing(where: str, found: Mapping[tuple[str, int], Picture | str], wanted: list[tuple[str, int]]) -> None:
    missing = [at for at in wanted if not isinstance(found.get(at), Picture)]
    if missing:
        prompt_id, number = missing[0]
        raise ValueError(
            f"{where}: {len(missing):,} of {len(wanted):,} pictures are missing, first number {number} of prompt "
            f"{prompt_id} ({found.get(missing[0], 'not there')}); run sigma evaluate again to have them, or set "
            "max_prompts lower"
        )
