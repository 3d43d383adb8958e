from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest

from engine import catalog, duck
from engine.dataset import Dataset
from tests.browse_server import served
from tests.viewer.test_report import NASTY, PHOTOS, Page, build
from viewer.filters import FIELDS, OPERATORS
from viewer.server import is_loopback, serve

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Four photographs whose captions, nouns and names are what an attacker would write."""
    return build(tmp_path_factory.mktemp("hostile") / "<b>set", NASTY[:2] + PHOTOS[2:], NASTY)


@pytest.fixture(scope="module")
def client(hostile: Dataset) -> Iterator[httpx.Client]:
    with served(hostile) as address, httpx.Client(base_url=address, timeout=30) as found:
        assert found.get("/overview/jobs").status_code == 200  # the last section: all are counted now
        yield found


@pytest.fixture(scope="module")
def catalog_alone(hostile: Dataset) -> Iterator[duckdb.DuckDBPyConnection]:
    """What `sigma sql` asks: the tables without the server."""
    with catalog.connect_read_only(hostile) as connection:
        yield connection


def rows_of(connection: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    return duck.query(connection, sql).fetchall()


def shown(page: str) -> list[int]:
    """The images that a list shows, in order."""
    return [int(found) for found in re.findall(r'<a class="frame" href="/images/(\d+)"', page)]


# ------------------------------------------------------------------------------------------------ text from the wild

PAGES = ("/", "/images", "/images?q=script", "/images/0", "/images/1", "/images/3", "/images/6", "/nouns",
         "/thresholds", "/overview/pictures", "/overview/worst", "/overview/refused", "/overview/captions",
         "/overview/nouns", "/images?column=images.raw_caption&op=contains&value=%22onload",
         "/nouns/%3Cscript%3Ealert('x')%3C/script%3E", "/thresholds?min_aesthetic=6")  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
def test_captions_and_names_are_text_never_markup(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    page = Page(answer.text)
    assert page.tags.count("script") == 1  # ours
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    sources = [value or "" for name, value in page.attributes if name == "src"]
    assert all(re.fullmatch(r"/browse\.js|/(thumb|image)/\d+", source) for source in sources)
    assert "<b>set" in page.text
    assert "49 &" not in page.text  # a template in a caption is not run
    assert "\x1b" not in answer.text and "\x00" not in answer.text


def test_a_long_caption_is_cut_in_lists_and_whole_on_its_page(client: httpx.Client) -> None:
    assert "(100,000 characters)" in client.get("/images").text
    assert "x" * 100_000 in client.get("/images/3").text


def test_a_right_to_left_caption_has_a_direction_of_its_own(client: httpx.Client) -> None:
    assert re.search(r'<p dir="auto">\u202egnitirw', client.get("/images").text)


# ------------------------------------------------------------------------------------------------ who may ask, and what


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.", "[::2]:1"])
def test_a_foreign_host_is_refused(client: httpx.Client, host: str) -> None:
    answer = client.get("/", headers={"host": host})
    assert answer.status_code == 421
    assert "not known by that name" in answer.text


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:9", "LOCALHOST"])
def test_names_of_this_machine_are_answered(client: httpx.Client, host: str) -> None:
    assert client.get("/nouns", headers={"host": host}).status_code == 200


def test_a_request_without_or_with_two_hosts_is_refused(client: httpx.Client) -> None:
    port = client.base_url.port
    assert port is not None
    two = "GET / HTTP/1.0\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"  # which is no HTTP
    for head, status in (("GET / HTTP/1.0\r\n\r\n", b"421"), (two, b"400")):
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(head.encode())
            assert raw.recv(200).split(b" ")[1] == status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_methods_that_do_not_read_are_refused(client: httpx.Client, method: str) -> None:
    answer = client.request(method, "/images")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"


def test_every_answer_carries_the_headers(client: httpx.Client) -> None:
    for path in ("/", "/style.css", "/thumb/0", "/nothing", "/images?column=x&op=is&value=1"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'self' 'unsafe-inline'")
        assert "script-src 'self';" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_the_pages_write_nothing(hostile: Dataset, client: httpx.Client) -> None:
    before = sorted(path for path in hostile.root.rglob("*"))
    for path in PAGES:
        client.get(path)
    assert sorted(path for path in hostile.root.rglob("*")) == before


def test_an_address_beyond_loopback_needs_an_allowed_host(hostile: Dataset) -> None:
    with pytest.raises(ValueError, match=r"can be reached from other machines; name the Host .*--allow-host"):
        serve(hostile, host="0.0.0.0", port=0)
    assert [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "10.0.0.1", "x")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


def test_an_allowed_host_is_answered(hostile: Dataset) -> None:
    with served(hostile, ("photos.example",)) as address:
        assert httpx.get(f"{address}/nouns", headers={"host": "photos.example:80"}).status_code == 200
        assert httpx.get(f"{address}/nouns").status_code == 421


def test_a_port_that_is_taken_is_named(hostile: Dataset) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=r"cannot listen on a{300}, port 0: .*too long.*--host"):
            serve(hostile, host="a" * 300, port=0, allow_hosts=["x"])
        with pytest.raises(ValueError, match=f"cannot listen on 127.0.0.1, port {port}: .*--port"):
            serve(hostile, port=port)


# ------------------------------------------------------------------------------------------------ injection and limits

INJECTIONS = ("' OR 1=1 --", "x'; DROP VIEW images; --", '"; SELECT 1', "$p0", "\\' OR TRUE", "%' OR '1'='1")


@pytest.mark.parametrize("value", INJECTIONS)
def test_a_value_is_never_sql(catalog_alone: duckdb.DuckDBPyConnection, client: httpx.Client, value: str) -> None:
    """It finds nothing, through every column that takes it and every operator, and the SQL to copy says the same."""
    for name, field in FIELDS.items():
        for operator, (_, _, kinds) in OPERATORS.items():
            if field.kind not in kinds or operator in ("not", "empty", "given"):
                continue
            asked = {"column": name, "op": operator, "value": value}
            if name.startswith(("ledger", "images")) or operator == "has":
                answer = client.get("/images.sql", params=asked)
                assert answer.status_code == (200 if field.kind in ("text", "list") else 400), (name, operator)
                if answer.status_code == 200:
                    assert rows_of(catalog_alone, answer.text) == [], (name, operator)
    for asked in ({"q": value}, {"noun": value}, {"column": "images.format", "op": "is", "value": value}):
        assert shown(client.get("/images", params=asked).text) == []
        assert rows_of(catalog_alone, client.get("/images.sql", params=asked).text) == []
    for name in ("sort", "after", "outcome_", "column", "op"):
        asked = {"column": "images.width", "op": "gt", "value": "1"} | {name: value}
        assert client.get("/images", params=asked).status_code == (200 if name == "outcome_" else 400), name
    assert client.get("/thresholds", params={"min_aesthetic": value}).status_code == 400
    assert client.get("/nouns", params={"sort": value}).status_code == 400
    assert len(shown(client.get("/images").text)) == 7


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("column=images.nothing&op=is&value=1", "no such column: images.nothing"),
        ("column=proxies.jpeg&op=is&value=1", "no such column: proxies.jpeg"),
        ("column=images.width&op=like&value=1", "no such comparison: like"),
        ("column=images.width&op=contains&value=1", "images.width cannot be compared by"),
        ("column=images.width&op=is&value=wide", "images.width is a number, not"),
        ("column=images.width&op=is&value=99999999999999999999", "images.width cannot be 9999"),
        ("column=scores.aesthetic&op=is&value=nan", "scores.aesthetic cannot be nan"),
        ("column=selection.kept&op=is&value=1", "selection.kept is true or false"),
        ("column=images.format&op=is&value=a%00b", "a text holds no NUL character"),
        ("q=" + "x" * 501, "at most 500 characters, these are 501"),
        ("&".join(["column=images.width&op=is&value=1"] * 9), "at most 8 conditions at a time, these are 9"),
        ("column=images.width&op=is", "each condition takes column, op and value"),
        ("sort=images.format", "no such order: images.format"),
        ("after=1,two", "this is no place in the list"),
    ],
)
def test_an_impossible_filter_is_refused_with_the_reason(client: httpx.Client, query: str, why: str) -> None:
    answer = client.get(f"/images?{query}")
    assert answer.status_code == 400
    assert why in " ".join(Page(answer.text).text.split())


def test_too_long_an_address_is_refused(client: httpx.Client) -> None:
    assert client.get("/images?q=" + "x" * 17_000).status_code == 414


@pytest.mark.parametrize("path", ["/images/99", "/image/99", "/thumb/99", "/thumb/6", "/overview/x", "/../etc/passwd"])
def test_an_unknown_address_is_not_found(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 404


def test_a_folder_without_a_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no dataset here; make one with sigma build"):
        serve(Dataset(tmp_path), port=0)


def test_pages_show_what_a_build_has_left_of_the_tables_and_go_on_afterwards(small: Dataset, copy_of: Any) -> None:
    dataset = copy_of(small)
    with served(dataset) as address, httpx.Client(base_url=address, timeout=30) as client:
        assert client.get("/images").status_code == 200
        for table in ("images", "proxies", "mix"):
            dataset.folder(table).rename(dataset.root / table)
        for page, says in (
            ("/images?column=images.width&op=ge&value=5", "No image fits."),
            ("/images/3", "pending"),
            ("/thresholds", "0 would fall"),
        ):
            answer = client.get(page)
            assert answer.status_code == 200 and says in answer.text
        assert client.get("/image/3").status_code == 404
        for table in ("images", "proxies", "mix"):
            (dataset.root / table).rename(dataset.folder(table))
        time.sleep(1.1)
        assert shown(client.get("/images").text) == list(range(8))
