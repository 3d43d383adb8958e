"""Finds what a chat model says around a caption: "Certainly! Here is a description:", "Let me know if ..."."""

from __future__ import annotations

import re
from collections.abc import Iterator

from captioning.texts.markup import quotes_filled
from captioning.texts.text import sentence_ends

LONGEST_PREAMBLE = 300
"""Characters."""
_MARKS = " \t\n-*_>=~(#¡¿"
"""What Markdown puts around sentences, rulers included."""

_YES = (
    r"(?:certainly|sure(?: thing)?|of course|absolutely|gladly|definitely|great|okay|ok|alright|no problem|got it|"
    r"with pleasure|understood|happy to help|good question|great question|yes|hello|hi(?: there)?|claro(?: que sí)?|"
    r"por supuesto|con gusto|bien sûr|avec plaisir|volontiers|certainement|gerne?|natürlich|selbstverständlich|klar|"
    r"certo|certamente|volentieri|com certeza|claro que sim|конечно|разумеется|natuurlijk|oczywiście|当然(?:可以)?|"
    r"當然(?:可以)?|好的?|没问题|もちろん(?:です)?|はい|물론(?:입니다|이죠)?|네)"
)
_KIND = (
    r"(?:description|caption|depiction|analysis|overview|summary|breakdown|account|rundown|answer|response|alt text|"
    r"descripción|descrição|descrizione|leyenda|légende|legenda|analyse|análisis|beschreibung|bildbeschreibung|"
    r"bildunterschrift|beschrijving|описание|подпись|opis|描述|描写|描寫|说明|說明|説明|キャプション|설명|묘사)"
)
_PLAIN_WORD = r"(?!(?:with|whose|bearing|holding|showing|reading|that|which|of|on|in|next|and)\b)[\w'’-]+,?"
_END = r"(?:\s*[:：]|[.!](?=\s*\n))"
_HERE = (
    rf"(?:(?:based on|as (?:requested|you)|looking at|per your|for)\b[^,.:\n]{{0,80}}, )?(?:here['’]?s|here (?:is|"
    rf"are)|below (?:is|are)|(?:the )?following (?:is|are)|this is|i (?:have|['’]ve) (?:written|prepared|provided)|"
    rf"aqu[ií] (?:tienes?|está|hay)|aqui está|voici|voilà|hier ist|hier (?:kommt|folgt)|ecco|вот|hier is|oto) "
    rf"(?:{_PLAIN_WORD} ){{0,7}}(?:{_KIND}|options|captions|descriptions)\b[^:\n]{{0,160}}{_END}|"
    rf"here(?:['’]s| is) (?:what|how) [^:.\n]{{0,80}}{_END}|"
    rf"(?:here|there) you (?:go|are){_END}|(?:the )?(?:\w+ ){{0,3}}{_KIND}\b[^:.\n]{{0,60}}as follows{_END}|(?:the|"
    rf"my|one|a) (?:\w+ ){{0,3}}{_KIND}\b[^:.\n]{{0,60}}(?:could|would|might|may|can) be{_END}|(?:the|my|one|a) "
    rf"(?:possible|suitable|suggested|fitting|good) {_KIND}\b[^:.\n]{{0,60}} is{_END}|(?:the|this) (?:image|picture|"
    rf"photo|scene) (?:can|could|may) be described (?:as follows|like this){_END}|i (?:can |would |will |['’]d |"
    rf"['’]ll )?(?:describe|see|observe) [^:.\n]{{0,40}}(?:as follows|like this|the following){_END}|i (?:can )?see "
    rf"the following{_END}|(?:以下|下面|这|這)[^:：\n]{{0,40}}{_KIND}[^:：\n]{{0,20}}[:：]|"
    rf"[^:：\n]{{0,40}}(?:説明|キャプション|설명|묘사)[^:：\n]{{0,12}}[:：]"
)
_OFFERS_HELP = (
    r"(?:i['’]d|i would|i['’]ll|i will|i can|let me|i am|i['’]m|let['’]?s) (?:be )?(?:(?!not\b)\w+ )?(?:happy|glad|"
    r"delighted|pleased|describe|look|take|provide|try|help|do my best)\b[^.!:\n]{0,160}[.!:]"
)
_LABEL = (
    r"(?:title\s*:[^\n]{1,100}\n\s*)?\[?(?:(?:the |my |your )?(?:detailed |image |picture |photo |final |short |"
    r"long |full "
    rf"|brief |generated |suggested |alternative |visual )*{_KIND}(?: of (?:the|this) (?:image|picture|photo)(?: "
    rf"and its "
    r"style)?)?|answer|output|result|option|version)(?: \d{1,2})?(?:\s*[:：][*_]*|\]:?| [-–—] |[*_]*(?=\s*\n))"
)
_THANKS = (
    r"(?:(?:thank you|thanks)(?: so much)? for (?:sharing|providing|uploading|sending|the|your|"
    r"this)\b[^.!?\n]{0,60}\b(?:image|picture|photo|photograph|question)\b|(?:what an?|such an?|great|nice|"
    r"beautiful|lovely|wonderful) (?:\w+ ){0,2}(?:image|picture|photo|photograph|question)|(?:ok|okay|alright)?,? "
    r"?here (?:it is|goes|we go)|here['’]s one)(?:[.!](?=\s)|:)"
)
_PREAMBLE = re.compile(
    rf"(?:[\s*_>¡¿]|#+ )*(?:{_YES}\s*(?:[!！.。]+|(?:[,，、]| [–—-](?=\s))(?=\s*(?:{_HERE}|{_OFFERS_HELP}|{_THANKS}))|"
    rf"[,，](?-i:(?=\s*[A-Z]))|:)[\s*_]*)?(?:(?:{_HERE}|{_OFFERS_HELP}|{_THANKS}|{_LABEL})\s*)?",
    re.IGNORECASE,
)
_OFFER = re.compile(
    r"(?:please |and |also |so |but )*(?:(?:word|character|token) count\b|let me know\b|feel free to\b|do(?: not|"
    r"n['’]t) hesitate\b|(?:i )?hope (?:this|that|it|these) (?:\w+ ){0,3}(?:help|meets?|suits?|works|is what|"
    r"captures|provides|gives)|does (?:this|that) (?:help|work|sound|look)\b|is (?:this|that) what you\b|how does "
    r"(?:this|that) (?:sound|look)\b|you['’]re welcome\b|enjoy\W*\Z|anything else (?:i|you)\b|should you (?:need|"
    r"have|want|require)\b|\W*(?:this|the) (?:caption|description) (?:has|is|contains) (?:\w+ )?\d+ (?:words|"
    r"characters|tokens)|\W*end of (?:the )?(?:\w+ )?(?:description|caption)\b|generated (?:by|with) (?:an? "
    r")?(?:ai\b|\w*gpt|claude|gemini|llava|qwen)|confidence(?: score)?\s*:|(?:\w+ )?(?:tags|keywords|hashtags)\s*:|"
    r"(?:would|do) you (?:like|want|need|prefer|have any)\b|i (?:can|could) (?:also )?(?:provide|add|describe|give|"
    r"elaborate|help|tell)\b|is there (?:anything|something)\b|(?:which|what) (?:\w+ )?would you like\b|how can i "
    r"(?:help|assist)\b|i hope you understand\b|thank(?: you|s) for (?:your )?(?:understanding|patience)\b|are "
    r"there any(?:thing)? (?:\w+ ){0,2}you\b|if (?:you|there)(?:['’]d|['’]re|['’]s)?\b[^.!?\n]{0,160}\b(?:let me "
    r"know|ask|tell me|reach out|i can|i['’]d be|i would be|i['’]ll|happy to|feel free|hesitate)\b|(?:i['’]d|i "
    r"would|i['’]m|i am|i['’]ll) (?:be )?(?:happy|glad|here) to (?:\w+ ){0,2}(?:help|provide|describe|assist|add|"
    r"answer|elaborate)|(?:how |what )?(?:else )?(?:can|may|shall|should) i (?:help|add|describe|provide|"
    r"elaborate)\b|(?:need|want) (?:anything|something|more|any other|a (?:shorter|longer))\b[^.!\n]{0,80}\?|(?:sag|"
    r"sagen sie|lass|lassen sie) (?:mir|es mich|mich)\b|(?:wenn|falls) (?:sie|du) [^.!?\n]{0,120}(?:möchte|brauch|"
    r"wünsch|frage)|möchte(?:n sie|st du)\b|gerne kann ich\b|n['’]hésite[zs]? pas|fai(?:tes|s)-(?:le[- ])?moi "
    r"savoir|souhaite(?:z-vous|s-tu)\b|si (?:vous|tu) (?:avez|as|souhaite|voulez|veux)\b|hazme saber|av[ií]same|"
    r"d[ée]jame saber|no dudes en|¿?(?:te|le) gustaría|si (?:necesitas|quieres|deseas|tienes)\b|fammi sapere|se "
    r"(?:hai|vuoi|desideri)\b|(?:me )?avise(?:-me)?\b|se (?:precisar|quiser)\b|дайте (?:мне )?знать|если (?:вам|вы|"
    r"у вас) |laat het me weten|"
    r"(?:如果|若|如)(?:您|你|需|有)|请(?:告诉|告知|随时)我?|請(?:告訴|告知|隨時)我?|希望(?:这|這|以上)|"
    r"(?:他に|ほかに|"
    r"何か).{0,40}(?:ください|か)|.{0,40}お知らせください|"
    r".{0,40}(?:알려|말씀해) ?주세요|궁금한)",
    re.IGNORECASE,
)

