"""Loads the configuration and the processor of an image-text-to-text model, or says in one line what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils import is_torchvision_available

from models.weights import UNREADABLE, one_line, quiet

LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def load_config(folder: Path) -> Any:
    """A model's configuration. Raises ValueError: it is unreadable, or of a model with code of its own or without
    pictures."""
    try:
        config = AutoConfig.from_pretrained(folder, **LOCAL)
    except UNREADABLE as error:
        raise ValueError(
            f"{folder}: its config.json is of no model that transformers {transformers.__version__} has "
            f"({one_line(error)}); code that comes with weights is never run"
        ) from None
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise ValueError(
            f"{folder}: holds a {config.model_type} model, which does not write text about pictures; "
            "name an image-text-to-text model"
        )
    return config


def load_processor(folder: Path, config: Any) -> Any:
    """A model's processor, padding on the left, so that the last token of every row is where its answer begins.
    Processors that also take videos need torchvision for these alone; where it is not installed the processor is built
    without videos. Raises ValueError: it cannot be read."""
    kind: Any = PROCESSOR_MAPPING.get(type(config), None)
    try:
        with quiet():  # of torchvision, which it can do without
            if kind is not None and "video_processor" in kind.get_attributes() and not is_torchvision_available():
                processor = without_videos(kind, folder)
            else:
                processor = AutoProcessor.from_pretrained(folder, **LOCAL)
    except UNREADABLE as error:
        raise ValueError(f"{folder}: its processor cannot be loaded ({one_line(error)}); get it anew") from None
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None or not hasattr(processor, "image_processor"):
        raise ValueError(f"{folder}: its processor takes no pictures; preprocessor_config.json is missing")
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return processor


def without_videos(kind: Any, folder: Path) -> Any:
    """A processor of this class whose videos are left out; for pictures it is the same."""

    class StillPictures(kind):
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if argument is None:
                return type(None)
            return super().check_argument_for_proper_class(argument_name, argument)

    load: dict[str, Callable[..., Any]] = {
        "image_processor": AutoImageProcessor.from_pretrained,
        "tokenizer": AutoTokenizer.from_pretrained,
    }
    parts = [load[name](folder, **LOCAL) if name in load else None for name in kind.get_attributes()]
    settings, _ = kind.get_processor_dict(folder, local_files_only=True)
    return StillPictures.from_args_and_dict(parts, settings)
