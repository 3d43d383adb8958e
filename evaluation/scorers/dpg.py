"""DPG-Bench's scorer: yes-or-no questions about each picture, answered by a BLIP or a chat server, then the rules."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from engine.map_job import MapJob
from engine.paid import Paid
from engine.runner import Progress
from evaluation.judge.asking import find_judge
from evaluation.judge.pairs import Picture
from evaluation.judge.pairs import Question as Asked
from evaluation.measuring import find_network
from evaluation.paired import Scores
from evaluation.picture_files import named
from evaluation.rules.dpg import Question, Rules, benchmark, counted
from evaluation.scorers.answering import FORM, KNOB, Answerer, Answers, ask_server, load_blip, read_reply
from evaluation.scorers.base import Row, Scorer, flags_of, opened
from models.weights import BLIP_VQA
from schemas.captioners import ChatSection
from schemas.evaluation import Metrics, Run
from schemas.reasons import AnswerReason
from schemas.strict import fingerprint
from schemas.tables import schema_of

Questions = Mapping[str, Sequence[Question]]


@dataclass(frozen=True)
class Dpg(Scorer):
    metric = "dpg"
    questions: Questions = field(default_factory=dict, repr=False)
    """All of them, by the id of their prompt; each is asked under all rules."""
    counted: Questions = field(default_factory=dict, repr=False)
    """Those that the rules count."""
    rules: Rules = "fixed"
    folder: Path | None = None
    """Of a BLIP."""
    endpoint: ChatSection | None = None

    @classmethod
    def of(cls, metrics: Metrics, questions: Questions, counted: Questions) -> Dpg:
        """The scorer of a recipe. Raises ValueError: nothing is named that answers, or it is not on this machine."""
        given, section, rules, key = metrics.dpg.vqa, metrics.dpg.endpoint, metrics.dpg.rules, "metrics.dpg.vqa"
        folder, network = None, str(section and section.model)
        if section is None and given is None:
            raise ValueError(
                f"nothing answers the questions: set {KNOB}.url and {KNOB}.model to a chat server whose model sees, "
                f"or get a BLIP with `sigma weights get {BLIP_VQA.name}` and set {key}={BLIP_VQA.hub_id}"
            )
        if given is not None:
            folder, network = find_network(given, BLIP_VQA, key)
        return cls(network, f"dpg/{rules}", None, questions, counted, rules, folder, section)

    def worker(self) -> type[Replies]:
        return Replies

    def seen_with(self) -> dict[str, Any]:
        """Who answers, and the questions."""
        questions = {item: [list(each) for each in some] for item, some in self.questions.items()}
        return {"answerer": self.answerer(), "questions": fingerprint(questions)[:16]}

    def answerer(self) -> Any:
        """All that an answer depends on besides the picture and the question."""
        return self.network if self.endpoint is None else self.endpoint.knobs()

    def job(self, root: Path, model: str, run: Run) -> MapJob:
        """The job that asks. What was answered stays below `paid/` until it is asked anew with --redo."""
        job = replace(super().job(root, model, run), pays=True)
        if self.endpoint is None:
            return job
        return replace(job, num_gpus=0, workers=run.workers or 1, needs=(partial(find_judge, self.endpoint, KNOB),))

    def why_lost(self, row: Row) -> str | None:
        """Why a row counts as missing. Published, whatever is not yes is no."""
        if row["facts"] is None:
            return super().why_lost(row)
        is_read = self.rules == "published" or None not in map(read_reply, json.loads(row["facts"]).values())
        return None if is_read else AnswerReason.UNPARSED.value

    def results(self, rows: Sequence[Row], metrics: Metrics) -> Iterator[dict[str, Any]]:
        """The score, 0 to 100, with a bootstrap over prompts, and that of each category of questions."""
        flags = [*flags_of(rows), "answerer: another one than the mPLUG-large of published scores; does not compare"]
        answers: dict[str, list[list[bool]]] = {}
        for row in sorted(rows, key=lambda row: (row["row_id"], row["number"])):
            replies = json.loads(row["facts"])
            asked = self.counted.get(row["prompt_id"], ())
            said = [read_reply(replies[str(each.number)]) is True for each in asked]
            answers.setdefault(row["prompt_id"], []).append(said)
        questions = {item: self.counted.get(item, ()) for item in answers}
        row = {"metric": self.metric, "num_generated": len(rows), "flags": flags}
        try:
            whole = benchmark(questions, answers, self.rules)
        except ValueError as error:
            yield row | {"reason": str(error)}
            return
        scores = {item: score for item in answers for score in _of_prompt(questions[item], answers[item], self.rules)}
        if len(scores) < len(answers):
            flags.append(f"left out: {len(answers) - len(scores)} prompts that cannot be counted")
        yield row | Scores([scores]).columns | {"value": whole.overall}
        for category in sorted(whole.categories) if metrics.by_category else ():
            yield row | {"category": category, "value": whole.categories[category]}


def _of_prompt(questions: Sequence[Question], answers: list[list[bool]], rules: Rules) -> list[float]:
    """The score of a prompt; nothing where published rules leave it out."""
    try:
        return [benchmark({"": questions}, {"": answers}, rules).overall]
    except ValueError:
        return []


class Replies:
    """The worker: it asks what was not answered before about the pictures of a part."""

    def __init__(self, root: Path, pictures: str, table: str, scorer: Dpg, run: Run) -> None:
        self._root, self._pictures, self._table, self._scorer, self._run = root, pictures, table, scorer, run
        if scorer.endpoint is not None:
            self._answer: Answerer = partial(ask_server, scorer.endpoint)
        else:
            assert scorer.folder is not None
            self._answer = load_blip(scorer.folder, run.device)

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress, paid: Paid) -> dict[str, pa.Table]:
        journal, made = Answers(paid), list[tuple[dict[str, Any], list[Asked]]]()
        for row, picture in opened(self._root, inputs[self._pictures].to_pylist(), self._run.threads):
            known = named(row)
            if isinstance(picture, Image.Image):
                made.append((known, self._questions(row)))
                known |= {} if made[-1][1] else {"reason": AnswerReason.NO_QUESTIONS.value}
            else:
                made.append((known | picture, []))
        questions = [each for _, asked in made for each in asked]
        self._answer(questions, journal, lambda number: progress(0, {"questions": number}))
        progress(len(made))
        rows = [known | (self._facts(known["prompt_id"], asked, journal) if asked else {}) for known, asked in made]
        return {self._table: pa.Table.from_pylist(rows, schema=schema_of("answers/"))}

    def _questions(self, row: Row) -> list[Asked]:
        """What is asked about a picture, named by its pixels, the question and all that an answer depends on."""
        picture = Picture(self._root, row["file"], row["offset"], row["size"], row["pixel_sha256"])
        found = []
        for each in self._scorer.questions.get(row["prompt_id"], ()):
            text = each.text + ("" if self._scorer.endpoint is None else FORM)
            asked = {"text": text, "picture": picture.pixel_sha256, "answerer": self._scorer.answerer()}
            found.append(Asked(fingerprint(asked), text, (picture,), named(row)))
        return found

    def _facts(self, prompt_id: str, asked: Sequence[Asked], journal: Answers) -> dict[str, Any]:
        """What the table keeps of a picture's answers."""
        questions, rows = self._scorer.questions[prompt_id], [journal.reply(each.key) or {} for each in asked]
        if refused := [row for row in rows if row["reply"] is None]:
            return {"reason": AnswerReason.REFUSED.value, "detail": refused[0]["reason"]}
        said = [read_reply(row["reply"]) for row in rows]
        missing = [each.text for each, yes in zip(questions, said, strict=True) if not yes]
        replies = {each.number: row["reply"] for each, row in zip(questions, rows, strict=True)}
        facts: dict[str, Any] = {"facts": json.dumps(replies), "missing": "\n".join(missing) or None}
        if None in said:
            place = said.index(None)
            detail = f"{questions[place].text} {rows[place]['reply']!r}"
            return facts | {"reason": AnswerReason.UNPARSED.value, "detail": detail}
        with suppress(ValueError):  # a question that builds on one which is not there: the results say it
            parents = {each.number: each.parents for each in questions}
            facts["share"] = float(np.mean(counted(parents, [yes is True for yes in said])))
        return facts
