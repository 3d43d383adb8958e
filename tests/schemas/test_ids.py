"""Identity and chance: values that must never change, and coins that are fair."""

from __future__ import annotations

import hashlib

import pytest

from schemas.ids import counter, image_id, unit_interval

EMPTY = hashlib.sha256(b"").hexdigest()


def test_an_id_is_the_head_of_the_sha256() -> None:
    assert image_id(EMPTY) == "e3b0c44298fc1c149afbf4c8996fb924"


@pytest.mark.parametrize("wrong", ["", "abc", EMPTY + "0"])
def test_only_a_sha256_gives_an_id(wrong: str) -> None:
    with pytest.raises(ValueError, match="64 hex digits"):
        image_id(wrong)


def test_coins_are_the_same_for_ever() -> None:
    # printf 'mix\0e3b0...' | sha256sum, its first 16 digits shifted right by 11 bits
    assert unit_interval("e3b0c44298fc1c149afbf4c8996fb924", "mix") == 0.7328517745745223
    assert counter("e3b0c44298fc1c149afbf4c8996fb924", "mix") == 6600941957783251


def test_salt_and_id_are_separated() -> None:
    assert counter("b", "a") != counter("ab", "")
    assert counter("x", "mix") != counter("x", "epoch-1")


def test_uniform_over_images() -> None:
    num, bins = 20_000, 20
    values = [unit_interval(image_id(hashlib.sha256(str(n).encode()).hexdigest()), "mix") for n in range(num)]
    counts = [sum(bin / bins <= value < (bin + 1) / bins for value in values) for bin in range(bins)]
    chi_squared = sum((count - num / bins) ** 2 / (num / bins) for count in counts)
    assert sum(counts) == num
    assert chi_squared < 43.8  # 99.9 % quantile for 19 degrees of freedom
    assert sum(value < 0.6 for value in values) / num == pytest.approx(0.6, abs=0.011)


def test_salts_are_independent() -> None:
    both = [(unit_interval(str(n), "one") < 0.5, unit_interval(str(n), "two") < 0.5) for n in range(10_000)]
    assert sum(a == b for a, b in both) / len(both) == pytest.approx(0.5, abs=0.02)
