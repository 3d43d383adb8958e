"""What people see of pairs, without the models' names, and what they answer."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from evaluation.judge.journal import Journal, Row
from evaluation.judge.pairs import Pair
from schemas.files import read_file
from schemas.judging import Aspect

LONGEST_NAME = 80
"""Of a person, in letters."""
EVERYBODY = "all"
"""In the place of a person: all of them."""


def by_blind_id(pairs: Iterable[Pair]) -> dict[str, list[Pair]]:
    """Blind id -> the pairs that look like it, in an order that no model has; equal pictures are shown to nobody."""
    found = defaultdict[str, list[Pair]](list)
    for pair in pairs:
        if not pair.is_equal:
            found[pair.blind_id].append(pair)
    return dict(sorted(found.items()))


class Taken(NamedTuple):
    num_new: int
    num_known: int
    """The same as before."""
    refused: list[str]
    """Of each line that counts for nothing: its number and why."""


def take_answers(path: Path, pairs: Mapping[str, Sequence[Pair]], journal: Journal) -> Taken:
    """Read the answers that a page has written. The first answer of a person to a question holds; another is refused.
    Raises ValueError: the file cannot be read."""
    try:
        lines = read_file(path).splitlines()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from None
    rows, refused, num_known = dict[tuple[str, str, str], Row](), list[str](), 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = _answer(line, pairs)
            key = row["question"], row["aspect"], row["judge"]
            before = rows.get(key) or journal.of_person(*key)
            if before is not None and before["verdict"] != row["verdict"]:
                raise ValueError(f"{row['judge']} has answered it before, with {before['verdict']}, which holds")
        except ValueError as error:
            refused.append(f"line {number}: {error}")
        else:
            num_known += before is not None
            rows |= {} if before is not None else {key: row}
    journal.add(list(rows.values()))
    journal.settle()
    return Taken(len(rows), num_known, refused)


def _answer(line: bytes, pairs: Mapping[str, Sequence[Pair]]) -> Row:
    """A line as a row; of pairs that look alike the first."""
    try:
        said: Any = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("it is no JSON") from None
    if not isinstance(said, dict):
        raise ValueError("it is no JSON object")
    blind_id, aspect, verdict, person, seconds = map(said.get, ("pair", "aspect", "verdict", "person", "seconds"))
    if not isinstance(blind_id, str) or blind_id not in pairs:
        raise ValueError("no pair of this recipe has this id; its pictures may be others now")
    if aspect not in get_args(Aspect):
        raise ValueError(f"there is no aspect {str(aspect)[:40]!r}")
    if verdict not in ("first", "second", "tie"):
        raise ValueError("the verdict is none of first, second and tie")
    person = " ".join(person.split()) if isinstance(person, str) else ""
    if not 0 < len(person) <= LONGEST_NAME or not person.isprintable():
        raise ValueError(f"the person has no name of 1 to {LONGEST_NAME} letters")
    if person == EVERYBODY:
        raise ValueError(f"{EVERYBODY} stands for all people, and is no person's name")
    is_time = isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds < 1e9
    pair = pairs[blind_id][0]
    row: Row = {"question": blind_id, "judge": person, "attempt": 0, "verdict": verdict}
    return row | pair.row(str(aspect), pair.blind_order, "person") | {"seconds": seconds if is_time else None}


def rows_of_people(pairs: Mapping[str, Sequence[Pair]], aspects: Sequence[Aspect], journal: Journal) -> Iterator[Row]:
    """The rows of what people have said of pairs, with the models as the recipe names them now."""
    for (blind_id, aspect, _), row in sorted(journal.people().items()):
        for pair in pairs.get(blind_id, ()) if aspect in aspects else ():
            yield row | pair.row(row["aspect"], pair.blind_order, "person")
