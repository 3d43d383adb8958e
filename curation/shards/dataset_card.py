"""The dataset card of a `shards/` folder: tells Hugging Face `datasets` the columns, so that it need not guess them.

Left to itself, `datasets` infers columns from the first few samples: a shard with JPEG and PNG, or a licence that only
later samples have, then fails to load.
"""

from __future__ import annotations

from typing import Any

import yaml

CARD_FILE = "README.md"

_TEXT, _FLOAT, _INT, _BOOL = ({"dtype": kind} for kind in ("string", "float64", "int64", "bool"))

METADATA_TYPES: dict[str, dict[str, Any]] = {
    "image_id": _TEXT,
    "caption_raw": _TEXT,
    "caption_raw_reason": _TEXT,
    "caption_raw_from": _TEXT,
    "caption_original": _TEXT,
    "captions_synthetic": {"list": [{"name": "captioner", **_TEXT}, {"name": "caption", **_TEXT}]},
    "caption_source": _TEXT,
    "caption_coin": _FLOAT,
    "caption_fallback": _TEXT,
    "width": _INT,
    "height": _INT,
    "aspect": _FLOAT,
    "bucket": _TEXT,
    "aesthetic": _FLOAT,
    "aesthetic_scorer": _TEXT,
    "phash": _TEXT,
    "subsets": {"list": "string"},
    "source": _TEXT,
    "url": _TEXT,
    "license": _TEXT,
    "sha256": _TEXT,
    "resized": _BOOL,
    "image_sha256": _TEXT,
    "recipe": _TEXT,
}
"""Column types of the `.json` member, for every key of `schemas.shard.SampleMetadata`."""


def dataset_card(image_extensions: set[str], num_samples: int, num_shards: int) -> str:
    """The card as Markdown with a YAML head.

    Args:
        image_extensions: of the image members; each is a column, null in samples of another format.
    """
    features: list[dict[str, Any]] = [{"name": "__key__", **_TEXT}, {"name": "__url__", **_TEXT}]
    features += [{"name": "json", "struct": [{"name": name, **kind} for name, kind in METADATA_TYPES.items()]}]
    features += [{"name": "txt", **_TEXT}]
    features += [{"name": extension, "dtype": "image"} for extension in sorted(image_extensions)]
    head = {
        "configs": [{"config_name": "default", "data_files": "*/*.tar"}],
        "dataset_info": {"features": features},
    }
    return (
        f"---\n{_yaml(head)}---\n\n"
        f"{num_samples:,} samples in {num_shards:,} WebDataset tars, one aspect bucket (height / width) per tar. "
        "`index.parquet` says where each member lies; `txt` is the caption to train on, `json` everything else.\n"
    )


def _yaml(head: dict[str, Any]) -> str:
    class NoAliases(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return yaml.dump(head, Dumper=NoAliases, sort_keys=False)
