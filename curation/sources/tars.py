"""List WebDataset tars from their headers: every image member once, with its captions and the place of its bytes."""

from __future__ import annotations

import os
import posixpath
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

from fsspec.caching import ReadAheadCache, register_cache

from curation.sources.captions import RawCaption, read_sidecar
from curation.sources.folder import image_extensions
from curation.sources.item import Item, SourceListing, inside, member_name
from curation.sources.patterns import find_files
from curation.sources.storage import RemoteError, filesystem, patiently
from engine.ahead import ahead
from schemas.files import open_file
from schemas.locations import absolute, is_remote
from schemas.pixels import clean
from schemas.reasons import FetchError, ImageError
from schemas.sources import TarCaptions, WebDatasetSource
from schemas.texts import LONGEST_TEXT_BYTES

BLOCK_BYTES = 1 << 18
"""Bytes fetched at first of a remote tar; see `_Growing`."""
LEAST_BLOCK, LARGEST_BLOCK = 1 << 16, 1 << 22
_WORDS = ("json", "txt", "caption")
"""Extensions of members that hold captions."""
_LONGEST_CHAIN = 8
"""Links that lead to links are followed so many times."""
REMOTE_TARS_AT_ONCE = 32
"""Remote tars whose headers are read at the same time: most of it is waiting."""
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")

_LOST = "the rest of it is lost"


def list_webdataset(source: WebDatasetSource) -> SourceListing:
    """Every image member of every tar, tar by tar in the order of their names, within a tar in its own order. Members
    of one sample share their path up to the first dot of the file name, whether or not they are next to each other; the
    caption is that of exactly the image's name (`a.2.txt` of `a.2.jpg`), else that of the sample. A tar that ends too
    early gives a row for what is lost, and so does a compressed one. Raises ValueError: no tar is found."""
    found = SourceListing([], {})
    return SourceListing(list_tars(tars_of(source, found), source.captions, found), found.ignored)


def tars_of(source: WebDatasetSource, found: SourceListing) -> list[str]:
    """The tars of a source, in order; raises as `list_webdataset`. `found` counts what is left out."""
    tars = [tar for url in source.urls for tar in find_files(absolute(url), (".tar", *COMPRESSED), "tar", found)]
    repeated = {tar for tar, num in Counter(tars).items() if num > 1} if len(source.urls) > 1 else set()
    if repeated:
        raise ValueError(f"{min(repeated)}: is named by more than one of urls; name it once")
    return tars


def list_tars(tars: Sequence[str], captions: TarCaptions, found: SourceListing) -> Iterator[Item]:
    """The items of some tars, in order, of which several are read at once if one is remote; see `list_tar`."""
    threads = REMOTE_TARS_AT_ONCE if any(map(is_remote, tars)) else 1
    scanned = ahead(partial(_scan_patiently, captions=captions), tars, threads, threads if threads > 1 else None)
    for tar, headers in zip(tars, scanned, strict=True):
        yield from _items(tar, headers, captions, found)


Sample = tuple[str, int]
"""The key of a sample, and how many samples of that key are before it in the tar."""


@dataclass
class TarContents:
    """The contents of one tar by its headers."""

    images: list[tuple[Sample, Item]] = field(default_factory=list)
    """Sample and item, in the order of the tar."""
    words: dict[Sample, dict[str, RawCaption]] = field(default_factory=dict)
    """Sample -> extension -> caption; in `a.2.txt` the extension is `2.txt`."""
    others: Counter[str] = field(default_factory=Counter)
    broken: tuple[ImageError | FetchError, str] | None = None
    """The reason why the tar may have held more."""


def list_tar(tar: str, captions: TarCaptions, found: SourceListing) -> Iterator[Item]:
    """The items of one tar; `found` counts its other members. Samples are held until the tar ends: their members may be
    anywhere in it. Raises ValueError: a remote tar cannot be reached now; a listing is taken once, so nothing of it is
    guessed."""
    yield from _items(tar, _scan_patiently(tar, captions), captions, found)


def _items(tar: str, scanned: TarContents, captions: TarCaptions, found: SourceListing) -> Iterator[Item]:
    folder, container = _names(tar)
    names = {(sample, name) for sample, item in scanned.images for name in ("", _inner_name(item))}
    for sample, item in scanned.images:
        yield _captioned(item, scanned.words.get(sample, {}), captions)._replace(source=folder)
    for sample, words in scanned.words.items():
        for extension, words_of in words.items():
            name, _, kind = extension.rpartition(".")
            what = "captions" if words_of.caption else "no caption in it"
            found.count(f"{kind} ({what})" if (sample, name) in names else extension)
    for kind, num in scanned.others.items():
        found.count(kind, num)
    if scanned.broken is not None:
        reason, detail = scanned.broken
        yield Item(container, None, source=folder, reason=reason.value, detail=detail)


