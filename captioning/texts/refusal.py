"""Finds answers in which a captioner declines, apologises or speaks of itself in place of describing the picture."""

from __future__ import annotations

import re

from captioning.texts.markup import without_quotes
from captioning.texts.text import sentences

_ME = r"(?:i|we)"
_I_AM = r"(?:i am|i['’]?m|we are|we['’]re)"
_CANNOT = (
    r"(?:can ?not|can['’]?t|could ?n['’]t|could not|wo ?n['’]t|will not|would ?n['’]t|would not|should ?n['’]t|"
    r"should not|must not|may not|do not|do ?n['’]t|am unable to|['’]?m unable to|are unable to|am not able to|"
    r"(?:was|were) (?:not able|unable) to|['’]?m not able to|['’]re not able to|am not allowed to|['’]?m not "
    r"allowed to)"
)
_SHOWN = r"(?:image|picture|photo|photograph|attachment|upload|file)s?"
_TASK = (
    r"(?:(?:see|make out) (?:what you|your|an?y? (?:\w+ )?(?:image|picture|photo|file|attachment|upload)|(?:the|"
    r"this|that) (?:\w+ )?(?:image|picture|photo|file|attachment|upload|content))|view(?:ing)?\b|(?:access|open|"
    r"load|display|assist|comment|interpret|engag|discuss|respond|proceed|help|aid|answer|caption)(?:e|ing)?\b(?! "
    r"(?:but|my\w*|it\b|feeling|falling|thinking|wondering))|(?:describ|analy[sz]|identif|recogni[sz]|provid|"
    r"process|generat|creat|compl|fulfil+|determin|shar|offer|continu|complet|produc)(?:e|y|(?:y)?ing)?\b|(?:do|be "
    r"of|be able to do) (?:that|this|so|help)\b|feel comfortable|(?:talk|speak)(?:ing)? about|(?:have|possess) "
    r"(?:the |any )?(?:\w+ )?(?:ability|capability|capacity|means|access|permission|image|picture|photo|information|"
    r"context|eyes|vision|sight)\b|have enough (?:information|context)|any (?:image|picture|photo|information|"
    r"context)\b|the (?:ability|capability)|enough (?:information|context))"
)
_GAP = r"(?:(?!(?:need|want|like|let|allow|have to|spare|get|go)\b)\w+ ){0,4}"
_RULES = r"(?:guidelines?|polic(?:y|ies)|programming|principles|terms|rules|instructions|safety|training)"

_OPENING = re.compile(
    r"(?:(?:oh|oops|uh-oh|unfortunately|regrettably|sadly|no(?=[,.!])|however|but|well|hello|hi|thank you|thanks|"
    r"and|so|therefore|hence|sure|okay|ok|hmm|(?:please )?note(?: that)?|please understand that|while i "
    r"understand[^,]{0,80}|(?:for|due to|because of) [^,]{0,60}(?:reasons?|concerns?|polic(?:y|ies)|guidelines|"
    r"restrictions|limitations))\b(?: for [^,.!]{1,60}(?=[,.!]))?[,.!:]? )+"
)
"""Words that a model puts before a refusal."""

