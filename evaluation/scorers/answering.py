"""Answers yes-or-no questions about pictures: a BLIP here or a model behind a chat server, journalled at once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
from PIL import Image

from evaluation.judge.asking import ask
from evaluation.judge.journal import Journal, Row
from evaluation.judge.pairs import Picture, Question
from evaluation.picture_files import named
from models.device import choose_device
from models.weights import load_frozen, load_preprocessing
from schemas.captioners import ChatSection
from schemas.pixels import open_rgb
from schemas.tables import schema_of

KNOB = "metrics.dpg.endpoint"
FORM = "\n\nAnswer with one word, yes or no."
"""What is added to a question for a chat model."""
LONGEST = 10
"""Tokens of a BLIP's answer."""
_REPLY = re.compile(r"[\s\"'*_`<>\[\]()]*(yes|no)(?=[\s\"'*_`<>\[\]()]*(?:[.,;:!\n-]|\Z))", re.IGNORECASE)


def read_reply(reply: str) -> bool | None:
    """Whether a reply is yes or no; None where it is neither, or names both. It begins with one of the two words, which
    a mark or a line's end follows."""
    found = _REPLY.match(reply)
    if found is None or len({word.lower() for word in re.findall(r"\b(?:yes|no)\b", reply, re.IGNORECASE)}) != 1:
        return None
    return found[1].lower() == "yes"


class Answers(Journal):
    """What was answered about the pictures of a part: rows of its table, one an answer, with the answer in `facts`."""

    read = staticmethod(lambda reply: ({True: "yes", False: "no", None: "unparsed"}[read_reply(reply)], None))

    def stored(self, rows: Sequence[Row]) -> pa.Table:
        columns = [named(row) | {"facts": json.dumps(row)} for row in rows]
        return pa.Table.from_pylist(columns, schema=schema_of("answers/"))

    def loaded(self, table: pa.Table) -> list[Row]:
        return [json.loads(facts) for facts in table["facts"].to_pylist()]


Answerer = Callable[[Sequence[Question], Answers, Callable[[int], None]], None]
"""Puts the answers to questions into the journal where it does not have them, and reports their number as they come.
Raises ValueError where it cannot, of all that it could not answer; what was answered until then is kept."""


def ask_server(
    section: ChatSection, questions: Sequence[Question], answers: Answers, advance: Callable[[int], None]
) -> None:
    """The answerer behind a chat server. A reply that is neither yes nor no is asked for once more."""
    failures = ask(section, questions, answers, advance, KNOB)
    if failures:
        raise ValueError(
            f"{len(failures):,} questions have no answer, for example: {next(iter(failures.values()))}; what was "
            "answered is kept, and the same command asks the others again"
        )


def load_blip(folder: Path, device: str) -> Answerer:
    """The answerer that a folder holds: all questions about a picture at once, the likeliest words of each. Raises
    ValueError: the folder holds no BLIP that answers questions, or a damaged one; or there is no such device."""
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
    replies: Callable[[Image.Image, list[str]], list[str]],
    questions: Sequence[Question],
    answers: Answers,
    advance: Callable[[int], None],
) -> None:
    unknown: dict[Picture, list[Question]] = {}
    for each in questions:
        if answers.reply(each.key) is None:
            unknown.setdefault(each.pictures[0], []).append(each)
    for picture, asked in unknown.items():
        said = replies(open_rgb(picture.data()), [each.text for each in asked])
        answers.add([{**each.place, "question": each.key, "attempt": 0, "reply": reply}
                     for each, reply in zip(asked, said, strict=True)])  # fmt: skip
        advance(len(asked))
