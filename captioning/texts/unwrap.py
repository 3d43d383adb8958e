"""Takes off what a chat model puts around a caption: thinking, Markdown, quotes, and what it says around it."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from captioning.texts.chat import said_around, standing
from captioning.texts.markup import quotes_filled
from captioning.texts.text import read_json
from schemas.texts import LONGEST_CAPTION

ROUNDS = 8
"""An answer that is wrapped more often than this is not unwrapped to its end."""

Spans = Iterable[tuple[int, int]]
"""Stretches of a text, in its order, as (begin, end)."""

THINKING = re.compile(
    r"[<◁\[](/?)(?:\w+:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|analysis|scratchpad)[>▷\]]"
    r"|<\|(end)_of_thought\|>|<\|(begin)_of_thought\|>|<\|channel\|>(final)<\|message\|>",
    re.IGNORECASE,
)
_FENCE = re.compile(
    r"(?m)\A[ \t]*(?:`{3,}|~{3,})(?:[\w-]*[ \t]*$)?|^[ \t]*(?:`{3,}|~{3,})[\w-]*[ \t]*$|(?:`{3,}|~{3,})\s*\Z"
)
_SPECIAL = re.compile(r"</?s>|<\|[a-zA-Z_]{2,30}\|>|<(?:bos|eos|pad|start_of_turn|end_of_turn|endoftext)>")
_ELEMENTS = (
    (re.compile(r"\A<(answer|caption|description|output|response|result|final)>", re.IGNORECASE), "</{}>"),
    (re.compile(r"\A<\|(begin)_of_box\|>"), "<|end_of_box|>"),
    (re.compile(r"\A(\[)(?=[^\W\d][^\[\]]*\]\Z)"), "]"),
    (re.compile(r"\A(\()(?=[^\W\d][^()]*\)\Z)"), ")"),
)
_HEADING = re.compile(
    r"(?m)^[ \t]{0,3}((?:#{1,6}[ \t]+)+)"
    r"(?!(?i:human|user|assistant|system|instruction|input|response|question|answer)\s*:)(\S[^\n]*)$"
)
"""The roles of a conversation are none."""
_BOLD_LINE = re.compile(r"(?m)^[ \t]*(\*\*\*?|__)([^*_\n]{1,120})\1[ \t]*:?[ \t]*$")
_TITLE = re.compile(r"(?mi)^[ \t*_]*(title)[*_]*:[ \t*_]*(\S[^\n]{0,100})$")
_UNDERLINED = re.compile(r"(?m)^([^\n]{1,120})\n[ \t]*(?:={3,}|-{3,})[ \t]*$")
_BULLET = r"(?:[-*+•]|\d{1,2}[.)])[ \t]"
_LINE_MARK = re.compile(rf"(?m)^[ \t]{{0,3}}>[ \t]?|\A(?:{_BULLET}+)+(?![^\0]*(?:\n[ \t]*{_BULLET}|\s\d{{1,2}}[.)]\s))")
"""Of a quoted line, and of a list of one item."""
_ITEM = re.compile(rf"(?m)^[ \t]*((?:{_BULLET}+)+)(\S[^\n]*)$")
_NUMBER = re.compile(r"(?:\A|(?<=[.!?…] ))(\d{1,2})[.)] (?=[^\W\d_])")
_HASHTAGS = re.compile(r"(?<=[.!?…\"”\n])\s*(?:#\w+[\s,]*){2,}\Z")
_RULER = re.compile(r"(?m)^[ \t]*(?:-{3,}|\*{3,}|_{3,}|(?:[*-] ){3,})[ \t]*$")
_SENTENCE_MARKS = tuple(".!?。！？…")
_BOLD = re.compile(
    r"(\*\*\*?)(?=[^\s*])[^*\n]{1,200}(?<=\S)\1|(?<!\w)(__)(?=[^\s_])[^_\n]{1,200}(?<=\S)__(?!\w)"
    r"|(?<![\w*])(\*)(?=[\w\"“‘(])[^*\n]{1,200}(?<=\S)\*(?![\w*])"
)
_QUOTES = {'"': '"', "“": "”", "«": "»", "「": "」", "„": "“", "‘": "’", "'": "'", "`": "`"}
_OF_PYTHON = re.compile(r"\[?\s*\{\s*'")
_CAPTION_KEYS = ("caption", "description", "detailed_caption", "image_description", "text", "answer", "output")


def unwrap(text: str) -> tuple[str, tuple[str, ...]]:
    """Take off what an answer holds around its caption, layer by layer, in linear time: thinking, JSON, code fences,
    Markdown's headings, rulers and bold, preambles and offers, quotes around everything, and sentences that vouch for
    the description. Writing in quotes is taken for none of them. Returns what remains, empty where all is preamble or
    offer, and the pieces that were cut off: those before it, in it and after it."""
    before: list[str] = []
    inside: list[str] = []
    after: list[str] = []
    text = text.strip()
    for _ in range(ROUNDS):
        whole = text
        for layer in _LAYERS:
            text, first, middle, last = _without(text, layer(text))
            before, inside, after = before + first, inside + middle, last + after
        if (found := _caption_of_json(text)) is not None:
            first_cut, text, last_cut = found
            before, after = [*before, first_cut], [last_cut, *after]
        if text == whole:
            break
    return text, (*before, *dict.fromkeys(inside), *after)


def without_thinking(text: str) -> tuple[str, tuple[str, ...]]:
    """A long answer without what is before the end of its thinking, then that; the end is looked for in its last
    `LONGEST_CAPTION` characters."""
    tags = THINKING.finditer(text, max(0, len(text) - LONGEST_CAPTION))
    end = max((tag.end() for tag in tags if tag[1] or tag[2] or tag[4]), default=0)
    return text[end:].strip(), (text[:end].strip(),) if end else ()


def _without(text: str, spans: Spans) -> tuple[str, list[str], list[str], list[str]]:
    """A text without some stretches, then those of them before, in and after what remains."""
    kept: list[str] = []
    pieces: list[tuple[int, str]] = []
    place = 0
    for begin, end in [*spans, (len(text), len(text))]:
        kept.append(text[place:begin])
        pieces.append((begin, text[begin:end].strip()))
        place = end
    rest = "".join(kept)
    stripped = rest.strip()
    if stripped == text:
        return text, [], [], []
    groups: tuple[list[str], list[str], list[str]] = ([], [], [])
    num_kept = 0
    lead, tail = len(rest) - len(rest.lstrip()), len(rest.rstrip())
    for piece, (_, cut) in zip(kept, pieces, strict=True):
        num_kept += len(piece)
        if cut:
            groups[0 if num_kept <= lead else 1 if num_kept < tail else 2].append(cut)
    return stripped, *groups


def _thinking(text: str) -> Iterator[tuple[int, int]]:
    """Blocks of thinking; one that begins before the answer, in the prompt, has an end alone, one that was cut none."""
    first = THINKING.search(text)
    if first is None:
        return
    searched = text if first.start() == 0 or first[1] or first[2] or first[4] else quotes_filled(text)
    depth, begin = 0, 0
    blocks: list[tuple[int, int]] = []
    for tag in THINKING.finditer(searched):
        closes = tag[1] or tag[2] or tag[4]
        if not closes:
            begin, depth = (tag.start() if depth == 0 else begin), depth + 1
        elif depth <= 1 or tag[4]:
            if depth == 0 or tag[4]:
                begin, blocks = 0, []
            blocks.append((begin, tag.end()))
            depth = 0
        else:
            depth -= 1
    yield from blocks


def _specials(text: str) -> Iterator[tuple[int, int]]:
    """Marks of a model's vocabulary that a server has left at the ends of an answer."""
    marks, begin, end = [mark.span() for mark in _SPECIAL.finditer(text)], 0, len(text)
    for first, last in marks:
        if text[begin:first].strip():
            break
        begin = last
    for first, last in reversed(marks):
        if text[last:end].strip() or last <= begin:
            break
        end = first
    yield (0, begin)
    yield (end, len(text))


