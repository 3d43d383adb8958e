"""The protocol of captioners: questions in, one answer per question out, each as soon as it is there."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

from PIL import Image

from engine.map_job import naming
from schemas.ids import counter

CAPTIONER_ERRORS = (ValueError, OSError, RuntimeError)
"""Errors a captioner may raise on a picture it cannot caption: a value it cannot use, a file that fails, or a device
that gives up (out of memory is a RuntimeError in torch). Anything else is a defect and stops the job."""

Made = TypeVar("Made")
Plain = str | int | float | bool | None


class CaptionerUnusable(ValueError):
    """The captioner can caption no picture at all: a wrong key, a server that is not there. It stops the job."""


@dataclass(frozen=True)
class Generated:
    """The text a captioner wrote about one picture."""

    text: str
    """as the model gave it; may be empty"""
    ended: bool = True
    """False where the limit of tokens cut it"""
    num_tokens: int | None = None
    """tokens of the captioner's own tokenizer; None where it does not count them"""
    revision: str | None = None
    """of a server that names it only in its replies; None leaves it to the captioner's own"""
    seconds: float | None = field(default=None, compare=False)
    """from the request to the reply; None where it is not measured"""


@dataclass(frozen=True)
class CaptionFailure:
    """The reason why one picture got no answer, while the others of its batch did."""

    reason: str
    kind: Literal["failed", "refused", "filtered"] = field(default="failed", compare=False)
    """refused: the server does not take the request, and would not take it again; filtered: by its content filter"""


Answer = Generated | CaptionFailure


@dataclass(frozen=True)
class Question:
    """One picture to be captioned."""

    image_id: str
    picture: Image.Image
    """upright, sRGB, of mode RGB and any size"""
    seed: int
    """from its identity (`seed_of`), 0 to 2^53 - 1"""


class Captioner(Protocol):
    """A captioner describes pictures in words. Each worker builds one, so its constructor loads the weights."""

    @property
    def name(self) -> str:
        """The author of the caption: the model, and the first 8 digits of its revision where it has one."""

    @property
    def revision(self) -> str | None:
        """The commit of the model's repository, or the digest of its folder; None where it has neither."""

    @property
    def prompt(self) -> str | None:
        """The prompt of the model; None where it takes none. A caption of another prompt is another caption."""

    @property
    def parameters(self) -> Mapping[str, Plain]:
        """Everything else that shapes a caption: decoding, limits, precision."""

    @property
    def retries_help(self) -> bool:
        """True if another seed can change the text about a picture."""

    @property
    def window(self) -> int:
        """The largest number of questions in flight: taken, and not yet answered."""

    def stream(self, questions: Iterator[Question | None]) -> Generator[tuple[str, Answer], None, None]:
        """The image id and the answer of every question, each as soon as it is there, in any order; the same picture
        and seed always give the same answer. `questions` is advanced by the thread that iterates the answers, whenever
        the window has room. None means that there is no question now, but may be one after the next answer, since a
        refused caption is asked for again; it only comes while something is in flight. Raises CaptionerUnusable: it
        cannot work at all; the job stops."""


class InBatches:
    """Base of a captioner that works batch by batch: it gives `batch_size` and `caption`, and this is its stream."""

    name: str
    batch_size: int
    """The largest number of pictures that one call of `caption` takes."""

    @property
    def window(self) -> int:
        return self.batch_size

    @abstractmethod
    def caption(self, images: Sequence[Image.Image], seeds: Sequence[int]) -> Sequence[Answer]:
        """One answer per picture, in order; the same picture and seed always give the same one. After an error of
        `CAPTIONER_ERRORS` each picture is asked about alone. Raises CaptionerUnusable: it cannot work at all; the job
        stops."""

    def stream(self, questions: Iterator[Question | None]) -> Generator[tuple[str, Answer], None, None]:
        """The answers, as of `Captioner.stream`, batch by batch."""
        while batch := list(up_to(self.batch_size, questions)):
            answers = one_by_one_if_not_together(self._answers, batch)
            yield from zip([question.image_id for question in batch], answers, strict=True)

    def _answers(self, batch: Sequence[Question]) -> Sequence[Answer]:
        answers = self.caption([question.picture for question in batch], [question.seed for question in batch])
        assert len(answers) == len(batch), f"{self.name}: {len(answers)} for {len(batch)} pictures"
        return answers


def one_by_one_if_not_together(
    work: Callable[[Sequence[Question]], Sequence[Made]], batch: Sequence[Question]
) -> Sequence[Made | CaptionFailure]:
    """What `work` makes of a batch at once; where that fails, of each picture alone: one cannot spoil the others.
    Raises CaptionerUnusable: it cannot work at all."""
    try:
        with naming(f"one of {', '.join(question.image_id for question in batch)}"):
            return work(batch)
    except CaptionerUnusable as error:
        error.__notes__.clear()  # it is not about these pictures
        raise
    except CAPTIONER_ERRORS as error:
        if len(batch) == 1:
            return [CaptionFailure(str(error))]
        return [made for question in batch for made in one_by_one_if_not_together(work, [question])]


def up_to(count: int, questions: Iterator[Question | None]) -> Iterator[Question]:
    """The next `count` questions, fewer where there is none now or none any more."""
    for _ in range(count):
        if (question := next(questions, None)) is None:
            return
        yield question


def seed_of(image_id: str, attempt: int = 0) -> int:
    """The seed of an image: 53 bits of sha256, the same on every machine; another attempt has another one."""
    return counter(image_id, f"caption {attempt}")
