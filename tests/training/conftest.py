"""What the training tests share: the published model's numbers, and small datasets in the shard format."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from schemas.buckets import LABELS, nearest_codes
from schemas.shard import content_of
from schemas.shard_index import INDEX_FILE, INDEX_SCHEMA

REPOSITORY = Path(__file__).resolve().parents[2]
FIXTURES = Path(os.environ.get("SIGMA_FIXTURES", REPOSITORY.parent / "shared" / "fixtures"))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny tensors gain nothing from threads, and threads that wait for each other on a busy machine cost a lot."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pixart_fixtures() -> Path:
    """The folder of numbers that the published model, loss, optimizer and sampler gave."""
    folder = FIXTURES / "pixart"
    if not folder.is_dir():
        pytest.skip(f"no PixArt-Σ numbers at {folder}; set SIGMA_FIXTURES to the folder that holds pixart/")
    return folder


@pytest.fixture(scope="session")
def published(pixart_fixtures: Path) -> Callable[[str], dict[str, torch.Tensor]]:
    """Reads one file of numbers as tensors."""

    def read(name: str) -> dict[str, torch.Tensor]:
        with np.load(pixart_fixtures / f"{name}.npz", allow_pickle=False) as content:
            return {key: torch.from_numpy(content[key].copy()) for key in content.files}

    return read


def photo(seed: int, width: int, height: int) -> bytes:
    """A PNG of a smooth random picture."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def write_dataset(
    folder: Path,
    pictures: list[tuple[bytes, str | None, str | None]],
    sizes: list[tuple[int, int]],
    *,
    digests: bool = False,
    same_ids: bool = False,
) -> Path:
    """Tars, one per bucket, and their index, for pictures of (bytes, raw caption, synthetic caption).

    Args:
        digests: the index holds those of pictures and captions, as indexes did not once.
        same_ids: ids are numbers, the same whatever the pictures are.
    """
    shards = folder / "shards"
    buckets: dict[str, list[tuple[str, bytes, str | None, str | None, int, int]]] = {}
    for number, ((data, raw, synthetic), (width, height)) in enumerate(zip(pictures, sizes, strict=True)):
        key = f"{number:032x}" if same_ids else hashlib.sha256(data + repr((raw, synthetic)).encode()).hexdigest()[:32]
        bucket = LABELS[nearest_codes(np.array([height / width]))[0]]
        buckets.setdefault(bucket, []).append((key, data, raw, synthetic, width, height))
    rows: list[dict[str, Any]] = []
    for bucket, members in sorted(buckets.items()):
        (shards / bucket).mkdir(parents=True, exist_ok=True)
        shard = f"{bucket}/{bucket}-000000.tar"
        with tarfile.open(shards / shard, "w", format=tarfile.USTAR_FORMAT) as tar:
            for key, data, raw, synthetic, width, height in sorted(members):
                source = "synthetic" if synthetic else "raw"
                facts = {
                    "image_id": key,
                    "caption_raw": raw,
                    "captions_synthetic": [{"captioner": "test", "caption": synthetic}] if synthetic else [],
                    "caption_source": source,
                }
                row: dict[str, Any] = {"key": key, "image_id": key, "shard": shard, "bucket": bucket}
                row |= {"width": width, "height": height, "caption_source": source, "image_ext": "png"}
                if digests:
                    row["content"] = content_of(hashlib.sha256(data).hexdigest(), synthetic or raw or "", facts)
                row |= {"aesthetic": 5.0, "num_tokens": 4, "subsets": [], "weight": 1.0}
                text = (synthetic or raw or "").encode()
                for kind, ext, content in (
                    ("image", "png", data),
                    ("txt", "txt", text),
                    ("json", "json", json.dumps(facts).encode()),
                ):
                    info = tarfile.TarInfo(f"{key}.{ext}")
                    info.size = len(content)
                    row[f"{kind}_offset"], row[f"{kind}_size"] = tar.offset + 512, len(content)
                    tar.addfile(info, io.BytesIO(content))
                rows.append(row)
    pq.write_table(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), shards / INDEX_FILE)
    return folder


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven pictures in three aspect buckets; the last has no synthetic caption."""
    sizes = [(96, 96), (80, 80), (120, 120), (64, 64), (120, 80), (90, 60), (60, 90)]
    pictures: list[tuple[bytes, str | None, str | None]] = [
        (photo(i, *size), f"raw words number {i}", f"a synthetic sentence about {i}" if i < 6 else None)
        for i, size in enumerate(sizes)
    ]
    return write_dataset(tmp_path_factory.mktemp("dataset"), pictures, sizes)


def upload(server: Any, folder: Path, prefix: str) -> str:
    """Put the files of a folder into the bucket; its address."""
    server.put({f"{prefix}/{p.relative_to(folder)}": p.read_bytes() for p in folder.rglob("*") if p.is_file()})
    server.forget()
    return f"s3://{server.bucket}/{prefix}"


@pytest.fixture
def make_dataset() -> Callable[[Path, list[tuple[bytes, str | None, str | None]], list[tuple[int, int]]], Path]:
    return write_dataset


@pytest.fixture
def recipe_values(dataset: Path, tmp_path: Path) -> dict[str, Any]:
    """A recipe of two short stages that trains in about a second."""
    return {
        "dataset": str(dataset),
        "out": str(tmp_path / "out"),
        "model": {"depth": 2, "hidden_size": 32, "num_heads": 2},
        "latents": {"channels": 4},
        "text": {"channels": 16, "max_tokens": 20},
        "optimizer": {"lr": 1e-3, "warmup_steps": 4, "gradient_clip": 1.0},
        "data": {"batch": 4, "timesteps_per_image": 2},
        "ema": {"decay": 0.9},
        "precision": "fp32",
        "checkpoint_every": 4,
        "log_every": 2,
        "stages": [
            {"name": "small", "resolution": 32, "steps": 8},
            {"name": "compressed", "resolution": 64, "steps": 4, "kv_compression": {"layers": [1], "ratio": 2}},
        ],
    }


@pytest.fixture(scope="session")
def real_components(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `vae/`, `text_encoder/` and `tokenizer/`: the real classes, tiny, with random weights."""
    import sentencepiece
    from diffusers import AutoencoderKL
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    folder = tmp_path_factory.mktemp("components")
    lines = [f"A red boat on the lake, seen from hill {i} at DAWN." for i in range(40)]
    (folder / "lines.txt").write_text("\n".join(lines))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "lines.txt"), model_prefix=str(folder / "spiece"), vocab_size=60, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2, normalization_rule_name="nmt_nfkc",
    )  # fmt: skip
    tokenizer = T5Tokenizer.from_pretrained(folder, extra_ids=0)
    tokenizer.save_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=100, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"
    )
    T5EncoderModel(config).save_pretrained(folder / "text_encoder")
    AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, layers_per_block=1, norm_num_groups=4,
        sample_size=64, scaling_factor=0.13025,
    ).save_pretrained(folder / "vae")  # fmt: skip
    return folder
