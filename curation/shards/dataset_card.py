"""The dataset card of a `shards/` folder, which declares the columns for Hugging Face `datasets`. Without a card
`datasets` infers columns from the first few samples: a shard with JPEG and PNG, or a licence that only later samples
have, then fails to load."""

from __future__ import annotations

from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

import yaml

from schemas.shard import SampleMetadata
from schemas.strict import DUMPER

CARD_FILE = "README.md"

_TEXT = {"dtype": "string"}
_DTYPES = {str: "string", float: "float64", int: "int64", bool: "bool"}


def metadata_types() -> dict[str, dict[str, Any]]:
    """Column types of the `.json` member, for every key of `schemas.shard.SampleMetadata`."""
    return {name: _column_type(hint) for name, hint in get_type_hints(SampleMetadata).items()}


def _column_type(hint: Any) -> dict[str, Any]:
    if is_typeddict(item := (get_args(hint) or (None,))[0]):
        return {"list": [{"name": name, **_column_type(kind)} for name, kind in get_type_hints(item).items()]}
    if get_origin(hint) is list:
        return {"list": _DTYPES[item]}
    return {"dtype": _DTYPES[item or hint]}


def dataset_card(image_extensions: set[str], num_samples: int, num_shards: int) -> str:
    """The card as Markdown with a YAML head. `image_extensions`: of the image members; each is a column, null in
    samples of another format."""
    features: list[dict[str, Any]] = [{"name": "__key__", **_TEXT}, {"name": "__url__", **_TEXT}]
    features += [{"name": "json", "struct": [{"name": name, **kind} for name, kind in metadata_types().items()]}]
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
    class NoAliases(DUMPER):  # type: ignore[misc,valid-type]
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return yaml.dump(head, Dumper=NoAliases, sort_keys=False)
