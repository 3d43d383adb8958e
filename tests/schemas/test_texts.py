"""Bytes become the text that was meant, whatever wrote them, or none; JSON is read beyond Python's own limits."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.sources.captions import read_sidecar
from schemas.texts import NotText, caption_texts, decode, parse_json

WORDS = "A café in the rain, “closed”"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-le"])
def test_any_unicode_encoding_with_or_without_a_mark_is_read(encoding: str) -> None:
    assert decode(WORDS.encode(encoding)) == WORDS
    assert decode("ein Vogel".encode(encoding)) == "ein Vogel"
    assert decode("Кошка на столе".encode(encoding)) == "Кошка на столе"
    assert decode("一只猫 sits".encode(encoding)) == "一只猫 sits"
    assert read_sidecar(f'{{"caption": "{WORDS[:5]}"}}'.encode(encoding), is_json=True).caption == WORDS[:5].strip()


def test_single_bytes_of_windows_among_english_are_letters() -> None:
    assert decode(b"caf\xe9 at night") == "café at night"
    assert decode(b"the dog\x92s \x93red\x94 ball") == "the dog’s “red” ball"
    assert decode("une tasse de thé à Noël".encode("cp1252")) == "une tasse de thé à Noël"
    assert decode("a café".encode() + b" and a caf\xe9") == "a café and a café"


def test_bytes_of_other_encodings_are_never_made_up_letters() -> None:
    for text, encoding in (("Кошка на столе", "cp1251"), ("カメラ と猫", "shift_jis"), ("一只猫坐着", "gbk")):
        found = decode(text.encode(encoding))
        assert found is not None and "\ufffd" in found, (encoding, found)
    assert decode(b"bad \xff byte") == "bad \ufffd byte"


def test_bytes_that_are_no_text_are_none() -> None:
    assert decode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\1\0\0\0\1") is None
    assert decode(b"A red kite\0") == decode(b"A red kite") == "A red kite"
    assert decode(b"A red kite\0over a hill") == "A red kite\0over a hill"  # as cleaning finds it
    assert decode(b"\xff\xfeA\0 \0k\0i\0t\0e\0.") == "A kite"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_are_an_error(data: bytes) -> None:
    for is_json in (False, True):
        caption = read_sidecar(data, is_json).caption
        assert caption is None or caption.encode("utf-8").strip()


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn", "Co"]), min_size=3, max_size=40))
def test_utf8_is_always_itself(text: str) -> None:
    assert decode(text.encode()) == text.removeprefix("\ufeff")


def test_json_beyond_the_limits_of_python() -> None:
    assert parse_json('{"id": ' + "7" * 5000 + ', "caption": "x"}')["caption"] == "x"
    assert parse_json('{"id": 12345678901234567890}')["id"] == 12345678901234567890
    for text, why in (("[" * 100_000, "is nested too deeply"), ("{", "is not JSON"), ("", "is not JSON")):
        with pytest.raises(NotText, match=why):
            parse_json(text)


def test_captions_of_any_type() -> None:
    assert caption_texts(["", None, " one ", 7, "two"]) == ["one", "two"]
    assert caption_texts(b"caf\xe9 at noon") == ["café at noon"]
    assert caption_texts({"en": "x"}) == caption_texts(7) == caption_texts(None) == caption_texts([]) == []
    found = read_sidecar(b'{"caption": [], "text": ["a", "b", 7, "c"]}', is_json=True)
    assert (found.caption, found.others) == ("a", ("b", "c"))
