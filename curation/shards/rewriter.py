"""Take samples out of a written shard; the bytes of the others are copied, and only their places change."""

from __future__ import annotations

import tarfile
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from schemas import shard
from schemas.commit import atomic_write
from schemas.files import delete_files, open_file

COPY_BYTES = 1 << 22


@dataclass(frozen=True)
class ShardMember:
    """A member of a tar: (key, extension), and where its data begins."""

    key: str
    extension: str
    offset: int
    size: int


def members_of(path: Path) -> list[ShardMember]:
    """The members of a shard, from its own headers. Raises ValueError: it is cut or no tar."""
    try:
        with open_file(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            found = [(info.name.partition("."), info.offset_data, info.size) for info in tar]
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{path}: damaged ({error}); sigma doctor --repair writes it again") from None
    return [ShardMember(name[0], name[2], offset, size) for name, offset, size in found]


def drop_samples(path: Path, keys: Container[str]) -> dict[str, list[ShardMember]]:
    """Rewrite a shard without these keys, unless it holds none of them; a shard that would be empty is deleted. Returns
    Key -> its members, with their places in the shard as it is now. Raises ValueError: the shard is damaged."""
    members = members_of(path)
    if any(member.key in keys for member in members):
        kept = [member for member in members if member.key not in keys]
        if not kept:
            delete_files(path)
            return {}
        members = _copy(path, kept)
    by_key: dict[str, list[ShardMember]] = {}
    for member in members:
        by_key.setdefault(member.key, []).append(member)
    return by_key


def _copy(path: Path, kept: list[ShardMember]) -> list[ShardMember]:
    moved = []
    with open_file(path) as source, atomic_write(path) as target:
        for member in kept:
            place = target.tell() + shard.BLOCK
            source.seek(member.offset - shard.BLOCK)
            _copy_bytes(source, target, shard.BLOCK + member.size + shard.padding(member.size))
            moved.append(ShardMember(member.key, member.extension, place, member.size))
        target.write(shard.END_OF_ARCHIVE)
    return moved


def _copy_bytes(source: IO[bytes], target: IO[bytes], size: int) -> None:
    while size:
        data = source.read(min(size, COPY_BYTES))
        assert data, "a member that its header promised"
        target.write(data)
        size -= len(data)


def placed(row: Mapping[str, Any], members: list[ShardMember]) -> dict[str, Any]:
    """A row of `samples` with the places that its members have now. Raises ValueError: a member is missing."""
    places = {member.extension: member for member in members}
    changed: dict[str, Any] = {}
    for name, extension in (("image", row["image_ext"]), ("txt", "txt"), ("json", "json")):
        if extension not in places:
            raise ValueError(f"{row['shard']}: lacks {row['key']}.{extension}; sigma doctor --repair writes it again")
        changed |= {f"{name}_offset": places[extension].offset, f"{name}_size": places[extension].size}
    return {**row, **changed}
