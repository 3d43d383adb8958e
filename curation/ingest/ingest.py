"""Read each original once: sha256, header, decode, proxy; a row with a reason where it gives no picture."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from curation.ingest.away import AwayCheck
from curation.ingest.takedown_log import NOTHING_WITHHELD, Withheld, read_log
from engine.ahead import ahead
from engine.dataset import Dataset
from engine.map_job import MapJob, Worker, naming
from engine.runner import Progress
from schemas.ids import image_id
from schemas.late import late
from schemas.reasons import RETRIED
from schemas.recipe import DataRecipe, Ingest
from schemas.sources import AnySource
from schemas.texts import LONGEST_TEXT_BYTES

with late(__name__):
    import pyarrow as pa
    from PIL import Image

    from curation.images import header
    from curation.images.decode import Decoded, decode, keep_freed_memory
    from curation.sources import read_original
    from curation.sources.captions import RawCaption, read_sidecar
    from curation.sources.read import is_link_out
    from curation.sources.storage import may_pass, unreadable
    from schemas.opening import picture_formats
    from schemas.tables import schema_of

ROWS_PER_BATCH = 64
"""Rows that wait as Python objects before they become Arrow; keeps a part of proxies from lying in memory twice."""

BYTES_PER_PIXEL = 8
"""A file of more bytes than this for each pixel of the largest picture is not read: no picture that is taken needs
them."""
LEAST_BOUND = 1 << 28
"""Bytes that a file may have however small `ingest.max_megapixels` is."""


def map_job(recipe: DataRecipe) -> MapJob:
    return MapJob(
        job="ingest",
        inputs=("listing",),
        outputs=("proxies", "images"),
        build=partial(IngestWorker, recipe.ingest, recipe.run.threads, recipe.out_path(), recipe.all_sources()),
        knobs={f"ingest.{name}": value for name, value in recipe.ingest.knobs().items()},
    )


class IngestWorker(Worker):
    """Reads and decodes on threads, a bounded number of images ahead."""

    def __init__(
        self, knobs: Ingest, threads: int, root: Path | None = None, sources: Collection[AnySource] = ()
    ) -> None:
        """Load Pillow's decoders before several threads need them at once, and read the log of takedowns."""
        picture_formats()
        keep_freed_memory()
        self.withheld = Withheld(read_log(Dataset(root)) if root else [])
        self.knobs = knobs
        self.threads = threads
        self.away = AwayCheck(sources, knobs.stop_after_failures)

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress) -> Mapping[str, pa.Table]:
        proxies: list[pa.RecordBatch] = []
        images: list[pa.RecordBatch] = []
        ingest = partial(ingest_row, knobs=self.knobs, withheld=self.withheld)
        rows = ahead(ingest, _rows(inputs["listing"]), self.threads)
        waiting: list[tuple[dict[str, Any], dict[str, Any]]] = []

        def flush() -> None:
            proxies.append(pa.RecordBatch.from_pylist([proxy for proxy, _ in waiting], schema=schema_of("proxies")))
            images.append(pa.RecordBatch.from_pylist([image for _, image in waiting], schema=schema_of("images")))
            waiting.clear()

        for listed, row in zip(_rows(inputs["listing"]), rows, strict=True):
            if listed.get("reason") is None:
                reason, detail = row[1].get("reason"), row[1].get("detail")
                self.away.see(listed, (reason, detail) if reason in RETRIED else None)
            waiting.append(row)
            progress(1)
            if len(waiting) == ROWS_PER_BATCH:
                flush()
        flush()
        return {
            "proxies": pa.Table.from_batches(proxies, schema_of("proxies")),
            "images": pa.Table.from_batches(images, schema_of("images")),
        }


