"""Listing tars of a store that takes 30 ms for each request: requests and samples per second of one process."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from benchmarks.slow_store import BUCKET, asked, serving
from curation.sources import tars
from curation.sources.item import SourceListing
from schemas.sources import WebDatasetSource

KINDS = {"1.2 MB": (1_200_000, 12), "200 kB": (200_000, 60), "60 kB": (60_000, 200)}
"""Size of a picture -> its bytes, and samples per tar."""
TARS, DELAY_MS = 64, 30.0


def tar_bytes(num_bytes: int, num_samples: int) -> bytes:
    """A tar of samples as webdataset writes them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(num_samples):
            for extension, data in (
                ("jpg", bytes(num_bytes)),
                ("json", b'{"caption": "a house"}'),
                ("txt", b"a house"),
            ):
                info = tarfile.TarInfo(f"{number:06d}.{extension}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def tar_listing(folder: Path) -> Iterator[str]:
    """As it is, beside blocks of 256 KiB of 8 tars at once."""
    objects = {kind: tar_bytes(*made) for kind, made in KINDS.items()}
    keys = {f"{kind}/{number:04d}.tar".replace(" ", ""): kind for kind in KINDS for number in range(TARS)}
    with serving(folder, objects, keys, DELAY_MS) as url:
        given = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
        with patch.dict(os.environ, given):
            for kind, (_, num_samples) in KINDS.items():
                source = WebDatasetSource.from_mapping({"urls": f"s3://{BUCKET}/{kind.replace(' ', '')}"})
                now = _rate(source, url)
                growing = patch.multiple(tars._Growing, _fetch=tars.ReadAheadCache._fetch)
                with growing, patch.object(tars, "REMOTE_TARS_AT_ONCE", 8):
                    before = _rate(source, url)
                shown = [f"{rate:,.0f} samples/s, {asked_for / num_samples / TARS:.2f} requests each"
                         for rate, asked_for in (now, before)]  # fmt: skip
                yield f"| tars of pictures of {kind} | {shown[0]} | {shown[1]} | {now[0] / before[0]:.1f} | |"


def _rate(source: WebDatasetSource, url: str) -> tuple[float, int]:
    asked(url)
    begun = time.perf_counter()
    found = SourceListing([], {})
    names = tars.tars_of(source, found)
    num = sum(1 for _ in tars.list_tars(names, source.captions, found))
    return num / (time.perf_counter() - begun), asked(url)["GET"]


BENCHMARKS = (tar_listing,)