_WITHOUT = (
    r"(?:\b(?:not|no|without|rather than|free (?:of|from)|avoids?|avoiding|excludes?|excluding|refrains?)\b|"
    r"n['’]t\b)[^.!?]{0,40}\b"
)
_IMAGINARY = (
    r"(?:imaginary|imagined|speculative|hypothetical) (?:(?:or|and) \w+ )?(?:contents?|elements?|details?|"
    r"additions?|objects?|information|aspects?|features?)"
)
_STANDING = re.compile(
    r"(?:(?:please |kindly )?(?:note|be aware|keep in mind|remember)(?: that|,|:)? |it(?:['’]s| is| should be) "
    r"(?:\w+ )?(?:to note|noting|noted)(?: that|,)? |overall, |in (?:summary|conclusion), |however, |therefore, )*"
    rf"(?:(?:this|the|my|our|all|any|every|these)\b (?:\w+ ){{0,3}}(?:(?:description|caption|analysis|detail|"
    rf"information|element|observation)s?\b[^.!?]{{0,80}}{_WITHOUT}(?:speculat\w+|assum(?:e[sd]?|ptions?)|inferred|"
    rf"inferences?|imagination|not (?:visible|present) in|{_IMAGINARY})|(?:image|picture|photo|scene|"
    rf"content)s?\b[^,.!?]{{0,80}}{_WITHOUT}(?:{_IMAGINARY}|real or imaginary))"
    r"|(?:this|the|my|our|all)\b (?:\w+ ){0,3}(?:descriptions?|captions?|analysis|details?|"
    r"information)\b[^.!?]{0,60}\b(?:is|are|was|were|been|remains?) (?:\w+ )?(?:based|grounded|limited) (?:\w+ "
    r")?(?:on|in|to) (?:what|(?:the|this|its|only) (?:\w+ )?(?:image|visible|visual|observable|provided|given|"
    r"content|elements|information|details))"
    rf"|[^.!?]{{0,80}}\bnothing imaginary|(?:there (?:is|are) )?(?:no|not any) (?:\w+ )?{_IMAGINARY})\b",
    re.IGNORECASE,
)
"""Beginnings of the sentence with which Share-Captioner and others vouch for a description: that it is based on what
is visible and holds no imaginary content."""


