"""Asks about two pictures in words, and reads the verdict in a reply."""

from __future__ import annotations

import re

from evaluation.preference import Verdict
from schemas.judging import Aspect

PHRASES: dict[Verdict, str] = {
    "first": "the first image is better",
    "second": "the second image is better",
    "tie": "the two images are tied",
}

_QUESTIONS: dict[Aspect, str] = {
    "alignment": """Two images were made by a computer from the same caption:

{caption}

Compare how well each of them shows what the caption says: all that it names, how many of each, their colours and other
properties, what they do, where they are in the image, and the style where the caption names one. What the caption says
and the image lacks counts against it, and so does what contradicts the caption. Do not judge beauty.""",
    "quality": """Two images were made by a computer. Compare how good each of them looks, whatever it shows: whether it
could be a real photograph or the work of a skilled artist, whether bodies, faces, hands, objects and writing are whole
and undistorted, whether light, colours and details are convincing, and how pleasing the composition is.""",
}
"""What PixArt-Σ's judges were asked, in words of our own. Its slides print each question under the other's name."""

PEOPLE: dict[Aspect, str] = {
    "alignment": "Which image shows better what the caption says?",
    "quality": "Which image looks better, whatever it shows?",
}
"""The same, as people are asked."""

_FORM = """

Begin your answer with exactly one of these, and with nothing before it:
{choices}
Then say why: the reason is <one or two sentences>"""

_MARKS = r"\s\u200b\ufeff<>\[\](){}*_`\"'“”‘’«»《》〈〉【】「」『』（）＜＞［］"
"""Spaces and what a model may put around a phrase."""
_PHRASE = re.compile(
    r"the\s+(?:first\s+image\s+is\s+better|second\s+image\s+is\s+better|two\s+images\s+are\s+tied)\b", re.IGNORECASE
)
_VERDICT = re.compile(
    rf"[{_MARKS}]*(?P<phrase>{_PHRASE.pattern})"
    r"(?:\s*(?:[(>\])}*_`\"'”’»》〉】」』（）＞］.,;:!…。，：；！–—]|\Z)|[ \t]*\n|\s+-+\s"
    r"|(?=\s+(?:overall|because|since|as|than|the\s+reason|reason)\b))"
    rf"[{_MARKS}.,;:!…。，；：！–—-]*(?:(?:the\s+)?reason(?:\s+is)?\s*:?[{_MARKS}]*)?(?P<reason>.*)",
    re.IGNORECASE | re.DOTALL,
)
"""A phrase at the beginning that ends there: "the first image is better lit, but" is no verdict."""


def question(aspect: Aspect, caption: str) -> str:
    """The text of a request about two pictures of a caption; that about quality does not show the caption."""
    choices = "\n".join(f"<{phrase}>" for phrase in PHRASES.values())
    return _QUESTIONS[aspect].replace("{caption}", caption) + _FORM.replace("{choices}", choices)


def read_verdict(reply: str) -> tuple[Verdict, str | None]:
    """The verdict of a reply, and its reason. A verdict is one of the three phrases at the beginning, in any case and
    any brackets, where the reply has none of the two others. Everything else is `unparsed`."""
    named = {" ".join(found.lower().split()) for found in _PHRASE.findall(reply)}
    found = _VERDICT.match(reply)
    if found is None or len(named) != 1:
        return "unparsed", None
    verdict = next(verdict for verdict, phrase in PHRASES.items() if {phrase} == named)
    return verdict, re.sub(r"[\s>\]*_]+(\.?)\s*\Z", r"\1", found["reason"]) or None
