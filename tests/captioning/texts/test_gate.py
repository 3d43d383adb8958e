from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioning.texts import gate
from captioning.texts import unwrap as unwrapping
from captioning.texts.gate import GATE, Judgement, echoes, judge
from captioning.texts.text import clean
from captioning.texts.unwrap import unwrap
from schemas.reasons import CaptionReason
from schemas.texts import LONGEST_CAPTION


def caption_or_reason(text: str, prompt: str | None, ended: bool) -> str | CaptionReason | None:
    """The caption, or the reason, where every language is kept."""
    found = judge(text, ended=ended, languages=None, prompt=prompt)
    assert (found.caption is None) == (found.reason is not None)
    return found.caption or found.reason


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
    "A sign says I cannot.",
    "A wall with the words yes, no and perhaps; a tag, #12, hangs from a key.",
    "The caption of a cartoon, in French, is not shown in full. Its title is cut.",
    "A crowd holds signs with #peace and #love on them.",
    "An option is marked on a ballot: the second of two.",
    "A label below a drawing; its description is in French and does not mention the price.",
    "The caption below the photo does not include a date. There are no people in the image.",
    "Two cows, real or imaginary, graze. Note the small red boat; it should be noted that one wing is damaged.",
    "A player violates a rule of the game; the picture on the wall is missing a corner.",
    "A file cabinet could not be opened, so its lock was drilled.",
    "The road is beyond the fence, outside my grandmother's house.",
    "I can't see any people in the image. I don't notice any text in the picture.",
    "I think the picture was taken in spring, without a flash.",
    "No cars are in the street. No, it is not raining.",
    "A board shows 3:2 (2:1, 1:1) and the goals at 12, 45, 60 and 88 minutes.",
    "Numbers from (10) to (99); a ruler (0, 1, 2, 3 and 4 cm) lies beside a beetle.",
    "Bread, cheese, tomatoes, olives, and a bottle of wine on a table.",
    'A television of 55" hangs on a wall.',
    "A sign in the shop's window says sorry, we are closed.",
    "Sorry, we are closed, reads the sign on the shop's door.",
    "A hand-written note says: sorry, I can't open today.",
    "A woman apologizes to her child; a man declines a glass of wine.",
    "A person unable to walk sits in a wheelchair.",
    "Unable to see over the wall, a child stands on a box.",
    "The picture was rejected by the jury and hangs in a hall; a door is marked access denied.",
    "Here is a dog on a beach, seen from behind.",
    "A card that says let me know if you need anything.",
    'A poster reads "We are open. Feel free to ask."',
    'A postcard reads "Here is the description of my garden:" in blue ink.',
    "Certainly the largest tree in the park, an oak spreads over the lawn.",
    "The photo was taken at night. Do you see the owl? It sits on the left.",
    "This is a photograph of a lake: it is calm and blue.",
    "A scoreboard shows (3, 2) and the time [12:30]; three cats (1, 2, 3) sit in a row.",
    'A chalkboard with the vector "[1, 2, 3, 4]".',
    'A screen shows "<box>(12,40),(310,420)</box>" in green letters.',
    "A man at pixel-art machines, 3 of 4 (1980, 1981); a box and a point are drawn on the floor.",
    "A map with the coordinates of two towns, and a bounding line around the lake.",
    "Here's to you, reads a card on a table.",
    '"Here\'s to you" is printed on a poster.',
    '"Stop" is painted on the road beside "Go".',
    "'Tis the season' is written on a banner.",
    "A book about Markdown lies open; a page explains # for headings and ** for bold.",
    'A poster reads "**SALE** today" in red.',
    "The painting mixes real and imaginary elements. Its caption is not in English.",
    "A page with the description of a plant, based on a drawing of 1820.",
    "The scene is calm: no people, no cars, no assumptions about the time.",
    "All the details of the carving are visible, from the leaves to the bark.",
    "A no-entry sign: access is not available to the public.",
    "There is no image on the television; its screen is black.",
    "A policy violation notice is stuck to a windshield.",
    "There does not appear to be any traffic on the road.",
    "It is best seen from the left, where the pattern repeats.",
    "A note on the fridge: please provide milk.",
    "The photo is not accessible by stairs; a ramp leads to the door.",
    "No one is visible in the image.",
    "We see a man on a horse; we cannot see his face.",
    "In this picture we can see a cat. We cannot identify its breed.",
    "The viewer can't help but notice the red door.",
    "A man thinks <3 and writes snake_case_names on a board.",
    "Apples, pears, grapes and plums lie in a bowl.",
    "A vintage car, red and shiny, parked by a kerb, chrome gleaming, sun low.",
    "Paris, France.",
    "There is a tree on the left. There is a house on the right. There is a car in the middle of the road.",
    "A chalkboard with the equation x = 5 and y = 3 written on it in white chalk.",
    "A plot with the points (1, 2) and (3, 4) marked in red on a white grid.",
    "1. Flour, 2. Sugar and 3. Eggs are written on the card.",
    "As an artificial intelligence exhibit, a white robot stands in the hall.",
    "Two clocks hang on a wall. 12. Street, the sign between them says.",
    "A hall with 2. class seats. 1. A curtain is closed. 2. A lamp is lit.",
)


