"""Markup and addresses in captions: HTML is taken out or found, and URLs that are no writing in the picture."""

from __future__ import annotations

import html
import re
from functools import lru_cache

from schemas.texts import LONGEST_CAPTION

_BLOCKS = (
    "address article aside blockquote body br button caption center dd div dl dt figcaption figure footer form h1 h2 "
    "h3 h4 h5 h6 head header hr html iframe img input label li link main meta nav object ol option p pre section "
    "select table tbody td textarea tfoot th thead title tr ul video audio source svg path canvas embed noscript"
)
_INLINE = "a abbr b big cite code del em font i ins kbd mark q s small span strike strong sub sup time tt u var"

_BLOCK_TAG = re.compile(rf"</?(?:{'|'.join(_BLOCKS.split())})\b[^<>]*>", re.IGNORECASE)
_INLINE_TAG = re.compile(rf"</?(?:{'|'.join(_INLINE.split())})(?:\s[^<>]*)?/?>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_ESCAPED = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|#\d{1,7});")
_HIDDEN = (("<!--", "-->"), ("<script", "</script>"), ("<style", "</style>"))
_TAG_BEGUN = re.compile(r"</?[A-Za-z][^<>]*\Z")
_WORD_BEGUN = re.compile(r"\s\S{0,60}\Z")
_ENTITY_ROUNDS = 3
"""`&amp;amp;lt;` needs as many; text is not escaped more often by accident."""

_URL = re.compile(r"(?:https?://|www\.)[^\s<>\"”’)\]]+", re.IGNORECASE)
_QUOTED = re.compile(r"\"[^\"]*\"|“[^“”]*”|«[^«»]*»|‘[^‘’]*’(?!\w)|「[^「」]*」")
_WRITING = re.compile(
    r"\b(?:read(?:s|ing)?|say(?:s|ing)?|text|sign|sticker|label(?:l?ed)?|written|printed|painted|engraved|word(?:s|"
    r"ing)?|"
    r"lettering|address|website|url|link|watermark(?:ed)?|logo|banner|billboard|poster|show(?:s|ing)?|display(?:s|"
    r"ing|ed)?)\b",
    re.IGNORECASE,
)
_BEFORE_A_URL = 100
"""Characters before a URL in which a word of writing makes it part of the picture."""

_MARKDOWN = re.compile(
    r"```|\*\*[^*\s][^*\n]{0,200}\*\*|(?:\A|\n)[ \t]{0,3}(?:#{1,6} |[-*+•] \S"
    r"|\d{1,2}[.)] \S[^\n]*\n\s*\d{1,2}[.)] \S)|!?\[[^\[\]\n]{0,200}\]\([^()\s]{1,500}\)"
    r"|\|[ \t]*:?-{3,}:?[ \t]*\|"  # a table
    r"|\[/(?:b|i|u|s|img|url|quote|code|size|color|center|list)\]|\\(?:text\w{2}|emph|begin|end|frac|section|item)\b"
)
_SPECIAL_TOKEN = re.compile(
    r"<\|[^|<>\n]{1,40}\|>|</?s>(?!\w)|\[/?INST\]|<(?:image|img|unk|pad|eos|bos|eot|(?:end|start)_of_\w{1,20})>|"
    r"<tokens_unused_\d+>|[<◁]/?(?:grounding|phrase|object|think(?:ing)?|thought|reasoning|reflection|answer)\b"
    r"[^<>]{0,200}[>▷]",
    re.IGNORECASE,
)
_NUMBER = r"\s*-?\d{1,5}(?:\.\d{1,8})?%?\s*"
_FRACTION = r"\s*0?\.\d{1,8}\s*"
_BOX = re.compile(
    rf"[\[{{<]{_NUMBER}(?:[,;\s]{_NUMBER}){{3}}[\]}}>]"  # [75, 658, 250, 871], [[...]], {...}, <...>
    rf"|\((?=[^()]*(?:\d\d|\.\d)){_NUMBER}(?:[,;\s]{_NUMBER}){{3}}\)"  # (75, 658, 250, 871)
    rf"|(?=[^\n]{{0,20}}(?:\d\d|\.\d))"  # digits enough for pixels
    rf"[\[(]{_NUMBER},{_NUMBER}[\])]\s*(?:,|;|-|to|and)?\s*[\[(]{_NUMBER},{_NUMBER}[\])]"  # (75, 658), (250, 871)
    rf"|[\[(]\s*\d{{2,4}}\s*,\s*\d{{2,4}}\s*[\])](?:[\s,;:-]{{1,3}}[a-z]{{1,12}}){{1,4}}[\s:]{{0,2}}[\[(]\s*\d{{2,4}}\s*,"
    r"|[\"']?\b(?:x|left)[\"']?\s*[:=]\s*-?\d(?=\d|\.\d)[^{}\n]{0,20}\b(?:y|top)[\"']?\s*[:=]\s*-?\d"
    rf"|\[\[{_NUMBER},{_NUMBER}\]|[\[(]{_FRACTION},{_FRACTION}[\])]"  # [[75, 658]], (0.12, 0.4)
    r"|\b[xy](?:1|_?min)\s*[\"']?\s*[=:]\s*(?:-?\d|\"\")"
    r"|\bbbox(?:_2d)?\b|\bbounding[ _-]box(?:es)?\s*(?:is|are)?\s*[:=(\[]"
    r"|\b(?:coordinates?|pixels?|point(?:_2d)?)\s*(?:at|are|is)?\s*[:=]?\s*[\[(]\s*\d"
    r"|</?\|?(?:ref|box|quad|point|poly|polygon|det|region|mask|seg)(?:e?s)?\b[^<>]{0,200}>|<\|(?:box|ref|det|object_ref|quad)_(?:start|end)\|>"
    r"|<(?:loc|x|y|bin|patch_index|pos|coord)_?\d+>|<\d{1,4}>",
    re.IGNORECASE,
)
"""Coordinates, as models that point at things write them: in brackets, as pairs, by name, as tokens."""
_JSON = re.compile(r"\A\s*(?:\{\s*[\"']|\[\s*[{\"'\[\d])")


