"""Tiny random models of the real classes, saved in the real layouts: what a recipe can name without a download."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch

SIDE_PX = 32
TEXT_TOKENS = 77


def clip_tokenizer_files() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A byte-level vocabulary without merges: every letter is a token."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return {word: number for number, word in enumerate(words)}, []


def _clip_parts() -> tuple[dict[str, int], dict[str, int]]:
    vocabulary, _ = clip_tokenizer_files()
    text = {
        "vocab_size": len(vocabulary), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": TEXT_TOKENS, "projection_dim": 8,
        "bos_token_id": vocabulary["<|startoftext|>"], "eos_token_id": vocabulary["<|endoftext|>"],
        "pad_token_id": vocabulary["<|endoftext|>"],
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": SIDE_PX, "patch_size": 8, "projection_dim": 8,
    }  # fmt: skip
    return text, vision


def save_clip(folder: Path) -> Path:
    """A CLIP model with processor and tokenizer; embeddings of 8 numbers."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    text, vision = _clip_parts()
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    vocabulary, merges = clip_tokenizer_files()
    CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TEXT_TOKENS).save_pretrained(folder)
    size = {"height": SIDE_PX, "width": SIDE_PX}
    CLIPImageProcessorPil(size={"shortest_edge": SIDE_PX}, crop_size=size).save_pretrained(folder)
    return folder


def save_owlv2(folder: Path) -> Path:
    """An OWLv2 detector with its processor."""
    from transformers import CLIPTokenizer, Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessorPil, Owlv2Processor

    text, vision = _clip_parts()
    text |= {"max_position_embeddings": 24, "projection_dim": 16}  # the detection head is as wide as the text
    torch.manual_seed(0)
    config = Owlv2Config(text_config=text, vision_config=vision | {"projection_dim": 16}, projection_dim=16)
    Owlv2ForObjectDetection(config).save_pretrained(folder)
    vocabulary, merges = clip_tokenizer_files()
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=24)
    images = Owlv2ImageProcessorPil(size={"height": SIDE_PX, "width": SIDE_PX})
    Owlv2Processor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)
    return folder


def save_aesthetic_head(file: Path, dim: int = 8) -> Path:
    """An aesthetic head in the published layout: linear layers 0, 2 and 4, with dropout (which holds nothing) between
    them."""
    torch.manual_seed(0)
    sizes = (dim, 6, 4, 1)
    dropout = torch.nn.Dropout
    linear = [torch.nn.Linear(*pair) for pair in pairwise(sizes)]
    head = torch.nn.Sequential(linear[0], dropout(), linear[1], dropout(), linear[2])
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({f"layers.{name}": tensor for name, tensor in head.state_dict().items()}, file)
    return file


def save_classifier(folder: Path, labels: tuple[str, ...], seed: int = 0, **config: object) -> Path:
    """A ViT image classifier with its processor."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    torch.manual_seed(seed)
    names = dict(enumerate(labels))
    model = ViTForImageClassification(
        ViTConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE_PX,
            patch_size=8, id2label=names, label2id={label: number for number, label in names.items()}, **config,
        )
    )  # fmt: skip
    torch.nn.init.normal_(model.classifier.weight, std=3.0)  # as it is, every answer is near 1 / n
    model.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": SIDE_PX, "width": SIDE_PX}).save_pretrained(folder)
    return folder


def save_mask2former(folder: Path, labels: tuple[str, ...]) -> Path:
    """A Mask2Former for instances, with its image processor."""
    from transformers import (
        Mask2FormerConfig,
        Mask2FormerForUniversalSegmentation,
        Mask2FormerImageProcessorPil,
        SwinConfig,
    )

    torch.manual_seed(0)
    backbone = SwinConfig(
        image_size=SIDE_PX, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=16, num_queries=6,
        id2label=dict(enumerate(labels)), label2id={label: number for number, label in enumerate(labels)},
    )  # fmt: skip
    Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)
    Mask2FormerImageProcessorPil(size={"height": 384, "width": 384}).save_pretrained(folder)
    return folder


def save_blip_vqa(folder: Path, words: tuple[str, ...]) -> Path:
    """A BLIP that answers questions, with its processor."""
    from transformers import BertTokenizer, BlipConfig, BlipForQuestionAnswering, BlipImageProcessorPil, BlipProcessor

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *words]
    torch.manual_seed(0)
    both = {"hidden_size": 16, "intermediate_size": 16, "projection_dim": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2}  # fmt: skip
    text = both | {"vocab_size": len(vocabulary), "encoder_hidden_size": 16, "max_position_embeddings": 64,
                   "bos_token_id": 5, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}  # fmt: skip
    vision = both | {"image_size": SIDE_PX, "patch_size": 8}
    model = BlipForQuestionAnswering(BlipConfig(text_config=text, vision_config=vision, projection_dim=16))
    model.save_pretrained(folder)
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(vocabulary)}, bos_token="[DEC]")
    pictures = BlipImageProcessorPil(size={"height": SIDE_PX, "width": SIDE_PX})
    BlipProcessor(pictures, tokenizer).save_pretrained(folder)
    return folder