def _fences(text: str) -> Iterator[tuple[int, int]]:
    yield from (fence.span() for fence in _FENCE.finditer(text))


def _elements(text: str) -> Spans:
    for opening, closing in _ELEMENTS:
        if found := opening.match(text):
            end = closing.format(found[1].lower())
            has_end = text.lower().endswith(end)
            return [(0, found.end()), *([(len(text) - len(end), len(text))] if has_end else [])]
    return []


def _headings(text: str) -> Spans:
    """Headings and rulers; of those that are sentences or all that there is, only the marks."""
    lines = [found for pattern in (_HEADING, _BOLD_LINE, _TITLE, _UNDERLINED) for found in pattern.finditer(text)]
    whole, marks = [], []
    for line in lines:
        said = line[1] if line.re is _UNDERLINED else line[2]
        if line.re is _HEADING:
            marks.append(line.span(1))
        if not said.rstrip("*_ \t").endswith(_SENTENCE_MARKS):
            whole.append(line.span())
        elif line.re is _HEADING:
            whole.append(line.span(1))
    rulers = [found.span() for pattern in (_RULER, _LINE_MARK, _HASHTAGS) for found in pattern.finditer(text)]
    spans = _disjoint([*whole, *rulers])
    return spans if _without(text, spans)[0] else _disjoint([*marks, *rulers])


