"""A URL list against a real server: every URL is a row with what became of it, and only what can succeed is retried."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.sources import list_source
from curation.sources.item import SourceListing
from curation.sources.urls import _read_list, http_address
from engine.dataset import Dataset
from schemas.recipe import DataRecipe
from schemas.sources import UrlSource
from tests.building import build, computed, picture, recipe, rows
from tests.photos import encode, write_files
from tests.serving import Served, serving

GOOD = {
    f"{number}.{kind}": encode(picture(number), form)
    for number, (kind, form) in enumerate(
        [("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("jpg", "JPEG"), ("jpg", "JPEG"), ("jpg", "JPEG")]
    )
}

PATHS = {
    "files/0.jpg": None,
    "files/1.png": None,
    "files/2.webp": None,
    "files/none.jpg": "not_found",
    "status/403/x.jpg": "forbidden",
    "busy/3.jpg": "rate_limited",
    "stalls/4.jpg": "timeout",
    "status/500/x.jpg": "server_error",
    "moved/5.jpg": None,
    "page/a.jpg": "not_an_image",
    "optout/0.jpg": "opted_out",
}
"""What is asked of the server, and the reason it must end with."""

OTHERS = {
    "http://127.0.0.1:9/x.jpg": "unreachable",
    "file:///etc/passwd": "bad_url",
    "no address at all": "bad_url",
}


class Fetched:
    """One list, fetched and ingested."""

    def __init__(self, served: Served, made: DataRecipe, dataset: Dataset) -> None:
        self.served, self.made, self.dataset = served, made, dataset


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fetched]:
    folder = tmp_path_factory.mktemp("urls")
    with serving(write_files(folder / "served", GOOD)) as served:
        urls = [*(f"{served.url}/{path}" for path in PATHS), *OTHERS]
        lines = ["link,words,rights", *(f"{url},caption {number},CC0" for number, url in enumerate(urls))]
        (folder / "list.csv").write_text("\n".join(lines))
        source: dict[str, Any] = {
            "kind": "urls",
            "path": str(folder / "list.csv"),
            "columns": {"url": "link", "caption": "words", "license": "rights"},
            "img2dataset": {"timeout": 1, "retries": 0, "number_sample_per_shard": 6, "processes_count": 1},
        }
        made = recipe(None, folder / "ds", sources=[source], part_rows=5)
        yield Fetched(served, made, build(made, upto="ingest")[0])


def test_a_row_of_a_list_that_cannot_be_read_is_an_input_and_is_named(tmp_path: Path) -> None:
    path, listing = tmp_path / "list.jsonl", SourceListing([], {})
    path.write_text('{"url": "http://x/1", "words": ["a", "b"]}\n{broken\n{"url": "http://x/2", "words": 3}\n')
    source = UrlSource.from_mapping({"path": str(path), "columns": {"caption": "words"}})
    found = [(row["url"], row["caption"], row["others"]) for row in _read_list(source, listing)]
    assert found == [("http://x/1", "a", ["b"]), ("", None, []), ("http://x/2", None, [])]
    broken, no_text = listing.ignored
    assert broken.startswith(f"rows of the list that cannot be read (the first: {path}, line 2 is not JSON")
    assert no_text == f"captions that are no text (the first: {path}, line 3: words is int, not text)"


def test_a_list_that_was_misspelt_is_no_other_list_once_it_is_mended(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    for name, said in (("list.tsv", "not found"), ("empty.txt", "the URL list is empty")):
        with pytest.raises(ValueError, match=said):
            list(list_source(UrlSource(path=str(tmp_path / name)), str(tmp_path / "work")).items)


def test_addresses_are_sent_in_the_letters_that_servers_take() -> None:
    given = {
        "http://x/a.jpg?b=%20c": "http://x/a.jpg?b=%20c",
        "http://x/café/two words.jpg?t=ü&u=1": "http://x/caf%C3%A9/two%20words.jpg?t=%C3%BC&u=1",
        "https://bücher.example:8080/é%C3%A9": "https://xn--bcher-kva.example:8080/%C3%A9%C3%A9",
        "HTTP://x/a|b[1].jpg": "HTTP://x/a|b[1].jpg",
        "http://x/frag.jpg#é y": "http://x/frag.jpg",
        "http://[::1]:80/é": "http://[::1]:80/%C3%A9",
        "http://[::1/x": "",
        "http://x:99999/x": "",
        "http:///x": "",
        "https://user:word@x/y.jpg": "",
        "http://user@x/é.jpg": "",
        "//x/y.jpg": "",
        "file:///etc/passwd": "",
        "http://.é./x": "",
        "": "",
    }
    assert {text: http_address(text) for text in given} == given


@pytest.mark.slow
@given(st.text(max_size=30), st.sampled_from(["", "http://", "https://x/", "http://x:"]))
def test_any_text_is_an_address_or_none(text: str, begin: str) -> None:
    found = http_address(begin + text)
    assert found == "" or (found.isascii() and " " not in found)


@pytest.mark.slow
def test_every_url_is_a_row_and_only_passing_errors_are_retried(fetched: Fetched) -> None:
    dataset, served = fetched.dataset, fetched.served
    images = rows(dataset, "images")
    reasons = [row["reason"] for row in images]
    assert reasons == [*PATHS.values(), *OTHERS.values()]
    assert [row["raw_caption"] for row in images] == [f"caption {number}" for number in range(len(images))]
    assert {row["license"] for row in images} == {"CC0"}
    assert images[0]["url"] == f"{served.url}/files/0.jpg"
    assert [row["format"] for row in images[:3]] == ["JPEG", "PNG", "WEBP"]
    assert images[1]["num_bytes"] == len(GOOD["1.png"])  # original bytes, not img2dataset's JPEG
    assert images[0]["member"] == "00000.tar#000000.jpg"
    assert images[3]["detail"] == "HTTP Error 404: Not Found"

    before = {path: path.stat().st_mtime_ns for path in dataset.parts("images")}
    served.recovered = True
    served.requests.clear()
    _, told = build(fetched.made, upto="ingest", retry_failed=True)
    assert told.num_retried == 4
    assert set(served.requests) == {"/busy/3.jpg", "/stalls/4.jpg", "/status/500/x.jpg"}
    again = rows(dataset, "images")
    mended = {5: None, 6: None}
    assert [row["reason"] for row in again] == [mended.get(number, reason) for number, reason in enumerate(reasons)]
    assert [row["row_id"] for row in again] == list(range(len(images)))
    assert [row["raw_caption"] for row in again] == [row["raw_caption"] for row in images]
    assert again[5]["num_bytes"] == len(GOOD["3.jpg"])
    assert again[5]["source"].endswith("retry-001")
    unchanged = dataset.parts("images")[0]
    assert unchanged.stat().st_mtime_ns == before[unchanged]
    assert computed(told) == {"images": 2}

    served.requests.clear()
    source = fetched.made.all_sources()[0]
    assert isinstance(source, UrlSource)
    begun = source.model_copy(update={"columns": source.columns.model_copy(update={"caption": None})})
    with pytest.raises(ValueError, match=r"source-00: holds what was fetched for another list, or with other options"):
        list_source(begun, str(dataset.fetched(0)))
    shared = source.model_copy(update={"into": str(dataset.fetched(0) / "tars")})
    (dataset.root.parent / "list.csv").write_text("link,words,rights\nhttp://x/1.jpg,a,b\n")
    with pytest.raises(ValueError, match="tars: holds the tars of another list; name another folder with into"):
        list(list_source(shared, str(dataset.root.parent / "other")).items)
    (dataset.root.parent / "list.csv").unlink()  # the list was taken: it is not read again
    finished, told = build(fetched.made)
    assert told.results[0] == ("ingest", None)
    assert not served.requests
    samples = rows(finished, "samples")
    assert len(samples) == 6
    assert {row["reason"] for row in samples} == {None}