@pytest.mark.parametrize("caption", GOOD)
def test_good_captions_pass(caption: str) -> None:
    assert caption_or_reason(caption, PROMPT, ended=True) == clean(caption)


BAD = (
    (CaptionReason.EMPTY_CAPTION, "null", "N/A", "Image not available.", "", " \n\t", "\u200b\ufeff"),
    (
        CaptionReason.REFUSAL,
        "I'm sorry, but I can't assist with that request.",
        "I’m sorry, I cannot identify people in images.",
        "Sorry, but I am not able to describe this picture.",
        "Describing this image would be inappropriate.",
        "The image is blank or failed to load. Please try again.",
        "As an AI language model, I do not have the ability to see images.",
        "As an AI, I cannot view the picture. It may show a dog.",
        "Unfortunately, I am unable to view the image you mention.",
        "The image shows a man in a suit. I'm sorry, but I can't tell you who he is.",
        "I can't see any image. Please upload the image again.",
        "No image was provided. Could you please share it?",
        "There is no image attached to your message.",
        "I apologize, but this content is against my guidelines.",
        "I cannot provide a description of this person.",
        "I don't feel comfortable describing this photo.",
        "I have to decline this request, as the picture shows somebody's face.",
        "Apologies, but the picture holds something that I can't help with.",
        "This prompt was rejected by our safety system.",
        "I'd rather not describe this.",
        "I won't be able to describe the person in this image.",
        "Describing this image would go against my guidelines.",
        "This content violates our usage policies.",
        "I’m afraid I can’t do that.",
        "It looks like you forgot to upload the image.",
        "Unable to process the image.",
        "As a language model, I have no access to images.",
        "That's not something I can help with.",
        "The image shows a woman, but I can't identify her.",
        "For safety reasons, I cannot describe the content of this image.",
        "I cannot in good conscience describe this image.",
        "It would be inappropriate for me to describe this image.",
        "Request denied.",
        "Thank you for sharing this image, but I cannot describe it.",
        "I appreciate your request; however, I am unable to assist.",
        "Sure! Let me know what you need.",
        "Es tut mir leid, aber ich kann dieses Bild nicht beschreiben.",
        "Lo siento, pero no puedo ayudar con esa solicitud.",
        "Je suis désolé, mais je ne peux pas décrire cette image.",
        "抱歉，我无法描述这张图片。",
        "申し訳ありませんが、この画像を説明することはできません。",
        "Извините, я не могу описать это изображение.",
        "죄송하지만 이 이미지를 설명할 수 없습니다.",
        "I wish I could describe this, but it is beyond what I'm able to do.",
        "I have chosen not to describe this image.",
        "I'll pass on this one.",
        "It isn't possible for me to describe the image.",
        "It's not possible to describe this image.",
        "I do not want to describe this image.",
        "I can't make assumptions about people's identities.",
        "I don't make guesses about who people are.",
        "This violates my guidelines.",
        "The content violates OpenAI's usage policies.",
        "Your prompt triggered the safety filter.",
        "I don't have visual capabilities.",
        "I currently do not support image inputs.",
        "Image input is not supported.",
        "This model does not support images.",
        "I only process text.",
        "I can only process text, so please describe the image.",
        "Without an image I can't write a description.",
        "Once you upload the image, I can describe it.",
        "I need an image to describe.",
        "There seems to be no image.",
        "There was an error processing the image.",
        "The image is too blurry for me to describe.",
        "The image you sent seems to be missing.",
        "The attached file could not be opened.",
        "Your image didn't come through.",
        "I'm having trouble viewing the image.",
        "Which image would you like me to describe?",
        "I hope you understand.",
        "No, I can't.",
        "[Image description unavailable]",
        "[REDACTED]",
        "Unable to comply.",
        "Access to this image is restricted.",
        "Warning: this image contains explicit content and cannot be described.",
        "It's against my programming to describe this.",
        "As an artificial intelligence, I do not possess the ability to see images.",
        "This is beyond my capabilities.",
        "Describing this image is outside my scope.",
        "I'm going to have to pass on this one.",
        "I don't know what is in the image, as I can't see it.",
        "No description can be provided for this image.",
        "Please upload an image.",
        "I don't have eyes to see this picture.",
        "Declined.",
        "A man in a suit sits at a desk. Note: I cannot identify him.",
        "You haven't provided an image.",
        "I was not able to open the file.",
        "I must inform you that I cannot view images.",
    ),
    (
        CaptionReason.PROMPT_ECHO,
        "Analyze the image in a comprehensive and detailed manner. The image shows a dog.",
        "analyze the image in a comprehensive and detailed manner",
        "USER: What is this? ASSISTANT: A dog on a beach.",
        "A dog on a beach. ### Human: And the sky?",
        "Assistant: A dog on a beach.",
        "A dog on a beach.\n### Human: Thank you!",
    ),
    (
        CaptionReason.MARKUP,
        "<p>A dog on a beach.</p>",
        "A dog on a <b>beach</b>.",
        "A dog on a beach. See https://example.org/dog.jpg",
        "A dog, from www.stock-photos.example",
        "It holds:\n- a dog\n- the sea",
        "A dog on a beach.<|im_end|> A cat on a sofa.",
        "A [dog](dog.html) on a beach.",
        "<TOKENS_UNUSED_1> A dog on a beach.",
        '{"objects": "A dog on a beach."}',
        "{'objects': 'A dog on a beach.'}",
        "{'objects': 'A dog on",
        '["A dog", "on a beach", "in the"]',
        "<think>\nThe user wants words about a bus.",
        "A bus passes. <think>Is it red?",
        "<div>A bus passes.</div>",
        "&lt;p&gt;A bus passes.&lt;/p&gt;",
        "| Subject | Mood |\n|---|---|\n| A bus | Calm |",
        "[b]A bus[/b] passes.",
        "A \\textit{bus} passes.",
        "It holds:\n* a bus\n* the sea",
        "It holds:\n• a bus\n• the sea",
        "It holds:\n1. **Bus**: red and old\n2. **Sea**: calm and blue\n\nThe mood is calm.",
        "<|begin_of_box|>A bus passes.<|end_of_box|> A car<|sep|>waits.",
    ),
    (
        CaptionReason.BOXES,
        "A red bus[[12, 40, 310, 420]] passes a kiosk[[400, 80, 520, 300]].",
        "A bus [12, 40, 310, 420] passes.",
        "A bus [0.12, 0.34, 0.56, 0.78] passes.",
        "A bus (12, 40, 310, 420) passes.",
        "A bus (12, 40), (310, 420) passes.",
        "A bus at [10 20 30 40] passes.",
        "A bus [[440, 208]] passes.",
        "A <ref>bus</ref><box>(12,40),(310,420)</box> passes.",
        "A bus<|box_start|>(12,40),(310,420)<|box_end|> passes.",
        "A bus<loc_12><loc_40><loc_310><loc_420> passes.",
        "A bus<12><40><310><420> passes.",
        'A bus {"bbox_2d": [12, 40, 310, 420]} passes.',
        'A <point x="61.5" y="40.6" alt="bus">bus</point> passes.',
        'Two <points x1="10.5" y1="20.1" x2="30.2" y2="40.3" alt="cars">cars</points> pass.',
        "A bus <polygon>12 40 310 420 12 40</polygon> passes.",
        'A bus, x1="12" y1="40", passes.',
        "A bus [x1=12, y1=40, x2=310, y2=420] passes.",
        "A bus <box>12 40 310 420</box> passes.",
        "A bus<|object_ref_start|>bus<|object_ref_end|> passes.",
        "A bus<loc0012><loc0040><loc0310><loc0420> passes.",
        "A bus <patch_index_0044><patch_index_0863> passes.",
        "A bus at (0.12, 0.34) passes.",
        "A bus passes, bounding box: 12, 40, 310, 420.",
        "A bus, xmin: 12, ymin: 40, xmax: 310, ymax: 420, passes.",
        '{"bbox_2d": [12, 40, 310, 420], "label": "bus"}',
        "A bus passes at coordinates (120, 340).",
        "A bus [12%, 40%, 31%, 42%] passes.",
        "A bus at top-left (12, 40), bottom-right (310, 420) passes.",
        "A bus (x: 12, y: 40, w: 298, h: 380) passes.",
    ),
    (
        CaptionReason.TAGS,
        "solo, short hair, green eyes, indoors, window, smile, sitting, red scarf",
        "dog, beach, sunset, waves",
        "Tags: dog, beach, sunset, waves, sand, ocean",
        "dog; beach; sunset; sea; sand",
        "dog | beach | sunset | waves | sand",
        "dog\nbeach\nsunset\nwaves\nsand",
        "long_hair blue_eyes 1girl solo",
        "#dog #beach #sunset",
        "狗，海滩，日落，海浪，天空，橙色，沙子，跑",
        "Hund, Strand, Sonnenuntergang, Wellen, Sand, Himmel",
        "dog, beach, sunset, waves, sand, ocean.",
        "- dog\n- beach\n- sunset\n- waves",
        "1. dog\n2. beach\n3. sunset\n4. waves",
        "Image tags: dog, beach, sunset, waves",
        "Sunset over ocean, golden light, calm waves, distant ships, 35mm, film grain",
        "masterpiece, best quality, dog, beach, sunset",
        "#dog #beach",
        "Dog. Beach. Sunset. Waves.",
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
        "=========",
        "?? !! -- ## 12 a",
        "A dog on a \ufffd\ufffd\ufffd",
        "A dog onabeachwithaballinitsmouthandthewavesrollingbehinditallthewaytothehorizonandback",
    ),
)


