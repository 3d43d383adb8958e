from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import GenerationConfig

from captioning.captioners.share_captioner import Decoding, ShareCaptioner
from captioning.captioners.share_captioner.generation import generate_ids
from captioning.captioners.share_captioner.language import EOS, InternLM
from captioning.captioners.share_captioner.model import preprocess
from captioning.captioners.share_captioner.sampling import GumbelDice

MODES = ("published", "greedy", "sampled")


@pytest.fixture(scope="module")
def pictures(photos: dict[str, Image.Image]) -> list[Image.Image]:
    return list(photos.values())


@pytest.fixture(scope="module")
def prompts(captioner: ShareCaptioner, pictures: list[Image.Image]) -> Tensor:
    before, after = (torch.tensor(ids) for ids in captioner.tokenizer.prompt())
    return captioner.prompt(preprocess(pictures, captioner.image_size), before, after)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_caption_is_the_same_in_any_batch(captioner: ShareCaptioner, pictures: list[Image.Image], mode: str) -> None:
    decoding = Decoding(mode, max_new_tokens=24)  # type: ignore[arg-type]
    seeds = list(range(100, 100 + len(pictures)))
    together = captioner.generate(pictures, seeds, decoding)
    torch.manual_seed(5)  # torch's own generator has no say
    alone = [captioner.generate([picture], [seed], decoding)[0] for picture, seed in zip(pictures, seeds, strict=True)]
    assert together == alone
    assert captioner.generate(pictures[::-1], seeds[::-1], decoding) == together[::-1]
    assert len({caption.text for caption in together}) == len(pictures)


@pytest.mark.parametrize("mode", ["published", "sampled"])
def test_seeds_change_the_caption(captioner: ShareCaptioner, pictures: list[Image.Image], mode: str) -> None:
    decoding = Decoding(mode, max_new_tokens=24)  # type: ignore[arg-type]
    captions = captioner.generate(pictures[:1] * 6, [1, 2, 3, 4, 5, 1], decoding)
    assert captions[0] == captions[5]
    assert len({caption.text for caption in captions}) > 3
    greedy = captioner.generate(pictures[:1] * 2, [1, 2], replace(decoding, mode="greedy"))
    assert greedy[0] == greedy[1]


@pytest.mark.filterwarnings("ignore:Passing `repetition_penalty`")
def test_without_dice_beams_are_those_of_transformers(captioner: ShareCaptioner, prompts: Tensor) -> None:
    """Noise of nothing makes beam sampling beam search, except that all beams start alike."""
    language = captioner.model.language
    config = GenerationConfig(
        max_new_tokens=12, num_beams=3, do_sample=False, repetition_penalty=1.5, eos_token_id=EOS, pad_token_id=EOS
    )
    search = language.generate(inputs_embeds=prompts, generation_config=config)

    class NoDice(GumbelDice):
        """Rolls nothing; in the first step, that the first beam alone is drawn from."""

        def noise(self, step: int, choices: Tensor) -> Tensor:
            later = (choices >= captioner.model.dimensions.vocab_size) & (step == 0)
            return torch.zeros(choices.shape, dtype=torch.float64).masked_fill(later, -1e9)

    language.dice, language.top_k = NoDice([0] * len(prompts), prompts.device), 50
    try:
        ours = language.generate(inputs_embeds=prompts, generation_config=config)
    finally:
        language.dice = None
    assert torch.equal(ours, search)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["published", "sampled"])
def test_draws_follow_the_model(captioner: ShareCaptioner, prompts: Tensor, mode: str) -> None:
    """The first token of many seeds against the model's own probabilities, top-k renormalised."""
    language, prompt = captioner.model.language, prompts[:1, -6:]  # its end alone: 4000 rows of it
    logits = language(inputs_embeds=prompt).logits[0, -1].clone()
    logits[EOS] = -torch.inf  # never the first
    likeliest, tokens = logits.topk(4)
    wanted = likeliest.softmax(dim=0)
    decoding = Decoding(mode, max_new_tokens=1, top_k=4, num_beams=2)  # type: ignore[arg-type]
    rows = generate_ids(language, prompt.expand(4000, -1, -1), decoding, range(4000), [EOS])
    found = torch.tensor([[row[0] == token for token in tokens] for row in rows]).double().mean(dim=0)
    if mode == "sampled":
        torch.testing.assert_close(found, wanted.double(), rtol=0, atol=0.03)  # 4 standard deviations
    else:  # of 4 draws without replacement from two like beams the likeliest that was drawn wins
        drawn = torch.multinomial(wanted.repeat(2).expand(200_000, -1), 4, generator=torch.Generator().manual_seed(1))
        expected = torch.bincount((drawn % 4).amin(dim=1), minlength=4) / len(drawn)
        torch.testing.assert_close(found, expected.double(), rtol=0, atol=0.03)


