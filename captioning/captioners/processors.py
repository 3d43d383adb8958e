"""Loads a model with its processor from a folder, and says in one line what is wrong with the folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils import is_torchvision_available

LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
UNREADABLE = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError, SafetensorError)
"""What transformers raises on a folder that is damaged or of another kind."""


def load_config(folder: Path) -> Any:
    """A model's configuration.

    Raises:
        ValueError: it cannot be read, needs code of its own, or is of a model that takes no pictures.
    """
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


def load_model(folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """A model on its device, frozen.

    Raises:
        ValueError: weights are missing, cut or of another model; unlike the library alone, none is made up at random.
    """
    with quiet():
        try:
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                folder, dtype=dtype, output_loading_info=True, **LOCAL
            )
        except UNREADABLE as error:
            raise ValueError(f"{folder}: the weights cannot be loaded ({one_line(error)}); get them anew") from None
    model, info = loaded
    missing = sorted(info["missing_keys"])
    if missing:
        raise ValueError(f"{folder}: lacks {missing[0]} and {len(missing) - 1} more tensors; get it anew")
    return model.eval().requires_grad_(False).to(device)


def load_processor(folder: Path, config: Any) -> Any:
    """A model's processor, padding on the left, so that the last token of every row is where its answer begins.

    Processors that also take videos need torchvision for these alone; where it is not installed they are put
    together without.

    Raises:
        ValueError: it cannot be read.
    """
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


def one_line(error: BaseException) -> str:
    """The first line of an error that says something, at most 200 letters of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the library's warnings and bars back while what they warn of is checked here."""
    chatter = logging.getLogger("transformers")
    level, bars = chatter.level, transformers.utils.logging.is_progress_bar_enabled()
    chatter.setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        chatter.setLevel(level)
        if bars:
            transformers.utils.logging.enable_progress_bar()