def _items(text: str) -> Spans:
    """The marks of a list whose items are sentences or labels of them; with numbers, also on one line."""
    items = list(_ITEM.finditer(text))
    ends = [item[2].rstrip('*_ \t"”')[-1:] for item in items]
    if len(items) > 1 and set(ends) <= {*_SENTENCE_MARKS, ":"} and set(ends) != {":"}:
        return [item.span(1) for item in items]
    numbers = list(_NUMBER.finditer(text))
    counts = (
        text.startswith("1")
        and len(numbers) > 1
        and [int(number[1]) for number in numbers] == [*range(1, len(numbers) + 1)]
    )
    return [number.span() for number in numbers] if counts else []


def _disjoint(spans: Spans) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if not found or begin >= found[-1][1]:
            found.append((begin, end))
    return found


def _bold(text: str) -> Iterator[tuple[int, int]]:
    if "*" in text or "__" in text:
        for found in _BOLD.finditer(quotes_filled(text)):
            width = len(found[1] or found[2] or found[3])
            yield found.start(), found.start() + width
            yield found.end() - width, found.end()


def _quotes(text: str) -> Spans:
    """Quotes around everything, where they are no two pairs of them: '"Stop" is painted beside "Go"'."""
    opening, closing = text[:1], _QUOTES.get(text[:1])
    if opening in ('"', "“") and text.count(opening) == 1 and not {'"', "”"}.intersection(text[1:]):
        return [(0, 1)]  # it is never closed
    if len(text) < 2 or closing is None or text[-1] != closing:
        return []
    between = text[1:-1]
    pairs = min(len(text) - len(text.lstrip(opening)), len(text) - len(text.rstrip(closing)), len(text) // 2)
    if opening == closing:
        marks = [
            place
            for place, character in enumerate(between)
            if character == closing and not (character == "'" and between[place - 1 : place].isalnum())
        ]
        nested = not marks or (len(marks) % 2 == 0 and (marks[0] == 0 or between[marks[0] - 1] in " (["))
    else:
        depths = list(accumulate(_steps(between, opening, closing)))
        nested = min(depths, default=0) >= 0
        pairs = min(pairs, 2 + min(depths[pairs - 1 : len(depths) - pairs + 1], default=0))
    # what holds for a pair holds for those directly in it, but for the last
    width = max(1, pairs - 1)
    return [(0, width), (len(text) - width, len(text))] if nested else []


def _steps(text: str, opening: str, closing: str) -> Iterator[int]:
    """By how much each character changes the depth of quotes."""
    for place, character in enumerate(text):
        ends = character == closing and not (closing == "’" and text[place + 1 : place + 2].isalnum())
        yield (character == opening) - ends


def _caption_of_json(text: str) -> tuple[str, str, str] | None:
    """The caption in a JSON object, or in a dict of Python, between what was before it and the rest of the object."""
    if not text.startswith(("{", "[")):
        return None
    try:
        found = read_json(json.dumps(ast.literal_eval(text)) if _OF_PYTHON.match(text) else text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    found = found[0] if isinstance(found, list) and len(found) == 1 else found
    for key in _CAPTION_KEYS if isinstance(found, dict) else ():
        if isinstance(found.get(key), str):
            caption = found.pop(key).strip()
            return f'{{"{key}":', caption, json.dumps(found, ensure_ascii=False)[1:]
    return None


_LAYERS: tuple[Callable[[str], Spans], ...] = (
    _thinking,
    _elements,
    _specials,
    said_around,
    _fences,
    _items,
    _headings,
    _bold,
    _quotes,
    standing,
)