@pytest.mark.parametrize(("reason", "caption"), [(reason, text) for reason, *texts in BAD for text in texts])
def test_bad_captions_are_refused_with_their_reason(reason: CaptionReason, caption: str) -> None:
    assert caption_or_reason(caption, PROMPT, ended=True) is reason


def test_every_reason_of_the_gate_is_tested() -> None:
    assert {reason for reason, *_ in BAD} | {CaptionReason.OTHER_LANGUAGE} == GATE - {CaptionReason.CUT} | {
        CaptionReason.EMPTY_CAPTION
    }


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


SCENE = "A brown cow stands on a green meadow at noon. Clouds gather behind it and the grass is wet."


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Certainly! Here's a very detailed description of this image:\n\n", ""),
        ("Sure, here is a caption for the picture: ", ""),
        ("Of course! ", ""),
        ("**Certainly!** ", ""),
        ("Description: ", ""),
        ("I'd be happy to help! Below is a detailed description:\n", ""),
        ("Okay, here's what I see in the image:\n\n", ""),
        ("As requested, here is a detailed caption: ", ""),
        ("Here you go:\n\n", ""),
        ("", "\n\nLet me know if you would like more details!"),
        ("", " Feel free to ask if you have any questions."),
        ("", "\n\nWould you like me to describe it in more detail?"),
        ("", "\n\nI hope this helps! If you need more, just ask."),
        ("Certainly!\n\n", "\n\n---\n(Let me know if you'd like any changes!)"),
        ("Bien sûr ! Voici une description détaillée de l'image :\n\n", ""),
        ("Natürlich! Hier ist eine detaillierte Beschreibung des Bildes:\n\n", ""),
        ("¡Claro! Aquí tienes una descripción detallada:\n\n", ""),
        ("当然！以下是这张图片的详细描述：\n\n", ""),
        ("", "\n\n如果您需要更多细节，请告诉我。"),
        ("", "\n\nN'hésitez pas à me demander plus de détails !"),
        ('<think>\nThe user wants words about a "cow.\n</think>\n\n', ""),
        ("A cow, I think.\n</think>\n\n", ""),  # the prompt held the beginning
        ("◁think▷A cow?◁/think▷", ""),
        ("<think></think>\n<answer>", "</answer>"),
        ("<|channel|>analysis<|message|>A cow.<|end|><|start|>assistant<|channel|>final<|message|>", ""),
        ("", "\n<reflection>Is it a cow? Yes.</reflection>"),
        ("# A Cow on a Meadow\n\n", ""),
        ("**A Cow on a Meadow**\n\n", ""),
        ("A Cow\n=====\n", "\n\n---"),
        ("### ", ""),
        ("**", "**"),
        ("*", "*"),
        ("```\n", "\n```"),
        ("Sure! Here's the caption:\n```markdown\n## Caption\n", "\n```\nLet me know if you need more."),
        ('"', '"'),
        ("“", "”"),
        ("'", "'"),
        ("`", "`"),
        ('Caption: "', '"'),
        (
            "",
            " Please note that this description is based on the visible elements of the image and does not include any "
            "imaginary content.",
        ),
        (
            "",
            " The description provided is based solely on the visible content of the image, without any imaginary or "
            "inferred content.",
        ),
        ("", " This image does not contain any imaginary content."),
        ("", " It is important to note that no imaginary content has been added."),
        ("", " All the details are based on the visible content."),
        ("", " The picture doesn't include any imaginary content, and everything described is visible."),
        ("", " Every detail mentioned is visible in the image, with no imaginary additions."),
        ("", " The analysis is limited to what is visible in the image."),
        ("", " Nothing imaginary is included in this caption."),
        ("", "\n\n*Note: This description is based on the visible elements of the image.*"),
        ("", " (Word count: 18)"),
        ("Got it. Here is the image description:\n\n", "\n\nHope that helps! 😊"),
        ("Description\n\n", ""),
        ("Sure, ", ""),
        ("Of course. Here it is:\n\n", ""),
        ("**Caption**\n\n", ""),
        ("Title: A Cow\n\nDescription: ", ""),
        ("Caption 1: ", ""),
        ("My caption: ", ""),
        ("1. ", ""),
        ("The image can be described as follows: ", ""),
        ("I see the following: ", ""),
        ("Thank you for sharing this image. ", ""),
        ("What a lovely picture! ", ""),
        ("", "\n\nDoes this help?"),
        ("", "\n\nI hope this detailed description meets your needs."),
        ("", "\n\nShould you need anything else, I'm here to help."),
        ("", "\n\n(This caption has 18 words.)"),
        ("", "\n\n[End of description]"),
        ("", "\n\n---\n*Generated by AI*"),
        ("", "\n\n**Keywords:** cow, meadow, noon"),
        ("", "\n\n#cow #meadow #noon"),
        ("[CAPTION] ", ""),
        ("Caption - ", ""),
        ("> ", ""),
        ("- ", ""),
        ('The caption for this picture could be: "', '"'),
        ('"', ""),
        ("<caption>", "</caption>"),
        ("[Image description: ", "]"),
        ("(", ")"),
        ("Title: A Quiet Noon\n\n", ""),
        ("Sure thing — here's a caption:\n\n> ", ""),
        ("Here are a few options:\n\n", ""),
        ("**Title:** A Quiet Noon\n\n", ""),
    ],
)
def test_what_a_chat_model_says_around_a_caption_is_cut_off_and_kept(before: str, after: str) -> None:
    found = judge(f"{before}{SCENE}{after}")
    assert (found.caption, found.reason) == (SCENE, None)
    assert "".join("".join(found.cut).split()) == "".join((before + after).split())


