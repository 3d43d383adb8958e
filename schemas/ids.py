"""Identity and chance: an image's id comes from its bytes, and every coin from an id and a salt."""

from __future__ import annotations

import hashlib

IMAGE_ID_LENGTH = 32
"""Hex digits of an image id: the first 128 bits of the sha256 of the original bytes."""


def image_id(sha256: str) -> str:
    """The id of an image: the first 32 hex digits of the sha256 of its original bytes. The same bytes have the same id
    in every place, so a caption that was paid for once is found again."""
    if len(sha256) != 64:
        raise ValueError(f"a sha256 has 64 hex digits, this has {len(sha256)}")
    return sha256[:IMAGE_ID_LENGTH]


def unit_interval(image_id: str, salt: str) -> float:
    """A number in [0, 1) that depends on the two texts alone, uniform over images. The coin that every job shares:
    `unit_interval(id, salt) < 0.6` decides the same on every machine, with any number of workers, today and next year.
    53 bits of sha256, so the value is exact in float64."""
    return counter(image_id, salt) / 2**53


def counter(image_id: str, salt: str) -> int:
    """53 bits from sha256(salt, image_id), for seeding generators as well as for coins."""
    digest = hashlib.sha256(f"{salt}\x00{image_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 11
