"""Image-text-to-text models of the real classes with random weights, a few thousand parameters each, with real
processors and a tokenizer trained here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    CLIPImageProcessor,
    CLIPVisionConfig,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    OPTConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLProcessor,
)

WORDS = "a photograph of a cat on grey stone Describe this image and its style in a very detailed manner USER ASSISTANT"
LLAVA_TEMPLATE = (
    "{% for message in messages %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
QWEN_TEMPLATE = (
    "{% for message in messages %}<s>user\n{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
INTERN_TEMPLATE = QWEN_TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", "<IMG_CONTEXT>\n")

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def tokenizer(*special: str, **names: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE: 0 is padding, 1 begins, 2 ends, then the special ones."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<s>", "</s>", *special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([WORDS] * 3, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>", extra_special_tokens=names
    )
    made.padding_side = "right"  # as some published ones are
    return made


def clip_pictures() -> Any:
    return CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})


def save(folder: Path, model: Any, processor: Any) -> Path:
    """Random weights of a size that makes words differ from picture to picture, saved as published ones are."""
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data = 0.25 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def llava(folder: Path, template: bool = True) -> Path:
    words = tokenizer("<image>")
    text = LlamaConfig(vocab_size=len(words), **SMALL, **IDS)
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, image_size=28, patch_size=14
    )
    image_token = words.convert_tokens_to_ids("<image>")
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=image_token, **IDS)
    processor = LlavaProcessor(
        clip_pictures(),
        words,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE if template else None,
    )
    return save(folder, LlavaForConditionalGeneration(config), processor)


def qwen2_vl(folder: Path) -> Path:
    words = tokenizer("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    ids = {name: words.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "vision_start", "vision_end")}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    config = Qwen2VLConfig(
        text_config={"vocab_size": len(words), "rope_parameters": rope, **SMALL, **IDS},
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 32,
            "num_heads": 4,
            "mlp_ratio": 2,
            "patch_size": 7,
            "spatial_merge_size": 2,
        },
        image_token_id=ids["image_pad"],
        video_token_id=words.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
        **IDS,
    )
    pictures = transformers.Qwen2VLImageProcessor(patch_size=7, merge_size=2, min_pixels=14 * 14, max_pixels=84 * 84)
    return save(
        folder,
        Qwen2VLForConditionalGeneration(config),
        still(Qwen2VLProcessor, pictures, words, chat_template=QWEN_TEMPLATE),
    )


def internvl(folder: Path) -> Path:
    special = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    words = tokenizer(*special.values(), **special)
    config = InternVLConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": [28, 28],
            "patch_size": [7, 7],
        },
        text_config=Qwen2Config(vocab_size=len(words), **SMALL, **IDS).to_dict(),
        image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        **IDS,
    )
    pictures = transformers.GotOcr2ImageProcessor(
        size={"height": 28, "width": 28}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    model = InternVLForConditionalGeneration(config)
    settings = {"image_seq_length": 4, "chat_template": INTERN_TEMPLATE}
    return save(folder, model, still(InternVLProcessor, pictures, words, **settings))


def florence2(folder: Path) -> Path:
    words = tokenizer("<image>", image_token="<image>")
    config = Florence2Config(
        text_config={
            "model_type": "bart",
            "vocab_size": len(words),
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "max_position_embeddings": 256,
            "decoder_start_token_id": 2,
            "forced_eos_token_id": None,
            **IDS,
        },
        vision_config={
            "embed_dim": (8, 16),
            "depths": (1, 1),
            "num_heads": (2, 2),
            "num_groups": (2, 2),
            "patch_size": (7, 3),
            "patch_stride": (4, 2),
            "patch_padding": (3, 1),
            "patch_prenorm": (False, True),
            "window_size": 2,
            "projection_dim": 32,
            "max_position_embeddings": 20,
        },
        image_token_id=words.convert_tokens_to_ids("<image>"),
        decoder_start_token_id=2,
        **IDS,
    )
    pictures = CLIPImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False)
    pictures.image_seq_length = 17
    return save(folder, Florence2ForConditionalGeneration(config), Florence2Processor(pictures, words))


def blip2(folder: Path, width: int = 32) -> Path:
    words = tokenizer("<image>")
    vision = Blip2VisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=28, patch_size=14
    )
    qformer = Blip2QFormerConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, encoder_hidden_size=32
    )
    text = OPTConfig(
        vocab_size=len(words),
        hidden_size=width,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        word_embed_proj_dim=width,
        pad_token_id=0,
        bos_token_id=2,  # as published: the token that begins is the one that ends
        eos_token_id=2,
    )
    config = Blip2Config(
        vision_config=vision.to_dict(),
        qformer_config=qformer.to_dict(),
        text_config=text.to_dict(),
        num_query_tokens=4,
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )
    processor = Blip2Processor(clip_pictures(), words, num_query_tokens=4)
    return save(folder, Blip2ForConditionalGeneration(config), processor)


def text_only(folder: Path) -> Path:
    words = tokenizer()
    return save(folder, LlamaForCausalLM(LlamaConfig(vocab_size=len(words), **SMALL, **IDS)), words)


def still(kind: Any, pictures: Any, words: Any, **settings: Any) -> Any:
    """A processor that also takes videos, made without what it needs for these."""

    class Parts:
        """Saves a processor's parts as `save_pretrained` would."""

        def save_pretrained(self, folder: Path) -> None:
            pictures.save_pretrained(folder)
            words.save_pretrained(folder)
            (folder / "chat_template.jinja").write_text(settings["chat_template"])
            rest = {name: value for name, value in settings.items() if name != "chat_template"}
            (folder / "processor_config.json").write_text(json.dumps({"processor_class": kind.__name__, **rest}))

    return Parts()


FAMILIES: dict[str, Callable[[Path], Path]] = {
    "llava": llava,
    "llava_without_template": lambda folder: llava(folder, template=False),
    "qwen2_vl": qwen2_vl,
    "internvl": internvl,
    "florence2": florence2,
    "blip2": blip2,
}