@pytest.mark.parametrize(
    ("answer", "caption", "cut"),
    [
        ("A **brown** cow and __two__ *red* ones.", "A brown cow and two red ones.", ("**", "__", "*")),
        ("**Foreground:** a dog. **Background:** the sea.", "Foreground: a dog. Background: the sea.", ("**", "**")),
        ('{"caption": "A dog runs."}', "A dog runs.", ('{"caption":', "}")),
        ('```json\n{"tags": ["dog"], "description": "A dog runs."}\n```', "A dog runs.",
         ("```json", '{"description":', '"tags": ["dog"]}', "```")),
        ("A cow &amp; a calf.", "A cow & a calf.", ()),
        ('"A sign reads "STOP" here."', 'A sign reads "STOP" here.', ('"', '"')),
        ('{"caption": "A dog \\"Rex\\".\\nIt runs."}', 'A dog "Rex". It runs.', ('{"caption":', "}")),
        ("- **Subject**: A dog.\n- **Style**: A warm photograph.", "Subject: A dog. Style: A warm photograph.",
         ("-", "**", "-", "**")),
        ("1. **Front:**\n   - A dog runs.\n   - It is red.\n2. **Style:**\n   - Warm.",
         "A dog runs. It is red. Warm.", ("1.", "**Front:**", "-", "2.", "**Style:**")),
        ("1. A dog runs. 2. It is red.", "A dog runs. It is red.", ("1.", "2.")),
        ("* A dog runs.\n* It is red.", "A dog runs. It is red.", ("*", "*")),
        ("{'caption': \"A dog's bed.\", 'sure': True}", "A dog's bed.", ('{"caption":', '"sure": true}')),
        ("{'caption': 'A \\ud83d dog.'}", "A dog.", ('{"caption":', "}")),
        ('{"caption": "A \\ud83d dog."}', "A dog.", ('{"caption":', "}")),
        ("[{'description': 'A dog runs.'}]", "A dog runs.", ('{"description":', "}")),
        ("# A dog\n\nIt runs.\n\n## The sea\n\nIt is blue.", "It runs. It is blue.", ("# A dog", "## The sea")),
        ("A dog runs. This description holds no imaginary content. It is red.", "A dog runs. It is red.",
         ("This description holds no imaginary content.",)),
        ("It is calm, without any imaginary content. A dog runs.", "It is calm. A dog runs.",
         (", without any imaginary content",)),
        ("<think>One.</think>A dog runs.<think>Two.</think>", "A dog runs.",
         ("<think>One.</think>", "<think>Two.</think>")),
    ],
)  # fmt: skip
def test_what_is_cut_inside_a_caption_is_kept_too(answer: str, caption: str, cut: tuple[str, ...]) -> None:
    assert judge(answer) == Judgement(caption, None, cut)


