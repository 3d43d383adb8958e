"""Answers yes-or-no questions about pictures: a BLIP here or a model behind a chat server, journalled at once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from engine.paid import Paid
from evaluation.judge.asking import ask
from evaluation.judge.pairs import Picture
from models.device import choose_device
from models.weights import load_frozen, load_preprocessing
from schemas.captioners import ChatSection
from schemas.pixels import open_rgb
from schemas.strict import fingerprint
from schemas.tables import ANSWERS

KNOB = "metrics.dpg.endpoint"
FORM = "\n\nAnswer with one word, yes or no."
"""What is added to a question for a chat model."""
LONGEST = 10
"""Tokens of a BLIP's answer."""
_REPLY = re.compile(r"[\s\"'*_`<>\[\]()]*(yes|no)(?=[\s\"'*_`<>\[\]()]*(?:[.,;:!\n-]|\Z))", re.IGNORECASE)


def read_reply(reply: str) -> bool | None:
    """Whether a reply is yes or no; None where it is neither, or names both.

    It begins with one of the two words, which a mark or a line's end follows.
    """
    found = _REPLY.match(reply)
    if found is None or len({word.lower() for word in re.findall(r"\b(?:yes|no)\b", reply, re.IGNORECASE)}) != 1:
        return None
    return found[1].lower() == "yes"


@dataclass(frozen=True)
class Asked:
    """A question about a picture; see `evaluation.judge.asking.Question`."""

    key: str
    """The same for the same pixels, text, and whoever answers."""
    number: int
    """Of the question, among those of its prompt."""
    text: str
    pictures: tuple[Picture]
    place: dict[str, Any]
    """The columns that say which picture it is."""

    @classmethod
    def of(cls, picture: Picture, place: dict[str, Any], number: int, text: str, answerer: object) -> Asked:
        """A question to an answerer, named by all that its answers depend on."""
        key = fingerprint({"text": text, "picture": picture.pixel_sha256, "answerer": answerer})
        return cls(key, number, text, (picture,), place)

    def row(self) -> dict[str, Any]:
        """The columns that say what it is about."""
        return self.place

    def read(self, reply: str) -> tuple[str, str | None]:
        """yes, no or unparsed."""
        return {True: "yes", False: "no", None: "unparsed"}[read_reply(reply)], None


class Answers:
    """What was answered about the pictures of a part, below `paid/`; see `evaluation.judge.asking.Journal`."""

    def __init__(self, paid: Paid) -> None:
        self._paid = paid
        self._replies: dict[tuple[str, int], dict[str, Any]] = {}
        for rows in (paid.earlier(), paid.noted()):
            for facts in rows["facts"].to_pylist():
                self._index(json.loads(facts))

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Make answers durable."""
        made = []
        for row in rows:
            place = {name: row[name] for name in ("row_id", "prompt_id", "number", "category")}
            facts = {name: value for name, value in row.items() if name not in place}
            made.append(place | {"facts": json.dumps(facts)})
            self._index(facts)
        if made:
            self._paid.note(pa.Table.from_pylist(made, schema=ANSWERS))

    def settle(self) -> None:
        """Put the files of single answers together."""
        self._paid.settle()

    def reply(self, key: str) -> dict[str, Any] | None:
        """The last attempt at a question, read by the rules of today."""
        row = self._replies.get((key, 1)) or self._replies.get((key, 0))
        if row is None or row["reply"] is None:
            return row
        return row | {"verdict": "unparsed" if read_reply(row["reply"]) is None else "read"}

    def _index(self, facts: dict[str, Any]) -> None:
        self._replies[facts["question"], facts["attempt"]] = facts


Answerer = Callable[[Sequence[Asked], Answers], None]
"""Puts the answers to questions into the journal where it does not have them.

Raises ValueError where it cannot, of all that it could not answer; what was answered until then is kept.
"""


def ask_server(section: ChatSection, questions: Sequence[Asked], answers: Answers) -> None:
    """The answerer behind a chat server. A reply that is neither yes nor no is asked for once more."""
    failures = ask(section, questions, answers, lambda _: None, KNOB)
    if failures:
        raise ValueError(
            f"{len(failures):,} questions have no answer, for example: {next(iter(failures.values()))}; what was "
            "answered is kept, and the same command asks the others again"
        )


def load_blip(folder: Path, device: str) -> Answerer:
    """The answerer that a folder holds: all questions about a picture at once, the likeliest words of each.

    Raises:
        ValueError: the folder holds no BLIP that answers questions, or a damaged one; or there is no such device.
    """
    import torch
    from transformers import BlipForQuestionAnswering, BlipProcessor

    model = load_frozen(BlipForQuestionAnswering.from_pretrained, folder).to(choose_device(device))
    # by Pillow: the other backend is torchvision's
    processor = load_preprocessing(BlipProcessor.from_pretrained, folder, "BLIP", backend="pil")

    def replies(picture: Image.Image, texts: list[str]) -> list[str]:
        inputs = processor(images=picture, text=texts, padding=True, truncation=True, return_tensors="pt")
        pixels = inputs.pop("pixel_values").expand(len(texts), -1, -1, -1)
        with torch.inference_mode():
            found = model.generate(pixel_values=pixels.to(model.device), **inputs.to(model.device),
                                   max_new_tokens=LONGEST, do_sample=False, num_beams=1)  # fmt: skip
        words: list[str] = processor.batch_decode(found[:, 1:], skip_special_tokens=True)  # the first one starts it
        return [text.strip() for text in words]

    return partial(_answer_here, replies)


def _answer_here(
    replies: Callable[[Image.Image, list[str]], list[str]], questions: Sequence[Asked], answers: Answers
) -> None:
    unknown: dict[Picture, list[Asked]] = {}
    for each in questions:
        if answers.reply(each.key) is None:
            unknown.setdefault(each.pictures[0], []).append(each)
    for picture, asked in unknown.items():
        said = replies(open_rgb(picture.data()), [each.text for each in asked])
        answers.add([each.place | {"question": each.key, "attempt": 0, "reply": reply}
                     for each, reply in zip(asked, said, strict=True)])  # fmt: skip