def ingest_row(
    listed: Mapping[str, Any], knobs: Ingest, withheld: Withheld = NOTHING_WITHHELD
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One row of the listing as a row of `proxies` and a row of `images`, both emptied where `withheld` names it. Bytes
    that give no picture are a row with a reason, and have an id all the same. Any other error names the member."""
    row_id = listed["row_id"]
    image: dict[str, Any] = {name: listed[name] for name in ("source", "source_name", "member", "byte_offset")}
    proxy: dict[str, Any] = {"row_id": row_id}
    with naming(listed["member"]):
        image |= {"row_id": row_id, "num_bytes": listed["num_bytes"]}
        try:
            image |= _caption(listed)
            max_pixels = int(knobs.max_megapixels * 1e6)
            data = _read(listed, most_bytes(max_pixels))
            digest = hashlib.sha256(data).hexdigest()
            image |= {"image_id": image_id(digest), "sha256": digest, "num_bytes": len(data)}
            proxy["image_id"] = image["image_id"]
            decoded = decode(data, longest_px=knobs.proxy_px, max_pixels=max_pixels)
            image |= decoded.header.columns() | {"alpha": decoded.alpha}
            proxy |= _proxy_columns(decoded, knobs.proxy_quality)
        except header.Unreadable as refused:
            image |= {"reason": refused.reason, "detail": refused.detail}
            if refused.header is not None:
                image |= refused.header.columns()
        return withheld.hold_back(proxy, image)


def most_bytes(max_pixels: int) -> int:
    """The size above which a file is not read."""
    return max(LEAST_BOUND, BYTES_PER_PIXEL * max_pixels)


def encode_proxy(picture: Image.Image, quality: int) -> bytes:
    """A picture as a baseline JPEG, 4:2:0, without metadata: the same pixels give the same bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()


def _rows(listing: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in listing.to_batches(max_chunksize=ROWS_PER_BATCH):
        yield from batch.to_pylist()


def _read(listed: Mapping[str, Any], most_bytes: int) -> bytes:
    """The bytes of an original. Raises Unreadable: they cannot be had, or the listing has a reason already."""
    found_bad = listed.get("reason")  # a part that was listed by an earlier version has no such column
    if found_bad is not None:
        raise header.Unreadable(found_bad, listed["detail"])
    try:
        place = listed["byte_offset"], listed["num_bytes"]
        return read_original(listed["source"], listed["member"], *place, most_bytes)
    except OSError as error:
        raise unreadable(error) from None


def _caption(listed: Mapping[str, Any]) -> dict[str, Any]:
    """Caption, url and license: those of the captions table, else those of the sidecar files."""
    sidecar = _read_sidecars(listed["source"], listed["sidecar"]) if listed["sidecar"] else RawCaption(None)
    return {
        "raw_caption": listed["raw_caption"] or sidecar.caption,
        "other_captions": (listed.get("other_captions") if listed["raw_caption"] else list(sidecar.others)) or None,
        "url": listed["url"] or sidecar.url,
        "license": listed["license"] or sidecar.license,
    }


def _read_sidecars(source: str, member: str) -> RawCaption:
    """The caption file, and a text file of the same name where a `.json` holds everything but a caption. One that is
    gone or no text is as good as none: the image is not at fault. Raises Unreadable: the disk or the server failed for
    the moment; the caption would be lost for good."""
    stem, _, extension = member.rpartition(".")
    is_json = extension.lower() == "json"
    found = _read_caption_file(source, member, is_json)
    if not is_json or found.caption is not None:
        return found
    for other in (f"{stem}.txt", f"{stem}.caption"):  # the listing has looked at the first file alone
        if is_link_out(source, other) and not is_link_out(source, member):
            continue
        text = _read_caption_file(source, other, is_json=False)
        if text.caption is not None:
            return RawCaption(text.caption, found.url, found.license)
    return found


def _read_caption_file(source: str, member: str, is_json: bool) -> RawCaption:
    try:
        return read_sidecar(read_original(source, member, most_bytes=LONGEST_TEXT_BYTES), is_json)
    except OSError as error:
        if may_pass(error):
            failed = unreadable(error)
            raise header.Unreadable(failed.reason, f"its caption file {member}: {failed.detail}") from None
        return RawCaption(None)


def _proxy_columns(decoded: Decoded, quality: int) -> dict[str, Any]:
    picture = decoded.image
    return {"jpeg": encode_proxy(picture, quality), "width": picture.width, "height": picture.height}
