from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioning.texts.quality import GATE, caption_or_reason, echoes
from captioning.texts.text import clean
from schemas.reasons import CaptionReason

PROMPT = "Analyze the image in a comprehensive and detailed manner."

LONG = (
    "The image captures a serene scene at a lakeside. In the foreground, a wooden pier stretches out into the "
    "calm, blue water, its planks weathered by years of sun and rain. A small rowing boat, painted red and white, "
    "is tied to the left side of the pier. To the right, a cluster of reeds sways gently in the breeze. In the "
    "background, a range of snow-capped mountains rises above a dense forest of pine trees, their reflection "
    "shimmering on the surface of the lake. The sky above is clear and blue, with a few wispy clouds. On the left "
    "side of the image, an old man sits on a folding chair, a fishing rod in his hands. On the right side of the "
    "image, two children play with a dog. The overall mood is tranquil, and the composition draws the eye from "
    "the pier to the distant peaks."
)

GOOD = (
    LONG,
    "A cat.",
    "Two brown cats are sleeping on red benches near the old churches in Paris.",
    'A neon sign in a bar window reads "I\'m sorry, we are closed". Below it, a man waits.',
    "A woman with tears in her eyes says sorry to a friend. She is sorry for being late, and he can see it.",
    'A meme of a dog with the caption "As an AI language model, I cannot fetch." in white letters.',
    "The shop front of a bakery; its sign reads www.annas-bread.com, and a phone number stands below.",
    'A van with the address "https://www.joes-pizza.com/menu" printed on its side is parked at the kerb.',
    "A laptop displays a web page, the address bar shows https://example.org, and a cup stands beside it.",
    "On the table lie: 1. a red apple, 2. a knife, 3. two plates; behind them, a bottle of milk and a loaf of bread.",
    "A flag with red, white, red, white, red, white stripes hangs from a balcony.",
    "A very, very, very tall tower. New York, New York, the city of lights.",
    "Portrait of José Muñoz and Zoë Kravitz in Kraków, by François Ångström; Łódź is painted on the wall.",
    "Dr. M. L. King Jr. speaks at St. Paul's, approx. 3.5 m above the crowd, at 10 a.m.",
    "A black-and-white photograph of Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch railway station.",
    "A man wears a T-shirt with <3 on it, and x < y > z is chalked on the board.",
    "A scoreboard shows 21-14, 3:45 and 2nd & 10; 67,000 fans cheer.",
    "As an assistant hands the surgeon a scalpel, a nurse looks on. I see a clock on the wall.",
    "As an airplane takes off, no picture could show how loud it is.",
    "一只棕色的猫躺在红色的沙发上。窗外是一片蓝天，远处有几座山。",
    "एक लाल साड़ी पहने महिला बाज़ार में फल खरीद रही है।",
    "Рыжий кот спит на подоконнике; за окном идёт снег.",
    "قطة بنية تنام على أريكة حمراء بجانب النافذة.",
    "A close-up of a keyboard with the keys *, # and @; the ** key is worn.",
    "Ha ha ha, says the clown on the poster. Sale! Sale! Sale! is written below.",
    "There is a tree on the left. There is a house on the right. There is a car in the middle of the road.",
)


@pytest.mark.parametrize("caption", GOOD)
def test_good_captions_pass(caption: str) -> None:
    assert caption_or_reason(caption, PROMPT, ended=True) == clean(caption)


BAD = (
    (CaptionReason.EMPTY_CAPTION, "", " \n\t", "\u200b\ufeff"),
    (
        CaptionReason.REFUSAL,
        "I'm sorry, but I can't assist with that request.",
        "I’m sorry, I cannot identify people in images.",
        "Sorry, but I am not able to describe this picture.",
        "As an AI language model, I do not have the ability to see images.",
        "As an AI, I cannot view the picture. It may show a dog.",
        "Unfortunately, I am unable to view the image you mention.",
        "The image shows a man in a suit. I'm sorry, but I can't tell you who he is.",
        "I can't see any image. Please upload the image again.",
        "No image was provided. Could you please share it?",
        "There is no image attached to your message.",
        "I apologize, but this content is against my guidelines.",
        "I cannot provide a description of this person.",
    ),
    (
        CaptionReason.PROMPT_ECHO,
        "Analyze the image in a comprehensive and detailed manner. The image shows a dog.",
        "analyze the image in a comprehensive and detailed manner",
        "USER: What is this? ASSISTANT: A dog on a beach.",
        "A dog on a beach. ### Human: And the sky?",
        "Assistant: A dog on a beach.",
    ),
    (
        CaptionReason.MARKUP,
        "<p>A dog on a beach.</p>",
        "A dog on a <b>beach</b>.",
        "A dog on a beach. See https://example.org/dog.jpg",
        "A dog, from www.stock-photos.example",
        "**Foreground:** a dog. **Background:** the sea.",
        "# The picture\nA dog on a beach.",
        "It holds:\n- a dog\n- the sea",
        '{"caption": "A dog on a beach."}',
        "```\nA dog on a beach.\n```",
        "A dog on a beach.<|im_end|>",
        "A [dog](dog.html) on a beach.",
        "<TOKENS_UNUSED_1> A dog on a beach.",
    ),
    (
        CaptionReason.REPETITION,
        "A dog on the the the the the the the the beach.",
        "A dog and a cat and a dog and a cat and a dog and a cat and a dog and a cat and",
        "The sky is clear and blue. " * 3,
        "The sky is clear and blue. A dog runs. The sky is clear and blue. A cat sits. The sky is clear and blue.",
        "A dog " + "!" * 40,
        "A dog haha" + "ha" * 20,
        "猫在沙发上，猫在沙发上，猫在沙发上，猫在沙发上。",
        LONG + " " + LONG + " " + LONG,
    ),
    (
        CaptionReason.NOT_LANGUAGE,
        "0.23, 0.45, 0.66, 0.91",
        "?? !! -- ## 12 a",
        "A dog on a \ufffd\ufffd\ufffd",
        "A dog onabeachwithaballinitsmouthandthewavesrollingbehinditallthewaytothehorizonandback",
    ),
)


