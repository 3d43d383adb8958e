"""Asks a chat server about pictures, many questions at once; what it answers is journalled before anything else."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import lru_cache, partial

from captioning.captioners.base import Answer, CaptionerUnusable, CaptionFailure
from captioning.captioners.chat_client import ChatClient, Server
from captioning.captioners.endpoint import chat_body, picture_uri, read_key
from evaluation.judge.journal import Journal, Row, is_settled
from evaluation.judge.pairs import Picture, Question
from schemas.captioners import ChatSection
from schemas.ids import counter
from schemas.pixels import PixelError, open_rgb

FAILURES_IN_A_ROW = 64
"""Questions without an answer one after the other before nothing more is asked: then it is the server."""


def find_judge(section: ChatSection, knob: str = "judge") -> str:
    """The key of the server; '' where the recipe names none. Nothing is sent. `knob`: the section, as its recipe calls
    it. Raises ValueError: the recipe names no server or model, or the key is missing."""
    for name, given in (("url", section.servers()), ("model", section.model)):
        if not given:
            raise ValueError(
                f"{knob}.{name}: name the judge's server and its model, or let people judge with --page FILE"
            )
    try:
        return read_key(section.api_key_env)
    except CaptionerUnusable as error:
        raise _ours(error, knob) from None


def ask(
    section: ChatSection,
    questions: Sequence[Question],
    journal: Journal,
    advance: Callable[[int], None],
    knob: str = "judge",
) -> dict[str, str]:
    """Ask what the journal does not know; a reply that is no verdict is asked for once more, with another seed.
    `advance` is called with the number of questions that are through. `knob`: the section, as its recipe calls it.
    Returns question -> why it has no answer, after all retries; it is asked the next time. Raises ValueError, with all
    answers journalled: no server can be reached, one refuses every request, or a picture cannot be read."""
    asked = dict[str, Question]()
    for question in questions:
        if not is_settled(journal.reply(question.key)):
            asked[question.key] = question
    advance(len(questions) - len(asked))
    if not asked:
        return {}
    asking = _Asking(section, journal, advance, knob)
    try:
        asking.run(asked.values(), find_judge(section, knob))
    except CaptionerUnusable as error:
        raise _ours(error, knob) from None
    finally:
        journal.settle()
    return asking.failures


class _Asking:
    """The requests in flight. Another begins once an answer is in the journal, so that `kill -9` loses no more."""

    def __init__(self, section: ChatSection, journal: Journal, advance: Callable[[int], None], knob: str) -> None:
        self._section, self._journal, self._advance, self._knob = section, journal, advance, knob
        self._in_flight: dict[Future[Answer], tuple[Question, int]] = {}
        self._again: deque[tuple[Question, int]] = deque()
        self._num_failed = 0
        self.failures: dict[str, str] = {}

    def run(self, questions: Iterable[Question], key: str) -> None:
        section = self._section
        uri = lru_cache(4 * section.concurrency)(partial(picture_of, section))
        todo = iter(questions)

        def body(question: Question, seed: int) -> bytes:
            pictures = [uri(picture) for picture in question.pictures]
            return chat_body(section, pictures, question.text, seed)

        with ChatClient(section, key, [Server(url) for url in section.servers()]) as client:
            client.check()
            while True:
                while len(self._in_flight) < section.concurrency:
                    question, attempt = self._again.popleft() if self._again else (next(todo, None), None)
                    if question is None:
                        break
                    if attempt is None:
                        attempt = 0 if self._journal.reply(question.key) is None else 1
                    seed = counter(question.key, f"judge {attempt}")
                    self._in_flight[client.ask(partial(body, question, seed), seed)] = question, attempt
                if not self._in_flight:
                    return
                try:
                    wait(self._in_flight, return_when=FIRST_COMPLETED)
                finally:  # Ctrl-C loses nothing that has been answered
                    self._take([future for future in self._in_flight if future.done()])

    def _take(self, done: Sequence[Future[Answer]]) -> None:
        """Put answers into the journal, then raise the first error among them."""
        rows, errors = list[Row](), list[ValueError]()
        for future in done:
            question, attempt = self._in_flight.pop(future)
            try:
                answer = future.result()
                row = self._row(question, attempt, answer)
            except ValueError as error:
                errors.append(error)
                continue
            if row is not None:
                self._num_failed = 0
                rows.append(row)
                if not is_settled(row):
                    self._again.append((question, attempt + 1))
                    continue
            self._advance(1)
        self._journal.add(rows)
        if errors:
            raise errors[0]
        if self._num_failed >= FAILURES_IN_A_ROW:
            raise ValueError(
                f"the server of {self._knob} gave no answer to {self._num_failed} questions one after the other, the "
                f"last time: {list(self.failures.values())[-1]}; what was answered is kept, the same command goes on"
            )

    def _row(self, question: Question, attempt: int, answer: Answer) -> Row | None:
        """The row of an answer; None where there is none, and the question is left for another time."""
        row: Row = {"question": question.key, "judge": self._section.model, "attempt": attempt, "reply": None}
        row |= question.place
        if isinstance(answer, CaptionFailure):
            if answer.kind == "filtered":
                return row | {"verdict": "refused", "reason": answer.reason}
            if answer.kind == "refused":
                shown = "two pictures" if len(question.pictures) > 1 else "pictures"
                raise ValueError(
                    f"{answer.reason}; the server of {self._knob} does not take {shown}, or not of this size: let it "
                    f"take them (vLLM: --limit-mm-per-prompt), set {self._knob}.image_px lower, or choose another "
                    f"{self._knob}.model"
                )
            self._num_failed += 1
            self.failures[question.key] = answer.reason
            return None
        verdict, reason = self._journal.read(answer.text)
        row |= {"reply": answer.text, "verdict": verdict, "reason": reason}
        row |= {"judge": f"{row['judge']}@{answer.revision}"} if answer.revision else {}
        return row | {"tokens": answer.num_tokens, "seconds": answer.seconds}


def picture_of(section: ChatSection, picture: Picture) -> str:
    """A picture in a data URI, as judges see it: its pixels alone. Raises ValueError: it cannot be read."""
    try:
        return picture_uri(open_rgb(picture.data(), section.image_px), section)
    except (OSError, PixelError) as error:
        raise ValueError(f"{picture.file}: a picture cannot be read ({error}); have it drawn again") from None


def _ours(error: CaptionerUnusable, knob: str) -> ValueError:
    """The error of the chat client, with the knobs as the recipe calls them."""
    return ValueError(str(error).replace("caption.endpoint", knob).replace("the captioner runs", "the command runs"))