_AT_THE_BEGINNING = re.compile(
    "|".join(
        (
            rf"{_I_AM} (?:(?:really|very|so|deeply|terribly|truly|just|only|still|but|also) )*(?:sorry|unable|"
            r"afraid,? (?:that )?(?:(?:i|we|this|that|there|no|not|it)\b|(?:the|your) (?:image|picture|photo|"
            r"request))|uncomfortable|incapable|prohibited|restricted|obliged|programmed|not (?:comfortable|able|"
            r"allowed|permitted|capable|designed|equipped|authori[sz]ed|going to|in a position|supposed|programmed|"
            r"trained|at liberty|willing)|an? (?:[\w-]+ ){0,4}(?:ai\b|chatbot|(?:language|vision|text) model|"
            r"virtual assistant))\b",
            rf"{_ME}(?:['’]\w+)? (?:\w+ ){{0,6}}(?:decline|declining|refuse|refusing|(?:refrain|abstain)(?:ing)? "
            rf"from \w+ing|apologi[sz]e)\b",
            rf"{_ME}(?: would|['’]d) (?:rather|prefer|like) (?:not|to not)\b|{_ME} (?:choose|prefer) not to\b",
            rf"(?!we [^.!?]{{0,20}}(?:identif|recogni|determin)){_ME} ?{_CANNOT} {_GAP}{_TASK}",
            rf"{_ME} do(?: not|n['’]t) (?:think|believe|feel) (?:that )?(?:i|it)\b",
            rf"{_ME} see no {_SHOWN}\b",
            r"sorry\b[,.!;:]? (?:no|there (?:is|was) no) (?:\w+ )?(?:description|image|caption|picture|photo)\b",
            r"sorry\b[,.!;:]? (?:but|i)\b|sorry\b[,.!;:]? (?:this|that|the|your) (?:image|picture|photo|request|"
            r"content)",
            r"(?:my |our )?(?:sincere |deepest )?apologies\b[,.!;:]? (?:but|i|we|this|that|for (?:the|any|not)|your)\b",
            r"my apologies\b|pardon me, but\b",
            r"as an? (?:\w+[ -]){0,4}(?:(?:artificial intelligence|ai)(?:,| (?:assistant|language|model|system|"
            r"chatbot|i)\b)|(?:language|vision|text)(?:-based)? model\b|chatbot\b|(?:virtual|text-based|digital) "
            r"assistant, i\b)",
            rf"(?:please|could you|can you)(?: please)? (?:provide|upload|share|send|attach)\b(?:(?: \w+){{0,5}} "
            rf"(?:{_SHOWN}|"
            r"link|url|details|description)\b| it\b| one\b)",
            rf"(?:there (?:is|was)|there['’]s) no {_SHOWN}\b (?:here|attached|provided|uploaded|included|visible|in "
            rf"(?:your|the|this) (?:message|request|prompt|conversation))",
            rf"there (?:is|was) no {_SHOWN}(?: (?:for|that) (?:me|i|you)\b|[.!]?\Z)",
            rf"no {_SHOWN} (?:was |were |is |has been )?(?:provided|attached|uploaded|found|received|given)\b",
            rf"the {_SHOWN} (?:is (?:blank|empty|missing) or )?"
            rf"(?:could not|cannot|can['’]?t|failed to) (?:be )?(?:load|display|process|open|describ|"
            rf"analy[sz])",
            rf"it (?:looks|seems|appears) (?:like |as if |as though |that )?(?:there (?:is|was) no {_SHOWN}|no "
            rf"{_SHOWN}|you (?:have not|have ?n['’]t|did not|did ?n['’]t|forgot)|(?:the|your) {_SHOWN} (?:did not|"
            rf"did ?n['’]t|failed|"
            r"is missing|was not|was ?n['’]t|has not|has ?n['’]t))",
            r"(?:it is|it['’]s|this is|that is|that['’]s) (?:not |im)possible for (?:me|us)\b",
            r"(?:it is|it['’]s|it would be|that is|that['’]s) (?:\w+ )?(?:inappropriate|unethical|irresponsible|"
            r"wrong|improper|not appropriate) (?:for (?:me|us) )?to (?:describe|comment|provide|identify|discuss|"
            r"speculate)\b",
            rf"(?:it|this|that|this request|doing so|describing (?:it|this)[^.]{{0,40}})(?:['’]s| is| goes| would "
            rf"(?:be|go)) against (?:my|our|the) (?:\w+ ){{0,2}}{_RULES}",
            rf"(?:my|our|openai['’]s|the content) (?:\w+ ){{0,2}}{_RULES} (?:\w+ )?(?:prevent|prohibit|forbid|limit|"
            rf"restrict|"
            r"do not|do ?n['’]t|does not|does ?n['’]t)",
            r"(?:your|this|the|that) (?:request|prompt|query|input|response|content|answer) (?:was|is|has been|"
            r"cannot be|can['’]?t be|could not be) (?:\w+ )?(?:rejected|refused|denied|blocked|declined|filtered|"
            r"flagged|fulfilled|completed|processed|cancelled)",
            rf"(?:your|this|the|that) (?:request|prompt|content|{_SHOWN}) (?:\w+ ){{0,4}}goes against (?:\w+ "
            rf"){{0,3}}{_RULES}",
            r"(?:request|response|content|access|generation|answer) (?:was |has been )?(?:denied|rejected|refused|"
            r"blocked|filtered|withheld|flagged)\b",
            rf"(?:cannot|can['’]?t|unable to|not able to|failed to|refus(?:e|ing) to|declin(?:e|ing) to) \w+ (?:the "
            rf"|this |that |your |an? |any )?(?:\w+ )?(?:{_SHOWN}|request|content|description|caption)\b",
            r"(?:identifying|describing|discussing|recogni[sz]ing|captioning) [^.]{0,60}(?:(?:is|are) not (?:allowed|"
            r"permitted|possible|something)|(?:is|are|would be|could be|may be) (?:\w+ )?(?:inappropriate|unethical|"
            r"harmful|not appropriate))",
            r"(?:let['’]s|let us|can we|could we|shall we) (?:(?:talk|chat|discuss)(?: about)? (?:something|"
            r"anything|another|a different)|change the (?:topic|subject)|move on)\b",
            r"error: ",
            r"(?:declined|refused|denied|blocked)[.!]?\Z",
            r"you (?:have not|have ?n['’]t|did not|did ?n['’]t|forgot to) (?:\w+ )?(?:provid|attach|upload|shar|"
            r"send|sent|includ)",
            rf"{_ME}(?: (?:was|am|have)|['’]ve|['’]m) (?:been )?(?:\w+ly )?(?:instructed|told|trained|designed|"
            rf"asked|advised|built|programmed|made) (?:not to|to (?:not|avoid|decline|refuse))\b",
            rf"{_ME}(?: (?:have|possess|lack)|['’]ve) (?:no|the|any)? ?(?:\w+ )?(?:way|means|ability|access|"
            rf"capability|permission|eyes)\b (?:of|to|for)\b",
            rf"{_ME}(?:(?: will|['’]ll| would|['’]d)?|(?: am|['’]m) going to) (?:have to|must|need to) (?:\w+ "
            rf")?(?:pass|skip|stop here)\b",
            r"(?:i (?:think|believe|feel) (?:that )?|perhaps |maybe )?it(?: is| would be| may be| might be|['’]s) "
            r"(?:best|better|wiser|safer) (?:not\b|(?:that|if) (?:i|we) (?:do|did|don|didn)|for me\b)",
            rf"there (?:do|does)(?: not|n['’]t) (?:appear|seem) to be (?:an?y?|the) (?:\w+ )?{_SHOWN}(?: (?:in "
            rf"(?:our|your|this|the) (?:\w+ )?(?:conversation|message|chat|prompt|request)|here|attached|provided|"
            rf"included|uploaded)\b|[.!]?\Z)",
            rf"(?:since|because|given that|while|although|though|as) {_I_AM} (?:just |only |merely )?(?:an? "
            rf"(?:[\w-]+ ){{0,4}}(?:ai\b|model\b|assistant\b|chatbot\b|program\b)|not able|unable)",
            r"(?:the|this|that|your) (?:[\w'’]+ ){0,6}(?:is|was|are|were) (?:not (?:available|accessible|visible|"
            r"readable)|unavailable|inaccessible)\b[^.!?]{0,20} (?:to|for) (?:me|us)\b",
            r"(?:it is|it['’]s|it is ?n['’]t) (?:not |im)?possible (?:for (?:me|us)\b|to (?:describe|caption|"
            r"analy[sz]e) (?:this|the|your) (?:image|picture|photo)|to (?:provide|give|write) an? (?:\w+ "
            r")?(?:description|caption))",
            rf"(?:(?:your|this|the|that) (?:request|prompt|content|{_SHOWN}) (?:[\w'’]+ ){{0,4}}|(?:this|that|it|"
            rf"doing so) )(?:violat(?:es?|ed|ing)|breach(?:es)?) (?:my|our|your|the|openai['’]s) (?:[\w'’]+ "
            rf"){{0,2}}(?:guidelines?|polic(?:y|ies)|terms|safety)",
            r"(?:your|this|the) (?:request|prompt|image|input) (?:\w+ ){0,2}trigger(?:s|ed)\b",
            r"(?:image|visual|picture)s?(?: inputs?)? (?:is|are) not (?:currently )?supported|this model (?:does|"
            r"can|is)(?: ?not|['’]t| only)|this model can only",
            rf"without (?:an?|the|any|your|seeing|access|being able|more|further)\b[^.!?]{{0,40}}(?:{_SHOWN}|it|"
            rf"context|information)"
            r",? (?:i|we)\b",
            r"(?:once|if|when) you (?:can |could )?(?:upload|share|provide|attach|send|"
            r"describe)\b[^.!?]{0,30}\b(?:image|picture|photo|file|it|one)\b",
            rf"there (?:seems|appears) to be (?:no {_SHOWN}|an? (?:issue|problem|error))",
            r"there (?:was|is|has been) an? (?:error|issue|problem) (?:\w+ ){0,4}(?:image|picture|photo|request|"
            r"file|upload)",
            r"(?:the|your|this) (?:\w+ )?(?:images?|pictures?|photos?|attachments?|uploads?|attached "
            r"files?)\b[^.!?]{0,30}(?:(?:seems? to be|appears? to be|is) missing(?:[.!]|\Z)|did(?: "
            r"not|n['’]t) (?:come|load|upload|attach|arrive)|could not be (?:opened|loaded|read|displayed|processed|"
            r"retrieved)|(?:is|was) not (?:attached|provided|uploaded|included|received|supported))",
            r"access to (?:this|the|your) (?:image|content|page|file|picture|photo)\b[^.!?]{0,20}(?:restrict|denied|"
            r"block|forbid)",
            r"(?:[\w ]{1,20}: )?(?:this|the|your) (?:image|content|picture|photo|request)\b[^.!?]{0,80}(?:cannot|"
            r"can['’]?t|could not|must not|will not) be (?:described|shown|displayed|processed|captioned|"
            r"analy[sz]ed|fulfilled)",
            r"(?:no|none|nope|i can ?not|i can['’]t|i won['’]t|redacted)\W*\Z",
            r"(?:unable|not able|failed) to (?:comply|assist|help|proceed|continue|respond)\b",
            r"(?:image |photo |picture |no )?(?:description|caption|image|content|response|answer)? ?(?:is |was "
            r")?(?:unavailable|not available|not provided|withheld)\W*\Z",
            r"(?:policy|content|safety) (?:violation|warning|filter(?:ed)?)\b[:.!]",
            r"no (?:description|caption) (?:can|could|will|is|was) (?:be )?(?:\w+ )?(?:given|provided|generated|"
            r"available|written|produced)\b",
        )
    )
)
"""What a sentence of a refusal begins with, in small letters."""