_STANDING_TAIL = re.compile(
    rf",? (?:(?:and|but) )?(?:without|with no|contains no|free of|avoiding)\b[^,.!?]{{0,40}}{_IMAGINARY}[^,.!?]{{0,40}}"
    r"(?=[.!?]|\Z)",
    re.IGNORECASE,
)
"""The same behind a sentence that says something."""


def said_around(text: str) -> list[tuple[int, int]]:
    """The preamble and the offers of a text, as (begin, end)."""
    begin, end = 0, len(text)
    filled = quotes_filled(text)
    while (opening := _PREAMBLE.match(filled, begin, min(end, begin + LONGEST_PREAMBLE))) and opening.group().strip(
        _MARKS
    ):
        begin = opening.end()
    ends = [0, *(place for place in sentence_ends(filled) if place < end)]
    place = end
    while place > begin:
        while ends and ends[-1] >= place:
            ends.pop()
        start = max(begin, ends[-1] if ends else 0)
        piece = filled[start:place].strip(_MARKS)
        place = begin if start == begin else len(text[:start].rstrip())
        if _OFFER.match(piece):
            end = place
        elif any(map(str.isalnum, piece)):
            break
    return [(0, begin), (end, len(text))]


def standing(text: str) -> Iterator[tuple[int, int]]:
    """The sentences that vouch for a description, as (begin, end)."""
    filled = quotes_filled(text)
    ends = [*sentence_ends(filled), len(text)]
    for begin, end in zip([0, *ends], ends, strict=False):
        if _STANDING.match(filled[begin:end].strip(_MARKS)):
            yield begin, end
        elif tail := _STANDING_TAIL.search(filled, begin, end):
            yield tail.span()
