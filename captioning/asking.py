"""Asks a captioner about the pictures of one part, again where a caption is refused, and hands the results over."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

from PIL import Image

from captioning.captioners.base import Answer, Captioner, CaptionFailure, Generated, Question, seed_of
from captioning.meter import Meter
from captioning.texts.unwrap import THINKING
from captioning.watch import Watch
from schemas.reasons import CaptionReason
from schemas.tokens import count_tokens

HANDED_OVER_AFTER_S = 5.0
"""Longest time that results wait until they are handed over, while the captioner takes questions."""

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
    revision: str | None = None
    """as the reply named it; None where it did not"""

    def watched(self) -> tuple[str | None, str | None]:
        """The reason and the answer, as `Watch` takes them: it minds thinking, which is paid for with every picture."""
        if self.caption is not None and self.cut and THINKING.search(self.cut[0]):
            return "thinking", f"{self.cut[0]} {self.caption}"
        return self.reason, self.caption if self.reason is None else self.refused


FAILED = CaptionResult(reason=CaptionReason.CAPTIONER_FAILED)


class Asking:
    """The questions in flight, the answers that are being judged, the questions to be asked again, and the results not
    yet handed over. The gate works on a thread of its own, while the captioner writes on."""

    def __init__(
        self,
        captioner: Captioner,
        pictures: Iterator[Decoded],
        judge: Callable[[Generated], CaptionResult],
        watch: Watch,
        meter: Meter,
        hand_over: Callable[[Mapping[str, CaptionResult]], None],
    ) -> None:
        """Nothing is asked yet. `hand_over` takes image_id -> result, as many at once as the captioner has questions in
        flight, or those of some seconds. `kill -9` loses what it was not given; any other end gives it."""
        self._captioner, self._pictures, self._judge = captioner, pictures, judge
        self._watch, self._meter, self._receiver = watch, meter, hand_over
        self._in_flight: dict[str, Question] = {}
        self._judging: deque[tuple[Question, Future[tuple[CaptionResult, int]]]] = deque()
        """With each question what its answer comes to, and the tokens of the answer."""
        self._again: deque[Question] = deque()
        self._first: dict[str, CaptionResult] = {}
        """The refused result of each picture that is asked about for the second time."""
        self._results: dict[str, CaptionResult] = {}
        self._handed_over = time.monotonic()

    def run(self) -> None:
        """Ask about every picture. Raises CaptionerUnusable: it cannot work, or nearly all of the last ones have no
        caption."""
        with ThreadPoolExecutor(1, "gate") as self._gate:
            try:
                with closing(self._captioner.stream(self._questions())) as answers:
                    while True:
                        with self._meter.timing("model_s"):
                            found = next(answers, None)
                        if found is None:
                            break
                        self._take(*found)
                assert not self._in_flight, f"{self._captioner.name}: no answer for {len(self._in_flight)} pictures"
            finally:
                for question, judged in self._judging:  # where it ended early: what was answered is kept
                    if not self._is_asked_again(question.image_id, result := judged.result()[0]):
                        self._results[question.image_id] = result
                self._hand_over()

    def _questions(self) -> Iterator[Question | None]:
        """As of `Captioner.stream`: second attempts first, then the next picture."""
        while True:
            is_full = len(self._results) + len(self._judging) >= self._captioner.window
            self._settle(wait=is_full or not self._in_flight)
            waited_s = time.monotonic() - self._handed_over
            if len(self._results) >= self._captioner.window or waited_s >= HANDED_OVER_AFTER_S:
                self._hand_over()
            question = self._again.popleft() if self._again else self._next_picture()
            if question is not None:
                self._in_flight[question.image_id] = question
            elif not self._in_flight:
                return
            yield question

    def _next_picture(self) -> Question | None:
        with self._meter.timing("waiting_s"):
            for image_id, picture in self._pictures:
                if picture is not None:
                    return Question(image_id, picture, seed_of(image_id))
                self._results[image_id] = FAILED
                self._watch.see([FAILED.watched()])
        return None

    def _take(self, image_id: str, answer: Answer) -> None:
        """Have an answer judged; a picture that fails has its result, the first one's where this was a second try."""
        question = self._in_flight.pop(image_id)
        if isinstance(answer, CaptionFailure):
            self._watch.failed(image_id, answer.reason)
            self._finish(image_id, self._first.pop(image_id, FAILED))
        else:
            self._watch.answered()
            self._judging.append((question, self._gate.submit(self._judged, answer)))

    def _judged(self, answer: Generated) -> tuple[CaptionResult, int]:
        return self._judge(answer), count_tokens(answer.text) if answer.num_tokens is None else answer.num_tokens

    def _settle(self, wait: bool) -> None:
        """Take what the gate is through with; a refused caption is written once more, where another seed may help."""
        while self._judging and (wait or self._judging[0][1].done()):
            question, judged = self._judging.popleft()
            with self._meter.timing("judging_s"):
                result, tokens = judged.result()
            self._meter.add(tokens=tokens)
            image_id = question.image_id
            if self._is_asked_again(image_id, result):
                self._first[image_id] = result
                self._again.append(Question(image_id, question.picture, seed_of(image_id, attempt=1)))
            else:
                self._finish(image_id, result)

    def _is_asked_again(self, image_id: str, result: CaptionResult) -> bool:
        return result.reason is not None and self._captioner.retries_help and image_id not in self._first

    def _finish(self, image_id: str, result: CaptionResult) -> None:
        self._meter.add(images=1)
        self._results[image_id] = result
        self._watch.see([result.watched()])

    def _hand_over(self) -> None:
        results, self._results = self._results, {}
        with self._meter.timing("noting_s"):
            if results:
                self._receiver(results)
        self._handed_over = time.monotonic()