@pytest.mark.parametrize(
    ("languages", "caption"),
    [
        (("en",), "一头棕色的牛站在绿色的草地上。"),
        (("en",), f"{SCENE} Nearby regions保持茂密的绿色植被。"),
        (("en",), "A brown cow stands 在草地上 at noon."),
        (("en",), "A 牛 stands on a meadow by a lake."),
        (("en",), "Overall, the image conveys a sense of 宁静."),
        (("en",), "A brown cow stands on a meadow. / 一头牛站在草地上。"),
        (("en",), "English: A brown cow stands on a meadow. 中文：一头牛站在草地上。"),
        (("en",), f"{SCENE} Собака коричневая."),
        (("en",), f"{SCENE} Die Wolken ziehen hinter ihr auf und das Gras ist noch nass."),
        (("en",), "Una vaca marrón está en un prado verde al mediodía. Las nubes se juntan detrás de ella."),
        (("en",), "갈색 소가 초원에 서 있다."),
        (("en",), "بقرة بنية تقف في مرج أخضر عند الظهر."),
        (("zh",), SCENE),
        (("de", "fr"), SCENE),
    ],
)
def test_a_caption_in_another_language_or_in_two_is_refused(languages: tuple[str, ...], caption: str) -> None:
    assert judge(caption, languages=languages).reason is CaptionReason.OTHER_LANGUAGE
    assert judge(caption, languages=None).caption == caption