@pytest.mark.slow
def test_a_caption_that_is_cut_off_says_so(captioner: ShareCaptioner, pictures: list[Image.Image]) -> None:
    short = captioner.generate(pictures, [0] * len(pictures), Decoding("sampled", max_new_tokens=5))
    assert any(not generated.ended and generated.num_tokens == 5 for generated in short)
    long = captioner.generate(pictures, [0] * len(pictures), Decoding("sampled", max_new_tokens=1500, top_k=404))
    assert any(generated.ended for generated in long)
    for generated in long:
        assert generated.ended == (generated.num_tokens < 1500)
        assert generated.text == generated.text.strip() and "<TOKENS_UNUSED_1>" not in generated.text


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_follows_float32(
    checkpoint: Callable[[None], Path], captioner: ShareCaptioner, pictures: list[Image.Image], dtype: str
) -> None:
    half = ShareCaptioner.load(checkpoint(None), dtype=dtype)
    pixels = preprocess(pictures, 56)
    ids = [torch.tensor(part) for part in captioner.tokenizer.prompt()]
    exact, rounded = captioner.logits(pixels, *ids), half.logits(pixels, *ids).float()
    assert rounded.isfinite().all()
    assert (rounded - exact).std() < 0.1 * exact.std()
    for mode in MODES:
        decoding = Decoding(mode, max_new_tokens=8)  # type: ignore[arg-type]
        captions = half.generate(pictures, range(len(pictures)), decoding)
        assert captions == half.generate(pictures, range(len(pictures)), decoding)
        assert all(caption.text for caption in captions)


def test_pictures_and_seeds_of_different_numbers_are_refused(
    captioner: ShareCaptioner, pictures: list[Image.Image]
) -> None:
    with pytest.raises(ValueError, match="2 pictures, 1 seeds"):
        captioner.generate(pictures[:2], [0])
    assert captioner.generate([], []) == []


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"mode": "best"}, "decoding='best': one of published, greedy, sampled"),
        ({"max_new_tokens": 0}, "max_new_tokens=0: at least 1"),
        ({"top_k": 1}, "top_k=1: at least 2"),
        ({"num_beams": 1}, "num_beams=1: at least 2"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0.0: above 0"),
    ],
)
def test_impossible_decodings(knobs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Decoding(**knobs)  # type: ignore[arg-type]


def test_without_seeds_transformers_beams_are_untouched(captioner: ShareCaptioner, prompts: Tensor) -> None:
    language = captioner.model.language
    assert isinstance(language, InternLM) and language.dice is None
    config = GenerationConfig(max_new_tokens=4, num_beams=2, do_sample=True, eos_token_id=EOS, pad_token_id=EOS)
    before = language.num_draws
    language.generate(inputs_embeds=prompts[:1], generation_config=config)
    assert language.num_draws == before


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_cache_of_one_shape_writes_the_same_ids(captioner: ShareCaptioner, prompts: Tensor, mode: str) -> None:
    """It is what a GPU gets, whose steps are compiled."""
    decoding = Decoding(mode, max_new_tokens=16)  # type: ignore[arg-type]
    seeds = range(len(prompts))
    growing, static = (
        generate_ids(captioner.model.language, prompts, decoding, seeds, [EOS], static_cache=static)
        for static in (False, True)
    )
    assert growing == static
    again = generate_ids(captioner.model.language, prompts[:2], decoding, seeds[:2], [EOS], static_cache=True)
    assert again == growing[:2], "a smaller batch behind a larger one"
