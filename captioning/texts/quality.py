"""The quality gate: names the reason why a captioner's text is no caption."""

from __future__ import annotations

import re
import unicodedata

from captioning.texts.markup import has_markup, without_quotes
from captioning.texts.repetition import repeats_itself
from captioning.texts.text import clean, sentence_ends, sentences, words
from schemas.reasons import CaptionReason

GATE = frozenset(
    {
        CaptionReason.REFUSAL,
        CaptionReason.PROMPT_ECHO,
        CaptionReason.MARKUP,
        CaptionReason.NOT_LANGUAGE,
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

_INABILITY = (
    r"(?:can ?not|can['’]?t|could ?n['’]t|am unable to|['’]m unable to|am not able to|['’]m not able to|won['’]t|"
    r"do not have|don['’]t have)"
)
_TASK = (
    r"(?:see|view|access|open|load|display|describe|analy[sz]e|assist|help|identify|recogni[sz]e|provide|process|"
    r"generate|create|comply|fulfil+|determine|answer|discuss|comment|interpret|any (?:image|information|context)|"
    r"the (?:ability|capability)|enough (?:information|context))"
)
_REFUSAL = re.compile(
    rf"(?:(?:oh|oops|unfortunately|however|but|well|hello|hi|thank you|thanks)[,.!]? )?"
    rf"(?:(?:i am|i['’]m|we are|we['’]re) (?:(?:really|very|so|deeply|terribly) )?(?:sorry|afraid)\b"
    rf"|sorry\b[,.]? (?:but|i)\b"
    rf"|(?:i|we) apologi[sz]e\b|my apologies\b"
    rf"|i ?{_INABILITY} (?:\w+ ){{0,2}}{_TASK}\b"
    rf"|as an? (?:\w+[ -]){{0,3}}(?:ai(?:,| (?:assistant|language|model|system|i)\b)|(?:language|vision) model\b)"
    rf"|(?:please|could you|can you) (?:please )?(?:provide|upload|share|send|attach)\b"
    rf"|(?:there (?:is|was)|i see) no (?:image|picture|photo)\b"
    rf"|no (?:image|picture|photo) (?:was |is |has been )?(?:provided|attached|uploaded|found)\b"
    rf"|the (?:image|picture|photo) (?:could not|cannot|can['’]t) be (?:loaded|displayed|processed|opened)\b)"
)
_LINKS = re.compile(r"^(?:and|so|therefore|hence) ")
_ROLE = re.compile(r"\A(?i:user|human|assistant|bot|prompt|question)\s*:|\b(?:USER|ASSISTANT|HUMAN)\s*:|###\s*\w")
_BLANK = re.compile(r"\{[^{}]*\}")


def caption_or_reason(text: str, prompt: str | None, ended: bool) -> str | CaptionReason:
    """The caption in a captioner's text, normalised, or the reason why the text holds none to train on.

    Takes time linear in the length of the text.

    Args:
        text: as it was written, line breaks included: they show Markdown.
        prompt: of the captioner, or a template with `{}` for a part that changes; None without one.
        ended: True if the captioner came to an end by itself, not at its limit of tokens.
    """
    caption = clean(text)
    if caption is None:
        return CaptionReason.EMPTY_CAPTION
    if is_refusal(caption):
        return CaptionReason.REFUSAL
    if echoes(caption, prompt):
        return CaptionReason.PROMPT_ECHO
    if has_markup(text):
        return CaptionReason.MARKUP
    if repeats_itself(caption):
        return CaptionReason.REPETITION
    if not is_language(caption):
        return CaptionReason.NOT_LANGUAGE
    return CaptionReason.CUT if is_cut(caption, ended) else caption


def is_refusal(caption: str) -> bool:
    """True if a sentence speaks as the model about itself: "I'm sorry, but", "As an AI", "I cannot see the image".

    Quoted words are writing in the picture or the speech of a person, and do not count; nor does "I" count alone.
    """
    return any(
        _REFUSAL.match(_LINKS.sub("", sentence.lower())) is not None for sentence in sentences(without_quotes(caption))
    )


def echoes(caption: str, prompt: str | None) -> bool:
    """True if a caption repeats the prompt or plays both sides of the conversation.

    Short sentences of a prompt are no echo ("A photo of" is how some captioners begin), unless the caption is nothing
    else.
    """
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
    """True if a text consists of words: letters of any script, more of them than digits and signs, in words of a
    possible length."""
    kinds = [unicodedata.category(character)[0] for character in text if not character.isspace()]
    if kinds.count("L") + kinds.count("M") < MIN_LETTERS * len(kinds) or "\ufffd\ufffd" in text:
        return False
    return all(len(word) <= LONGEST_WORD for word in words(text))


def is_cut(caption: str, ended: bool) -> bool:
    """True if a caption stopped at the limit of tokens in the middle of a sentence."""
    return not ended and sentence_ends(caption)[-1:] != [len(caption)]