_INSIDE = re.compile(
    rf"(?:\b(?:that|which|so|but|because|and|since|as|not|something|anything)|n['’]t|[,;:–—-]) (?:unfortunately,? "
    rf")?(?:(?!we [^.!?]{{0,20}}(?:identif|recogni|determin)){_ME} ?{_CANNOT} (?:\w+ ){{0,2}}(?:{_TASK}|see (?:it|"
    rf"that)\b)|{_I_AM} (?:not (?:able|allowed|comfortable|permitted)|unable)\b|something (?:that )?{_ME}(?: (?:can|"
    rf"am|do|will|would)|['’]m)\b|as an? (?:\w+[ -]){{0,3}}(?:ai (?:\w+ )?(?:model|assistant)|language model),)"
)
"""A refusal in the middle of a sentence."""

_OUT_OF_REACH = re.compile(
    r"\b(?:beyond|outside|not within|exceeds) (?:of )?(?:what (?:i|we)(?:['’]m| am| can|['’]re| are)\b|(?:my|our) "
    r"(?:\w+ )?(?:capabilit|abilit|scope|guideline|limit|remit|polic))|\b(?:for|to) me to (?:describe|identify|"
    r"analy[sz]e|see|make|provide|tell|comment|caption|view|discuss)\b"
)
"""A refusal anywhere in a sentence, whoever is its subject."""