@pytest.mark.parametrize(("reason", "caption"), [(reason, text) for reason, *texts in BAD for text in texts])
def test_bad_captions_are_refused_with_their_reason(reason: CaptionReason, caption: str) -> None:
    assert caption_or_reason(caption, PROMPT, ended=True) is reason


def test_every_reason_of_the_gate_is_tested() -> None:
    assert {reason for reason, *_ in BAD} == GATE - {CaptionReason.CUT} | {CaptionReason.EMPTY_CAPTION}


@pytest.mark.parametrize(
    ("caption", "ended", "expected"),
    [
        ("A dog on a beach, looking at the", False, CaptionReason.CUT),
        ("A dog on a beach. It looks at the", False, CaptionReason.CUT),
        ("A dog on a beach, drawn by M.", False, None),  # the last mark of a text ends it
        ("A dog on a beach.", False, None),  # the limit and the end of a sentence fell together
        ('A sign reads "Closed."', False, None),
        ("一只猫在沙发上。", False, None),
        ("A dog on a beach, looking at the", True, None),  # a captioner may leave full stops out
        ("A dog on the beach and the sea and the sea and the sea and the sea and the", False, CaptionReason.REPETITION),
    ],
)
def test_a_caption_cut_in_a_sentence_is_refused(caption: str, ended: bool, expected: CaptionReason | None) -> None:
    assert caption_or_reason(caption, PROMPT, ended) == (expected or caption)


@pytest.mark.parametrize(
    ("caption", "prompt", "expected"),
    [
        ("A photo of a dog.", "A photo of", False),
        ("A photo of", "A photo of", True),
        ("Describe this image.", "Describe this image.", True),
        ("A dog.", None, False),
        ("A dog.", "", False),
        (
            'Given the caption of this image "dog", describe it.',
            'Given the caption of this image "{}", describe it in detail.',
            True,
        ),
        ("The image shows a dog; describe it in detail.", 'Given the caption "{}", describe it in detail.', False),
        ("A poster: describe the image and its style, it says.", "Hello. Describe the image and its style.", True),
    ],
)
def test_echo(caption: str, prompt: str | None, expected: bool) -> None:
    assert echoes(caption, prompt) is expected


unit = st.lists(st.sampled_from(["a", "dog", "sees", "the", "red", "sea", "and", "by", "Zoë"]), min_size=1, max_size=30)


@given(st.sampled_from(GOOD), unit, st.integers(0, 5), st.sampled_from(["", " and so", " It is late."]))
def test_a_loop_is_always_caught(caption: str, phrase: list[str], more: int, tail: str) -> None:
    repeats = max(3, -(-12 // len(phrase))) + more
    looped = f"{caption} {' '.join(phrase * repeats)}{tail}"
    assert caption_or_reason(looped, PROMPT, ended=True) is CaptionReason.REPETITION


@given(st.text())
def test_any_text_gives_a_reason_or_a_clean_caption(text: str) -> None:
    found = caption_or_reason(text, PROMPT, ended=True)
    assert isinstance(found, CaptionReason) or (found and found == clean(found))


@pytest.mark.parametrize(
    "text",
    [
        LONG * 110,
        " ".join(f"w{chr(97 + i % 26)}{i}" for i in range(14_000)),
        *(sign * (100_000 // len(sign)) for sign in ('." ', "<a ", "<!--", "“", "“ ", "**a", "[a](", "http://a ")),
        *(sign * (100_000 // len(sign)) for sign in ("a\u200d", "?!x", "‘", "<", "&a")),
        "." * 100_000 + "x",
        ("abcdefgh" * 9 + " Z ") * 1300,
    ],
    ids=lambda text: ascii(text[:6]),
)
def test_100_kb_take_no_quadratic_time(text: str) -> None:
    assert len(text) > 80_000
    start = time.perf_counter()
    caption_or_reason(text, PROMPT, ended=False)
    assert time.perf_counter() - start < 2  # about 0.05 s on an idle core; quadratic time would take minutes
