"""The gate over answers written by hand: precision and recall of every reason; and its false alarms over sentences."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from captioning.texts.gate import judge
from captioning.texts.refusal import is_refusal
from schemas.reasons import CaptionReason

ANSWERS = Path(__file__).parent / "answers" / "gate.tsv"
PROMPT = "Describe this image and its style in a very detailed manner."
GOOD, WRAPPED = "good", "wrapped"
HALVES = ("looked at", "held back")


@dataclass(frozen=True)
class Labelled:
    """An answer with what a person says of it."""

    kind: str
    """`good`, `wrapped`, or the reason why it is no caption."""
    text: str
    caption: str
    """What a good or wrapped one holds; of others the answer."""
    half: str
    """Whether the rules were mended on it."""

    def judged(self) -> str:
        """What the gate says: `good` or a reason; a good caption that lost or kept a word too many is `miscut`."""
        found = judge(self.text, ended=self.kind != CaptionReason.CUT, prompt=PROMPT)
        if found.reason is not None:
            return str(found.reason)
        return "miscut" if self.kind in (GOOD, WRAPPED) and found.caption != self.caption else GOOD


def labelled() -> list[Labelled]:
    """The answers of the committed file. Those of a kind alternate between the halves."""
    found: list[Labelled] = []
    seen: Counter[str] = Counter()
    for line in ANSWERS.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            continue
        kind, *pieces = (piece.replace("\\n", "\n").replace("\\\\", "\\") for piece in line.split("\t"))
        caption = pieces[1] if kind == WRAPPED else pieces[0]
        found.append(Labelled(kind, "".join(pieces), caption, HALVES[seen[kind] % 2]))
        seen[kind] += 1
    return found


def gate_answers(_: Path) -> Iterator[str]:
    """Precision and recall of each reason in both halves; a wrapped answer is right if its caption comes out whole."""
    answers = labelled()
    counts: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for answer in answers:
        counts[answer.half][GOOD if answer.kind == WRAPPED else answer.kind, answer.judged()] += 1
    yield (
        f"\n| {len(answers)} answers | {' | '.join(f'{half}: answers | precision | recall' for half in HALVES)} |"
        f"\n|---|{'---|' * 3 * len(HALVES)}"
    )
    for kind in dict.fromkeys(GOOD if answer.kind == WRAPPED else answer.kind for answer in answers):
        cells = []
        for half in HALVES:
            right = counts[half][kind, kind]
            num = sum(count for (given, _), count in counts[half].items() if given == kind)
            said = sum(count for (_, judged), count in counts[half].items() if judged == kind)
            cells.append(f"{num} | {right / max(1, said):.3f} | {right / num:.3f}")
        yield f"| `{kind}` | {' | '.join(cells)} |"
    wrapped = [answer.judged() == GOOD for answer in answers if answer.kind == WRAPPED]
    yield f"\nOf the good ones, {len(wrapped)} are wrapped in something; of {sum(wrapped)} the caption comes out whole."


def gate_false_alarms(_: Path) -> Iterator[str]:
    """Sentences that nobody refused and the gate takes for refusals, in the files (one sentence a line) that
    SIGMA_SENTENCES names, apart by `:`."""
    paths = [Path(name) for name in os.environ.get("SIGMA_SENTENCES", "").split(":") if name]
    if not paths:
        yield "\nFalse alarms of `refusal`: skipped, SIGMA_SENTENCES names no file of sentences."
        return
    yield "\n| false alarms of `refusal` in | sentences | found | in 10,000 |\n|---|---|---|---|"
    for path in paths:
        sentences = path.read_text(encoding="utf-8").splitlines()
        num = sum(map(is_refusal, sentences))
        yield f"| {path.stem} | {len(sentences):,} | {num} | {1e4 * num / max(1, len(sentences)):.2f} |"


BENCHMARKS = (gate_answers, gate_false_alarms)