@pytest.mark.parametrize(
    ("languages", "caption"),
    [
        (("en",), SCENE),
        (("en",), 'A shop with the sign "营业中，欢迎光临，请进来看看我们的商品" in a window.'),
        (("en",), "A sign in Chinese characters 出口 above a door."),
        (("en",), "A torii gate (鳥居) stands in the water."),
        (("en",), "The Greek letter π is drawn on a board; α and β stand below."),
        (("en",), "The Champs-Élysées in Paris at night, with crème brûlée and jalapeños on a table."),
        (("en",), "Portrait of Søren Kierkegaard in København."),
        (("en",), "A café in Île-de-France serves pâté, crème fraîche and jalapeño poppers."),
        (("en",), "A T-shirt with Привет on it, and a cap with СССР painted on its front."),
        (("en",), "A menu with ラーメン and 餃子 in black letters; the character 永 hangs on a wall."),
        (("en",), "A flag reads Россия, and a soldier stands below it."),
        (("en",), "The cover of «Война и мир» lies on a shelf."),
        (("zh",), "一头牛站在草地上，旁边是一个 Coca-Cola 的广告牌。"),
        (("zh", "en"), "A brown cow stands 在草地上 at noon."),
        (("ru",), "Бурая корова стоит на зелёном лугу в полдень."),
    ],
)
def test_names_and_writing_in_the_picture_may_be_in_any_language(languages: tuple[str, ...], caption: str) -> None:
    assert judge(caption, languages=languages).caption == caption


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