def _names(tar: str) -> tuple[str, str]:
    """The folder of a tar, and its own name as the listing has it."""
    folder, _, name = tar.rpartition("/")
    return folder or "/", member_name(os.fsencode(name))


def split_key(path: str) -> tuple[str, str]:
    """(key, extension) as webdataset has it: the path up to the first dot of the file name, and what follows it in
    lower case."""
    folder, slash, name = path.rpartition("/")
    stem, _, extension = name.partition(".")
    return folder + slash + stem, extension.lower()


def _inner_name(item: Item) -> str:
    """What is between the key and the last extension of an image: "2" of `a.2.jpg`."""
    return split_key(item.member.partition("#")[2])[1].rpartition(".")[0]


def _scan_patiently(tar: str, captions: TarCaptions) -> TarContents:
    container = _names(tar)[1]
    if tar.lower().endswith(COMPRESSED):
        broken = (ImageError.UNSUPPORTED, "a compressed tar cannot be read by offset: decompress it")
        return TarContents(broken=broken)
    if is_remote(tar):
        try:
            return patiently(lambda: _scan(tar, container, captions))
        except RemoteError as error:
            if error.reason is FetchError.NOT_FOUND:
                return TarContents(broken=(error.reason, error.detail))
            raise ValueError(f"{tar}: cannot be read ({error.detail}); run again once it can be") from None
    try:
        return _scan(tar, container, captions)
    except OSError as error:
        return TarContents(broken=(ImageError.UNREADABLE, error.strerror or type(error).__name__))


def _scan(tar: str, container: str, captions: TarCaptions) -> TarContents:
    with _open(tar) as file:
        return _Scan(file, container, captions).read()


class _Scan:
    """One way through the headers of a tar."""

    def __init__(self, file: IO[bytes], container: str, captions: TarCaptions) -> None:
        self.found = TarContents()
        self._file, self._container, self._captions = file, container, captions
        self._samples: dict[str, tuple[int, set[str]]] = {}
        self._places: dict[str, tuple[int, int]] = {}
        """Path of a member -> where its bytes begin, and how many they are."""
        self._targets: dict[str, str] = {}
        """Path of a link -> the path that it leads to."""
        self._linked_images: list[tuple[int, str]] = []
        self._linked_words: list[tuple[Sample, str, str]] = []
        self._names: set[str] = set()

    def read(self) -> TarContents:
        """Read every header, of all tars that are joined in the file."""
        archive = 0
        for number, info in members(self._file, self.found):
            if number != archive:
                self._end_archive()
                archive = number
            self._add(info)
        self._end_archive()
        return self.found

    def _end_archive(self) -> None:
        """Give the links what they lead to, and begin a new set of names: a sample never spans two tars."""
        for place, path in self._linked_images:
            sample, item = self.found.images[place]
            if (target := self._followed(path)) is not None:
                item = item._replace(byte_offset=target[0], num_bytes=target[1])
            else:
                detail = clean(f"a link to {self._targets[path]}, which the tar does not hold")
                item = item._replace(reason=ImageError.UNREADABLE.value, detail=detail)
            self.found.images[place] = (sample, item)
        for sample, extension, path in self._linked_words:
            if (target := self._followed(path)) is not None:
                self._add_words(sample, extension, *target)
        self._samples = {key: (num + 1, set()) for key, (num, _) in self._samples.items()}
        for held in (self._places, self._targets, self._linked_images, self._linked_words):
            held.clear()

    def _followed(self, path: str) -> tuple[int, int] | None:
        for _ in range(_LONGEST_CHAIN):
            if path not in self._targets:
                return self._places.get(path)
            path = self._targets[path]
        return None

    def _add(self, info: tarfile.TarInfo) -> None:
        path = info.name.removeprefix("./")
        key, extension = split_key(path)
        kind = extension.rpartition(".")[2]
        is_link = info.issym() or info.islnk()
        name = posixpath.normpath(path)
        self._targets.pop(name, None)
        if is_link:
            folder = posixpath.dirname(name) if info.issym() else ""
            self._targets[name] = posixpath.normpath(posixpath.join(folder, info.linkname))
        elif info.isreg() and not info.issparse():
            self._places[name] = (info.offset_data, info.size)
        if path.rpartition("/")[2].startswith("."):
            self.found.others["hidden"] += 1
        elif not (info.isreg() or is_link):
            self.found.others["special members"] += not info.isdir()
        elif "." + kind in image_extensions():
            self._add_image(self._sample(key, extension), path, info, is_link)
        elif kind in _WORDS and is_link:
            self._linked_words.append((self._sample(key, extension), extension, name))
        elif kind in _WORDS and info.size <= LONGEST_TEXT_BYTES and not info.issparse():
            self._add_words(self._sample(key, extension), extension, info.offset_data, info.size)
        else:
            self.found.others["links" if is_link else member_name(os.fsencode(extension)) or "no extension"] += 1

    def _sample(self, key: str, extension: str) -> Sample:
        """The sample of a member: the newest of its key, or a new one where that has such a member already."""
        num, extensions = self._samples.setdefault(key, (0, set()))
        if extension in extensions:
            num, extensions = self._samples[key] = (num + 1, set())
        extensions.add(extension)
        return key, num

    def _add_image(self, sample: Sample, path: str, info: tarfile.TarInfo, is_link: bool) -> None:
        text = member_name(os.fsencode(path))
        item = Item(inside(self._container, text), info.size, byte_offset=info.offset_data)
        if info.issparse():
            item = item._replace(reason=ImageError.UNSUPPORTED.value, detail="a sparse member of a tar")
        self.found.others["images whose name came before (inputs as well)"] += text in self._names
        self._names.add(text)
        if is_link:
            self._linked_images.append((len(self.found.images), posixpath.normpath(path)))
        self.found.images.append((sample, item))

    def _add_words(self, sample: Sample, extension: str, offset: int, size: int) -> None:
        if size <= LONGEST_TEXT_BYTES:
            self._file.seek(offset)
            words = read_sidecar(self._file.read(size), extension.endswith("json"), self._captions.json_fields)
            self.found.words.setdefault(sample, {}).setdefault(member_name(os.fsencode(extension)), words)