_OF_ITSELF = re.compile(r"(?:i|my)\b")
_PERCEIVES = re.compile(
    r"i(?:['’](?:d|ll|m))? ?(?:(?:can(?: ?not|['’]t)?|could(?: not|n['’]t)?|do(?: not|n['’]t)|also|still|only|"
    r"hardly|barely|would|clearly|am) )*(?:see|seeing|notic|observ|spot|find|count|make out|look|hear|think|believe|"
    r"guess|suppose|say)\w*\b"
)
"""A captioner that speaks of itself as one who looks at the picture: "I can't see any people"."""
_TROUBLE = re.compile(
    r"\b(?:not|never|no|none|cannot|unable|without|only|need|declin\w+|refus\w+|avoid\w*|trouble|difficult\w*|"
    r"problems?|regret\w*|prefer\w*|rather|uncomfortable|restrict\w*|prohibit\w*|cho(?:ose|sen)|lack|refrain\w*|"
    r"abstain\w*|pass|limit\w*|forbid\w*|appropriate|respectful|safe|require\w*|obliged|obligated)\b|n['’]t\b"
)
_TASK_WORDS = re.compile(
    r"\b(?:image|picture|photo|photograph|attachment|upload|description|caption|request|prompt|content|guideline|"
    r"model|assistant|individual|identit(?:y|ie)|capabilit(?:y|ie)|polic(?:y|ie)|assumption|guesse?|input)s?\b|"
    r"\bdescrib\w+|\bassist\w*|\bcompl(?:y|ies)\b|\bvisual\b|\b(?:only|just) \w+ text\b|\bpass on (?:this|that|"
    r"it)\b|\bai\b"
)
"""A sentence about "I" that has a word of trouble and one of the task is no description."""