def beginning(text: str) -> str:
    """The first `LONGEST_CAPTION` characters, without the word, tag, comment, script or style that they end in."""
    if len(text) <= LONGEST_CAPTION:
        return text
    text = text[:LONGEST_CAPTION]
    lowered = text.lower() if text.isascii() else text
    for opening, closing in _HIDDEN:
        begun = lowered.rfind(opening)
        if begun >= 0 and closing not in lowered[begun:]:
            text, lowered = text[:begun], lowered[:begun]
    return _WORD_BEGUN.sub("", _TAG_BEGUN.sub("", text))


def without_html(text: str) -> str:
    """The plain text of HTML: entities decoded, tags, comments, scripts and styles taken out. Only names of HTML
    elements are tags, so that "I <3 cats" and "x < y > z" are kept. Takes linear time."""
    for _ in range(_ENTITY_ROUNDS):
        text = _without_tags(text)
        decoded = _ENTITY.sub(lambda match: html.unescape(match.group()), text)
        if decoded == text:
            return text
        text = decoded
    return _without_tags(text)


def unescaped(text: str) -> str:
    """A text with the commonest entities of HTML decoded, as often as they are escaped by accident."""
    for _ in range(_ENTITY_ROUNDS):
        if "&" in text:
            text = _ESCAPED.sub(lambda match: html.unescape(match.group()), text)
    return text


def without_urls(text: str) -> str:
    """A text without the addresses that are no writing in the picture."""
    stray = [match.span() for match in _stray_urls(text)]
    kept = [text[begin:end] for (_, begin), (end, _) in zip([(0, 0), *stray], [*stray, (len(text), 0)], strict=True)]
    return " ".join(kept) if stray else text


def has_markup(text: str) -> bool:
    """True if a caption holds HTML, Markdown, JSON, control tokens of a language model or a stray URL. Text in quotes
    is writing in the picture, and no markup; so is a URL after "a sign that reads"."""
    bare = without_quotes(text)
    found = (_BLOCK_TAG, _INLINE_TAG, _ESCAPED, _MARKDOWN, _SPECIAL_TOKEN)
    return any(pattern.search(bare) for pattern in found) or bool(_JSON.match(text)) or bool(_stray_urls(text))


def has_boxes(text: str) -> bool:
    """True if a caption holds coordinates of boxes or points; those in quotes are writing in the picture."""
    return _BOX.search(without_quotes(text)) is not None


def without_quotes(text: str) -> str:
    """A text with everything between quotation marks replaced by an empty pair."""
    return _QUOTED.sub('""', text)


@lru_cache(4)
def quotes_filled(text: str) -> str:
    """A text of the same length in which no letter between quotation marks is what it was. The last texts are
    remembered, since several layers of an answer look at the same one."""
    return _QUOTED.sub(lambda match: f'"{"_" * (len(match.group()) - 2)}"', text)


def _stray_urls(text: str) -> list[re.Match[str]]:
    quoted = [match.span() for match in _QUOTED.finditer(text)]
    found, place = [], 0
    for match in _URL.finditer(text):
        while place < len(quoted) and quoted[place][1] < match.start():
            place += 1
        inside = place < len(quoted) and quoted[place][0] < match.start()
        if not inside and not _WRITING.search(text, max(0, match.start() - _BEFORE_A_URL), match.start()):
            found.append(match)
    return found


def _without_tags(text: str) -> str:
    if "<" not in text:
        return text
    for opening, closing in _HIDDEN:
        text = _without_hidden(text, opening, closing)
    return _INLINE_TAG.sub("", _BLOCK_TAG.sub(" ", text))


def _without_hidden(text: str, opening: str, closing: str) -> str:
    """Drop the text between two marks; a mark that is never closed drops nothing."""
    lowered = text.lower()
    if len(lowered) != len(text):  # a few letters change their length with their case
        lowered = text
    kept, begin = [], 0
    while (start := lowered.find(opening, begin)) >= 0:
        end = lowered.find(closing, start)
        if end < 0:
            break
        kept.append(text[begin:start])
        begin = end + len(closing)
    return " ".join([*kept, text[begin:]])
