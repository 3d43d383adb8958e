"""The gate: unwraps a captioner's answer, and names the reason why what remains is no caption."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass

from captioning.texts.junk import is_placeholder, is_tags
from captioning.texts.language import speaks_another
from captioning.texts.markup import beginning, has_boxes, has_markup, unescaped, without_quotes
from captioning.texts.refusal import is_refusal
from captioning.texts.repetition import repeats_itself
from captioning.texts.text import clean, sentence_ends, sentences, words
from captioning.texts.unwrap import ROUNDS, unwrap, without_thinking
from schemas.reasons import CaptionReason
from schemas.texts import LONGEST_CAPTION

GATE = frozenset(
    {
        CaptionReason.REFUSAL,
        CaptionReason.PROMPT_ECHO,
        CaptionReason.BOXES,
        CaptionReason.MARKUP,
        CaptionReason.TAGS,
        CaptionReason.NOT_LANGUAGE,
        CaptionReason.OTHER_LANGUAGE,
        CaptionReason.REPETITION,
        CaptionReason.CUT,
    }
)
"""Reasons of a caption that was written and refused; another seed may write a better one."""

ECHO_WORDS = 5
"""A sentence of the prompt with at least this many words is an echo anywhere in a caption."""
MIN_LETTERS = 0.4
"""Least share of letters (and the marks on them) among the characters that are no spaces; "A dog, 2012" has 0.44."""
LONGEST_WORD = 60
"""Letters in a row; the longest place name has 58."""

_ROLE = re.compile(r"\A(?i:user|human|assistant|bot|prompt|question)\s*:|\b(?:USER|ASSISTANT|HUMAN)\s*:|###\s*\w")
_BLANK = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True)
class Judgement:
    """What the gate makes of one answer: a caption or a reason."""

    caption: str | None
    """The unwrapped and normalised text; None where there is a reason."""
    reason: CaptionReason | None
    """Why the text is no caption; None where it is one."""
    cut: tuple[str, ...] = ()
    """What was around the caption and taken off: before it, in it and after it."""


def judge(
    answer: str, *, ended: bool = True, languages: Collection[str] | None = ("en",), prompt: str | None = None
) -> Judgement:
    """Unwrap an answer and judge what remains, in time linear in its length; a judged caption is judged the same again.
    Of an answer of more than `LONGEST_CAPTION` characters without its thinking, the beginning is judged, and is no
    caption. `answer`: with its line breaks, which show Markdown. `ended`: False where the limit of tokens cut it.
    `languages`: ISO 639 codes of those that are kept; None keeps all. `prompt`: of the captioner, or a template with
    `{}` for a part that changes."""
    said, thought = without_thinking(answer) if len(answer) > LONGEST_CAPTION else (answer, ())
    text, cut = unwrap(unescaped(beginning(said)))
    cut = (*thought, *cut)
    caption = clean(text)
    for _ in range(ROUNDS // 2 if len(caption or "") <= LONGEST_CAPTION // 3 else 2):  # what a line break kept apart
        again, more = unwrap(caption or "")
        if not more:
            break
        caption, cut = clean(again), (*cut, *more)
    reason = CaptionReason.MARKUP if more else _reason(text, caption, cut, ended, languages, prompt)
    if len(said) > LONGEST_CAPTION:
        reason = reason or CaptionReason.CUT
    return Judgement(None if reason else caption, reason, cut)


def _reason(
    text: str,
    caption: str | None,
    cut: tuple[str, ...],
    ended: bool,
    languages: Collection[str] | None,
    prompt: str | None,
) -> CaptionReason | None:
    if caption is None:  # "Sure! Let me know what you need." is an answer, and no caption
        if any(is_tags(beginning(piece)) for piece in cut):
            return CaptionReason.TAGS
        if any(map(str.isalpha, "".join(cut))):
            return CaptionReason.REFUSAL
        return CaptionReason.NOT_LANGUAGE if cut else CaptionReason.EMPTY_CAPTION
    if is_placeholder(caption):
        return CaptionReason.EMPTY_CAPTION
    if is_refusal(caption):
        return CaptionReason.REFUSAL
    if echoes(caption, prompt):
        return CaptionReason.PROMPT_ECHO
    if has_boxes(text):
        return CaptionReason.BOXES
    if repeats_itself(caption):
        return CaptionReason.REPETITION
    if not is_language(caption):
        return CaptionReason.NOT_LANGUAGE
    if any(map(is_tags, {text, caption})):
        return CaptionReason.TAGS
    if any(map(has_markup, {text, caption})):
        return CaptionReason.MARKUP
    if languages is not None and speaks_another(caption, languages):
        return CaptionReason.OTHER_LANGUAGE
    return CaptionReason.CUT if is_cut(caption, ended) else None


def echoes(caption: str, prompt: str | None) -> bool:
    """True if a caption repeats the prompt or plays both sides of the conversation. Short sentences of a prompt are no
    echo ("A photo of" is how some captioners begin), unless the caption is nothing else."""
    if _ROLE.search(without_quotes(caption)):
        return True
    said = " ".join(words(caption))
    instructions = [piece for part in _BLANK.split(prompt or "") for piece in sentences(part)]
    for sentence in (words(piece) for piece in instructions):
        repeated = " ".join(sentence)
        if repeated and (said == repeated or (len(sentence) >= ECHO_WORDS and f" {repeated} " in f" {said} ")):
            return True
    return False


def is_language(text: str) -> bool:
    """True if a text consists of words: letters of any script, more than digits and signs, in words of possible
    length."""
    kinds = [unicodedata.category(character)[0] for character in text if not character.isspace()]
    if kinds.count("L") + kinds.count("M") < MIN_LETTERS * len(kinds) or "\ufffd\ufffd" in text:
        return False
    return all(len(word) <= LONGEST_WORD for word in words(text))


def is_cut(caption: str, ended: bool) -> bool:
    """True if a caption stopped at the limit of tokens in the middle of a sentence."""
    return not ended and sentence_ends(caption)[-1:] != (len(caption),)