_SAYING = re.compile(
    r"\b(?:sa(?:y|ys|id|ying)|read(?:s|ing)?|writ(?:ten|ing|es)|text|caption(?:ed)?|words?|wording|lettering|sign|"
    r"poster|banner|message|titled?|meme|lyrics|sings?|singing|thinks?|thinking|thought|tells?|telling|asks?|asking|"
    r"claims?|shouts?|bubble|slogan|tattoo|sticker|note|labell?ed|label|shirt|board)\b"
)
"""Somebody in the picture speaks or something in it is written, and the "I" is theirs."""

_OTHER_LANGUAGES = re.compile(
    "|".join(
        (
            r"(?:es tut mir|tut mir) (?:sehr )?leid|entschuldigung, (?:aber|ich)|leider (?:kann|darf|ist es mir)|"
            r"ich (?:kann|darf|möchte|werde) (?:\w+ ){0,6}nicht\b|ich bin nicht in der lage|als (?:ein )?ki\b",
            r"je suis (?:vraiment )?(?:désolée?|incapable)|désolée?, (?:mais|je)|je ne (?:peux|suis|saurais) pas|je "
            r"ne suis pas en mesure|en tant qu['’](?:ia|intelligence|assistant|modèle)",
            r"lo siento|lo lamento|disculpa|no (?:puedo|me es posible|soy capaz)|como (?:una? )?(?:ia|modelo de "
            r"lenguaje|inteligencia|asistente)",
            r"mi dispiace|non (?:posso|sono in grado)|come (?:ia|modello|assistente)",
            r"desculpe|sinto muito|lamento, mas|não (?:posso|consigo)|como (?:uma? )?(?:ia|modelo de linguagem|"
            r"inteligência)",
            r"het spijt me|sorry, (?:maar|ik)|ik kan (?:\w+ ){0,6}niet\b|als ai\b|przykro mi|przepraszam|nie mogę|"
            r"jako (?:model|ai|si)\b",
            r"извините|к сожалению, я|простите|я не (?:могу|в состоянии)|мне жаль|как (?:ии|языковая модель|"
            r"искусственн)",
            r"(?:很)?抱歉|对不起|對不起|不好意思|我(?:无法|無法|不能|没有办法)|作为(?:一个|一名)?(?:人工智能|ai|语言模型)|作為(?:一個|一名)?(?:人工智慧|ai|語言模型)",
            r"申し訳|すみません|ごめんなさい|お手伝いできません|aiとして|죄송|미안|저는 (?:\w+ )*없습니다|ai로서",
            r"آسف|عذر|لا (?:أستطيع|يمكنني)|क्षमा करें|माफ़ करें|मैं .{0,40}नहीं (?:कर|दे) सकत|maaf,|xin lỗi|üzgünüm|"
            r"özür dilerim",
        )
    )
)
"""The beginnings of refusals in other languages, for recipes that keep their captions, and for captioners that slip."""


def is_refusal(caption: str) -> bool:
    """True if a sentence speaks as the model about itself: "I'm sorry, but", "As an AI", "I must decline". Quoted words
    are writing in the picture or the speech of a person, and do not count; nor does "I" count alone, nor behind a word
    of saying or writing ("a sign says I cannot")."""
    for sentence in sentences(without_quotes(caption)):
        lowered = sentence.lower().lstrip("\"'“”‘’([*_- ")
        opening = _OPENING.match(lowered)
        said = lowered[opening.end() :] if opening else lowered
        if any(_AT_THE_BEGINNING.match(text) or _OTHER_LANGUAGES.match(text) for text in (said, lowered)):
            return True
        if _OF_ITSELF.match(said) and not _PERCEIVES.match(said) and _TROUBLE.search(said) and _TASK_WORDS.search(said):
            return True
        inside = _INSIDE.search(lowered) or _OUT_OF_REACH.search(lowered)
        if inside is not None and not _SAYING.search(lowered, 0, inside.start()):
            return True
    return False