PIECES = (
    *(
        "Sure!",
        "Here is a description:",
        "\n",
        " ",
        "Let me know!",
        "**a",
        "b**",
        "# ",
        '"',
        "“",
        "”",
        "'",
        "*",
        "{",
        "}",
    ),
    *(
        "<think>",
        "</think>",
        "```",
        "---",
        '{"caption": "',
        "No imaginary content.",
        "<answer>",
        "</answer>",
        "`",
        "__",
    ),
)


@pytest.mark.slow
@given(st.lists(st.sampled_from([*GOOD, *PIECES])))
def test_a_judged_caption_is_judged_the_same_again(pieces: list[str]) -> None:
    caption = judge("".join(pieces), languages=None).caption
    assert caption is None or judge(caption, languages=None) == Judgement(caption, None)


@pytest.mark.parametrize(
    "text",
    [
        LONG * 110,
        " ".join(f"w{chr(97 + i % 26)}{i}" for i in range(14_000)),
        *(sign * (100_000 // len(sign)) for sign in ('." ', "<a ", "<!--", "“", "“ ", "**a", "[a](", "http://a ")),
        *(sign * (100_000 // len(sign)) for sign in ("a\u200d", "?!x", "‘", "<", "&a")),
        *(sign * (100_000 // len(sign)) for sign in ("<think>", "<think></think>", "**a** ", '"“*', "# a\n", "```\n")),
        *(sign * (100_000 // len(sign)) for sign in ("[", '{"a":', "- ", "_", "Note that no ", "'a", "<a:", "*a*b")),
        "." * 100_000 + "x",
        ("abcdefgh" * 9 + " Z ") * 1300,
    ],
    ids=lambda text: ascii(text[:6]),
)
def test_100_kb_take_no_quadratic_time(text: str) -> None:
    assert len(text) > 80_000
    start = time.process_time()
    caption_or_reason(text, PROMPT, ended=False)
    assert time.process_time() - start < 2  # about 0.05 s on an idle core; quadratic time would take minutes


WRAPPERS = (
    *(sign * 2 for sign in "\"'`"), "“”", "«»", "「」", '"`', "“«", '" ', "[]", "()", '"[', "**", '*"',
    "# ", "- ", "> ",
)  # fmt: skip
"""What is around a text again and again: an opening and a closing sign, or two kinds of both, or a mark before it."""
CLOSING = dict(zip("\"'`“«「[(*", "\"'`”»」])*", strict=True))


def wrapped(signs: str, times: int, text: str) -> str:
    if signs in ("# ", "- ", "> "):
        return signs * times + text
    opening = signs if signs[1] in CLOSING else signs[0] + " " * (signs[1] == " ")
    return opening * times + text + "".join(CLOSING.get(sign, sign) for sign in reversed(opening)) * times


@pytest.mark.parametrize("signs", WRAPPERS)
def test_a_text_that_is_wrapped_a_million_times_is_read_some_twenty_times(
    signs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Counter[str]()

    def counted(layer: Callable[[str], unwrapping.Spans]) -> Callable[[str], unwrapping.Spans]:
        def of(text: str) -> unwrapping.Spans:
            read[layer.__name__] += len(text)
            return layer(text)

        return of

    monkeypatch.setattr(unwrapping, "_LAYERS", tuple(map(counted, unwrapping._LAYERS)))
    for text in (wrapped(signs, 500_000, FOX), wrapped(signs, LONGEST_CAPTION // 2 - 40, FOX)):
        read.clear()
        assert judge(text).caption in (None, FOX)
        assert max(read.values()) <= 24 * LONGEST_CAPTION


@pytest.mark.parametrize("signs", ['""', "``", "“”", "«»", "“«", '" ', "# ", "- ", "> "])
def test_a_caption_that_is_wrapped_thirty_times_is_kept(signs: str) -> None:
    assert judge(wrapped(signs, 30 // len(signs.strip()), FOX)).caption == FOX
    assert judge(wrapped(signs, 1, FOX)).caption == FOX


@pytest.mark.parametrize("times", [1, 2, 9])
@pytest.mark.parametrize("text", ['"Stop" is painted beside "Go"', "“Stop” is painted beside “Go”"])
def test_two_pairs_of_quotes_are_none_around_everything(text: str, times: int) -> None:
    for opening, closing in ('""', "“”"):
        assert unwrap(opening * times + text + closing * times)[0] == text


def test_captions_written_for_other_tests_are_all_kept_as_they_are() -> None:
    lines = (Path(__file__).parents[1] / "nouns_of_captions.tsv").read_text(encoding="utf-8").splitlines()
    captions = [line.split("\t")[0] for line in lines if line and not line.startswith("#")]
    assert len(captions) >= 300
    assert [caption for caption in captions if judge(caption) != Judgement(clean(caption), None)] == []


FOX = "A red fox walks through deep snow at the edge of a forest."


def test_an_answer_longer_than_any_caption_is_refused_by_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    unwrap = gate.unwrap

    def spy(text: str) -> tuple[str, tuple[str, ...]]:
        read.append(len(text))
        return unwrap(text)

    monkeypatch.setattr(gate, "unwrap", spy)
    sentences = " ".join(f"The {number} of them are by tree {number + 7}." for number in range(30_000))
    assert judge(f"{FOX} {sentences}").reason is CaptionReason.CUT
    assert judge("I'm sorry, but I can't. " * 40_000).reason is CaptionReason.REFUSAL
    assert judge("[" * 1_000_000).reason is CaptionReason.REPETITION
    assert max(read) <= LONGEST_CAPTION


def test_long_thinking_before_a_caption_is_taken_off() -> None:
    thought = "<think>" + "I look at the fox. " * 5_000 + "</think>"
    assert judge(f"{thought}\n{FOX}") == Judgement(FOX, None, (thought,))
    assert judge(f"{FOX} {thought}").caption is None


@pytest.mark.parametrize("mark", ["</s>", " <|im_end|>", "<|endoftext|>\n</s>", "<end_of_turn>", "\n<|eot_id|>"])
def test_marks_of_the_vocabulary_at_the_ends_are_taken_off(mark: str) -> None:
    caption = "A red boat is on a calm lake at dawn, and a man rows it."
    assert unwrap(caption + mark) == (caption, (mark.strip(),))
    assert unwrap(f"<s> {caption}")[0] == caption
    assert unwrap(f'"{caption}"{mark}')[0] == caption
    inside = "A sign that reads </s> is beside a boat."
    assert unwrap(inside) == (inside, ())
    assert unwrap(mark)[0] == ""
