"""A real S3 server on loopback for tests: moto, behind a gate that counts what it sends and can refuse it."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from engine.place import store as stores
from engine.place.lease import leased
from engine.place.store import _client

KEY, SECRET = "AKIALOOPBACKTESTS", "tresor-of-the-loopback"

pytest.importorskip("moto.server", reason="needs moto: pip install 'moto[server]'")


class Store:
    """A bucket, and what the server was asked for it."""

    def __init__(self, bucket: str) -> None:
        self.url = ""
        self.bucket = bucket
        self.requests: Counter[tuple[str, str]] = Counter()
        """(method, key or listed prefix) -> requests."""
        self.num_sent: Counter[str] = Counter()
        """Key -> bytes of its content that were sent."""
        self.refused: dict[str, int] = {}
        """Beginning of a key or of a listed prefix -> HTTP status of every answer."""
        self.refuse_every = 0
        """Answer each n-th request with SlowDown; 0 is none."""
        self._client: Any = None

    def put(self, files: Mapping[str, bytes]) -> None:
        """Store objects by key."""
        for key, data in files.items():
            self._client.put_object(Bucket=self.bucket, Key=key, Body=data)

    def delete(self, key: str) -> None:
        """Delete an object."""
        self._client.delete_object(Bucket=self.bucket, Key=key)

    def empty(self) -> None:
        """Delete every object."""
        while found := self._client.list_objects_v2(Bucket=self.bucket).get("Contents", []):
            keys = [{"Key": each["Key"]} for each in found]
            self._client.delete_objects(Bucket=self.bucket, Delete={"Objects": keys})
        self.forget()

    def keep_versions(self, keep: bool = True) -> None:
        """Keep what is replaced or deleted from now on, or do so no more."""
        status = {"Status": "Enabled" if keep else "Suspended"}
        self._client.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration=status)

    @contextmanager
    def asking_for_credentials(self) -> Iterator[tuple[str, str]]:
        """Answer signed requests alone, as long as this lasts; the key and the secret of an account that may all."""
        import boto3
        from moto import settings

        iam = boto3.client(
            "iam", endpoint_url=self.url, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1"
        )
        name = f"reader-{uuid.uuid4()}"  # moto's servers of one process share what they hold
        iam.create_user(UserName=name)
        statement = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=policy)
        made = iam.create_access_key(UserName=name)["AccessKey"]
        before, settings.INITIAL_NO_AUTH_ACTION_COUNT = settings.INITIAL_NO_AUTH_ACTION_COUNT, 0
        try:
            yield made["AccessKeyId"], made["SecretAccessKey"]
        finally:
            settings.INITIAL_NO_AUTH_ACTION_COUNT = before

    def forget(self) -> None:
        """Count from nothing."""
        self.requests.clear()
        self.num_sent.clear()


def environment(url: str) -> dict[str, str]:
    """What a user sets for a server like MinIO."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def storing(bucket: str = "photos") -> Iterator[Store]:
    """Serve an empty bucket; the environment stays as it is."""
    import boto3
    from botocore.config import Config
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, type: str, message: str, *args: Any) -> None:
            """Say nothing."""

    store = Store(bucket)
    inner = DomainDispatcherApplication(create_backend_app)
    server = make_server(
        "127.0.0.1", 0, lambda env, start: _gate(store, inner, env, start), threaded=True, request_handler=Quiet
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    store.url = f"http://127.0.0.1:{server.server_port}"
    store._client = boto3.client(
        "s3",
        endpoint_url=store.url,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )
    store._client.create_bucket(Bucket=store.bucket)
    store.forget()
    try:
        yield store
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def _gate(store: Store, inner: Any, env: dict[str, Any], start: Any) -> Iterable[bytes]:
    path = env["PATH_INFO"].encode("latin-1").decode("utf-8").removeprefix(f"/{store.bucket}").lstrip("/")
    query = parse_qs(env.get("QUERY_STRING", ""))
    asked = path or query.get("prefix", [""])[0]
    store.requests[env["REQUEST_METHOD"], asked] += 1
    num_asked = store.requests.total()
    storm = {"": 503} if store.refuse_every and num_asked % store.refuse_every == 0 else {}
    for beginning, status in (store.refused | storm).items():
        if asked.startswith(beginning):
            code = {403: "AccessDenied", 503: "SlowDown", 500: "InternalError"}[status]
            start(f"{status} {code}", [("Content-Type", "application/xml")])
            return [f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()]
    answer = list(inner(env, start))
    if path and env["REQUEST_METHOD"] == "GET":
        store.num_sent[path] += sum(map(len, answer))
    return answer


@contextmanager
def as_user_of(store: Store) -> Iterator[Store]:
    """The environment of a user of the server, a disk for copies of its own, and nothing in the bucket."""
    with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(store.url).items():
            patch.setenv(name, value)
        patch.setenv("SIGMA_SCRATCH", scratch)
        _client.cache_clear()
        store.empty()  # moto's servers of one process share what they hold
        try:
            yield store
        finally:
            store.refused.clear()
            store.empty()
            _client.cache_clear()


def race_for_lease(place: stores.Store, held_s: float) -> tuple[list[int], list[str]]:
    """Eight threads that want one lease at the same time: how many held it when each got it, itself included, and the
    refusals of the others. On a busy machine one may come when the first has gone."""
    inside, got, refused, go = set[int](), list[int](), list[str](), threading.Barrier(8)

    def take(number: int) -> None:
        go.wait()
        try:
            with leased(place, lambda who: who, lost=lambda: got.append(-1)):
                inside.add(number)
                got.append(len(inside))
                time.sleep(held_s)
                inside.remove(number)
        except ValueError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=take, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got, refused


def objects_come_back(store: stores.Store, folder: Path) -> None:
    """Objects of any name and size, and writes on a condition. `folder`: for a large file."""
    names, large = ["a", "b c", "d/e#?.jpg", "Grüße 世界", "50%.tar", "x+y"], os.urandom(11_000_000)
    for name in names:
        store.put(name, name.encode())
    assert {found.key: store.get(found.key).decode() for found in store.below()} == {name: name for name in names}
    store.copy("d/e#?.jpg", "f/g")
    store.delete(["d/e#?.jpg"])
    assert store.names("f")[1] == {"g": 9} and store.names("d")[1] == {}
    (folder / "large").write_bytes(large)
    store.put("large", folder / "large")
    assert store.piece("large", 9_000_000, 9_000_005) == large[9_000_000:9_000_005]
    assert store.piece("large", 10_999_999, 11_000_009) == large[-1:]
    assert store.piece("large", 11_000_000, 11_000_009) == b""
    store.delete([*names, "never was"])
    first = store.create("lock", b"1")
    assert first is not None and store.create("lock", b"2") is None
    assert store.swap("lock", b"3", stores.other_than(first)) is None and store.swap("gone", b"6", first) is None
    second = store.swap("lock", b"4", first)
    assert second is not None and store.swap("lock", b"5", first) is None and store.get("lock") == b"4"
