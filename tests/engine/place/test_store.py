"""Objects of a real S3 server: whole, in ranges, listed, written on a condition; and errors that say which one."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from pathlib import Path

import pytest
from obstore import exceptions as refused

from engine.place import store as stores
from engine.place.store import Store
from schemas.files import entries_in, is_file, is_folder, mount_point
from schemas.locations import for_datasets
from schemas.unread import StoreError
from tests.storing import Store as Server
from tests.storing import objects_come_back


@pytest.fixture
def store(bucket: Server) -> Store:
    return Store.at(f"s3://{bucket.bucket}/some/folder/")


def test_an_object_that_marks_a_folder_is_none(bucket: Server) -> None:
    """As the consoles of clouds make them; SeaweedFS lists a folder whose objects are deleted in this way."""
    bucket.put({"made/": b"", "made/tables/": b"", "made/tables/a": b"1"})
    store, place = Store.at("s3://photos/made"), mount_point("s3://photos/made")
    assert store.names() == (["tables"], {}) and [found.key for found in store.below()] == ["tables/a"]
    assert is_folder(place / "tables") and not is_file(place)
    bucket.delete("made/tables/a")
    assert not is_folder(place) and entries_in(place / "tables") == []


def test_another_folder_of_the_bucket_is_not_seen(bucket: Server, store: Store) -> None:
    store.put("a", b"1")
    Store.at(f"s3://{bucket.bucket}/some/folder2").put("b", b"2")
    assert [found.key for found in store.below()] == ["a"]
    assert Store.at(f"s3://{bucket.bucket}").names("some") == (["folder", "folder2"], {})


def test_a_file_comes_back_whole_or_in_ranges(store: Store, tmp_path: Path) -> None:
    data = os.urandom(11_000_000)  # more than one piece of an upload
    (tmp_path / "large").write_bytes(data)
    store.put("large", tmp_path / "large")
    store.fetch("large", tmp_path / "deep" / "copy")
    assert (tmp_path / "deep" / "copy").read_bytes() == data
    assert store.piece("large", 5_000_000, 5_000_010) == data[5_000_000:5_000_010]
    pieces = [store.piece("large", begin, begin + 10) for begin in (len(data) - 3, len(data), len(data) + 1)]
    assert pieces == [data[-3:], b"", b""]
    with store.open("large") as file:
        assert file.read(7) == data[:7]
        file.seek(-5, 2)
        assert file.read() == data[-5:]
        assert file.read() == b""


def test_objects_come_back_as_from_the_servers_that_people_run(store: Store, tmp_path: Path) -> None:
    objects_come_back(store, tmp_path)


def test_what_is_not_there_is_named(store: Store, tmp_path: Path) -> None:
    for ask in (store.get, store.open, lambda key: store.fetch(key, tmp_path / "x")):
        with pytest.raises(FileNotFoundError, match=r"s3://photos/some/folder/no such"):
            ask("no such")
    assert not list(tmp_path.iterdir())


def test_a_missing_bucket_and_an_address_without_one_are_refused(bucket: Server) -> None:
    for ask in (lambda s: s.put("a", b""), lambda s: list(s.below()), lambda s: s.names()):
        with pytest.raises(ValueError, match="s3://no-such-bucket: there is no such bucket"):
            ask(Store.at("s3://no-such-bucket/x"))
    for url in ("s3://", "s3:///x"):
        with pytest.raises(ValueError, match="names no bucket; write s3://BUCKET/FOLDER"):
            Store.at(url)
    assert Store.at("s3://photos/").find("") is None, "a bucket is no object"
    assert Store.at("az://container/a/b/") == Store("az://container", "a/b")
    for url, why in (("s3://photos/../x", "has no ..; name the folder itself"), ("s3://me:hush@photos/x", "password")):
        with pytest.raises(ValueError, match=why) as refusal:
            for_datasets(url)
        assert "hush" not in str(refusal.value)
    assert for_datasets("S3://Photos/Deep") == "s3://Photos/Deep"


@pytest.mark.parametrize("endpoint", ["://", "http://", "ftp://host"])
def test_an_endpoint_that_is_no_address_is_refused(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(ValueError, match=r"^AWS_ENDPOINT_URL=.*: write it as http://HOST:PORT"):
        Store.at("s3://a-bucket-of-this-test/x").find("y")


def test_an_object_whose_key_is_no_path_is_named(bucket: Server, store: Store) -> None:
    bucket.put({"some/folder/a//b": b"1"})
    with pytest.raises(ValueError, match=r's3://photos/some/folder: .*"some/folder/a//b" .*; delete that object'):
        list(store.below())


def test_a_refused_access_is_no_missing_object(bucket: Server, store: Store) -> None:
    bucket.refused["some/folder/secret"] = 403
    with pytest.raises(ValueError, match=r"s3://photos/some/folder/secret: .* \(AccessDenied\); check the cred"):
        store.get("secret")
    with pytest.raises(ValueError, match=r"secret: the store refuses access \(403 Forbidden\); check"):
        store.find("secret")


def test_credentials_that_are_wrong_are_named_by_the_servers_word_and_not_repeated(
    bucket: Server, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("a", b"1")
    with bucket.asking_for_credentials() as (key, secret):
        for what, word in ((secret + "x", "SignatureDoesNotMatch"), (secret, "InvalidAccessKeyId")):
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", key if secret != what else "AKIANOSUCHKEY1234567")
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", what)
            stores._client.cache_clear()
            for ask in (lambda: store.get("a"), lambda: store.put("b", b""), lambda: store.names()):
                with pytest.raises(ValueError, match=rf"s3://photos.*refuses access \({word}\); check") as refusal:
                    ask()
                assert what not in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("Generic S3 error: Server returned 400: <Error><Code>ExpiredToken</Code></Error>", "refuses access"),
        ("Generic S3 error: Error performing PUT http://169.254.169.254/latest/api/token", "no credentials were found"),
        ("Generic S3 error: Error performing HEAD http://x/a - 400 Bad Request", r"access \(400 Bad Request\)"),
        ("Generic S3 error: Server returned 400: <Error><Code>MalformedXML</Code></Error>", "a: MalformedXML"),
    ],
)
def test_what_a_store_says_is_told_in_one_line(
    store: Store, monkeypatch: pytest.MonkeyPatch, said: str, means: str
) -> None:
    def refuse(*_: object) -> None:
        raise refused.GenericError(said)

    monkeypatch.setattr(stores.obstore, "get", refuse)
    with pytest.raises((ValueError, StoreError), match=means):
        store.get("a")


def test_a_server_that_is_busy_is_asked_again_and_then_named(
    bucket: Server, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "RETRIES", 2)
    store.put("a", b"1")
    bucket.refused["some/folder/a"] = 503
    bucket.forget()
    stores._client.cache_clear()
    with pytest.raises(StoreError) as error:
        store.get("a")
    assert bucket.requests["GET", "some/folder/a"] == 3
    assert str(error.value).startswith("s3://photos/some/folder/a: ") and "503" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_store_is_pickled_and_a_process_that_is_forked_after_it_was_used_says_so(store: Store) -> None:
    store.put("a", b"1")  # which starts the threads of the client
    assert pickle.loads(pickle.dumps(store)).get("a") == b"1"
    with multiprocessing.get_context("fork").Pool(1) as pool, pytest.raises(AssertionError, match="forked"):
        pool.apply_async(store.get, ["a"]).get(30)