def members(file: IO[bytes], scanned: TarContents) -> Iterator[tuple[int, tarfile.TarInfo]]:
    """The members of the tars that are joined in a file, each with the number of its tar; what breaks off, and bytes
    behind an end mark that are no tar, go to `scanned.broken`."""
    size = file.seek(0, os.SEEK_END)
    begin: int | None = 0
    number = 0
    while begin is not None:
        file.seek(begin)
        offset = begin
        try:
            with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
                while (info := archive.next()) is not None:
                    vars(archive)["members"] = []  # it would keep them all
                    if info.isreg() and not info.issparse() and info.offset_data + info.size > size:
                        name = member_name(os.fsencode(info.name))
                        scanned.broken = (ImageError.TRUNCATED, f"the tar ends at byte {size}, inside {name}: {_LOST}")
                        return
                    yield number, info
                    offset = archive.offset
                offset = archive.offset
        except (tarfile.TarError, ValueError, OverflowError, IndexError) as error:
            early = any(word in str(error) for word in ("truncated", "unexpected end", "empty", "subsequent header"))
            reason = ImageError.TRUNCATED if early else ImageError.CORRUPT
            scanned.broken = (reason, f"{clean(str(error))} after byte {offset}: {_LOST}")
            return
        file.seek(offset)
        mark = file.read(tarfile.BLOCKSIZE)  # tarfile takes anything that is no header for the end
        if len(mark) < tarfile.BLOCKSIZE:
            scanned.broken = (ImageError.TRUNCATED, f"the tar ends at byte {size} without its end mark: {_LOST}")
            return
        if any(mark):
            scanned.broken = (ImageError.CORRUPT, f"no header at byte {offset}: {_LOST}")
            return
        begin = _behind_zeros(file, offset)
        number += 1


def _behind_zeros(file: IO[bytes], offset: int) -> int | None:
    """The first block from a place on that is not all zeros; None where there is none."""
    file.seek(offset)
    while data := file.read(BLOCK_BYTES):
        if rest := data.lstrip(b"\0"):
            return offset + (len(data) - len(rest)) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
        offset += len(data)
    return None


def _captioned(item: Item, words: dict[str, RawCaption], captions: TarCaptions) -> Item:
    name = _inner_name(item)

    def find(kind: str) -> RawCaption:
        return words.get(f"{name}.{kind}") or words.get(kind) or RawCaption(None)

    fields = find("json")
    texts = (find(kind).caption for kind in ("txt", "caption"))
    text = next(filter(None, texts), None) if captions.txt else None
    others = fields.others if fields.caption else ()
    return item._replace(
        raw_caption=fields.caption or text, url=fields.url, license=fields.license, other_captions=others
    )


def _open(tar: str) -> Any:
    if not is_remote(tar):
        return open_file(Path(tar))
    fs, path = filesystem(tar)
    return fs.open(path, "rb", block_size=BLOCK_BYTES, cache_type=_Growing.name)


class _Growing(ReadAheadCache):
    """Reads more at once while what is skipped is less than what is read, as between small pictures, and less where it
    is more: a request takes as long as some megabytes that come with it."""

    name = "sigma-growing"
    blocksize: int

    def _fetch(self, start: int | None, end: int | None) -> bytes:
        if start is not None and end is not None and end > self.end > 0:
            is_near = 0 <= start - self.end < self.blocksize or self.start <= start < self.end
            self.blocksize = (
                min(2 * self.blocksize, LARGEST_BLOCK) if is_near else max(self.blocksize // 4, LEAST_BLOCK)
            )
        return super()._fetch(start, end)


register_cache(_Growing, clobber=True)
