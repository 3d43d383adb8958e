"""A server that answers as Google's XML API does, as far as the client of stores asks it, for tests."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class Object(NamedTuple):
    data: bytes
    generation: int

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.data).hexdigest()}"'


class Bucket(ThreadingHTTPServer):
    """One bucket, whatever its name. A generation is a number that grows with each write, and never comes again."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.objects: dict[str, Object] = {}
        self.old: dict[tuple[str, int], Object] = {}
        """Versions that were replaced or deleted, while `keeps_versions`."""
        self.keeps_versions = False
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.writing, self.numbers = threading.Lock(), itertools.count(1_700_000_000_000_000)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving() -> Iterator[Bucket]:
    """The server, as long as this lasts."""
    server = Bucket()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class _Answer(BaseHTTPRequestHandler):
    server: Bucket
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _asked(self) -> tuple[str, dict[str, str], bytes]:
        """The key, the query, and what was sent."""
        asked = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(asked.query, keep_blank_values=True).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return unquote(asked.path.lstrip("/").partition("/")[2]), query, body

    def _send(self, status: int, body: bytes = b"", of: Object | None = None, **more: str) -> None:
        self.send_response(status)
        if of is not None:
            more |= {"ETag": of.etag, "x-goog-generation": str(of.generation)}
            more |= {"Last-Modified": formatdate(of.generation / 1e6, usegmt=True)}
        for name, value in {"Content-Length": str(len(body)), **more}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _keep(self, key: str) -> None:
        if self.server.keeps_versions and (was := self.server.objects.get(key)) is not None:
            self.server.old[key, was.generation] = was

    def _write(self, key: str, data: bytes) -> None:
        wanted = self.headers.get("x-goog-if-generation-match")
        with self.server.writing:
            there = self.server.objects.get(key)
            if wanted is not None and not wanted.isdigit():
                return self._send(400, b"<Error><Code>InvalidArgument</Code></Error>")
            if wanted is not None and int(wanted) != (there.generation if there else 0):
                return self._send(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            self._keep(key)
            made = self.server.objects[key] = Object(data, next(self.server.numbers))
        xml = f"<CompleteMultipartUploadResult><ETag>{escape(made.etag)}</ETag></CompleteMultipartUploadResult>"
        return self._send(200, xml.encode() if self.command == "POST" else b"", made)

    def do_PUT(self) -> None:
        key, query, data = self._asked()
        if "uploadId" in query:
            self.server.uploads[query["uploadId"]][int(query["partNumber"])] = data
            return self._send(200, ETag=f'"{query["partNumber"]}"')
        if source := self.headers.get("x-goog-copy-source"):
            data = self.server.objects[unquote(source).partition("/")[2]].data
        return self._write(key, data)

    def do_POST(self) -> None:
        key, query, _ = self._asked()
        if "uploads" in query:
            name = str(next(self.server.numbers))
            self.server.uploads[name] = {}
            xml = f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
            return self._send(200, xml.encode())
        parts = self.server.uploads.pop(query["uploadId"])
        return self._write(key, b"".join(parts[number] for number in sorted(parts)))

    def do_DELETE(self) -> None:
        key, _, _ = self._asked()
        with self.server.writing:
            self._keep(key)
            was = self.server.objects.pop(key, None)
        self._send(404 if was is None else 204)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        key, query, _ = self._asked()
        if not key:
            return self._list(query)
        found = self.server.objects.get(key)
        if "generation" in query and (found is None or str(found.generation) != query["generation"]):
            found = self.server.old.get((key, int(query["generation"])))
        if found is None:
            return self._send(404, b"<Error><Code>NoSuchKey</Code></Error>")
        if (wanted := self.headers.get("Range")) is None or self.command == "HEAD":
            return self._send(200, found.data, found)
        begin, _, last = wanted.removeprefix("bytes=").partition("-")
        data = found.data[int(begin) : int(last) + 1 if last else None]
        said = f"bytes {begin}-{int(begin) + len(data) - 1}/{len(found.data)}"
        return self._send(206, data, found, Content_Range=said)

    def _list(self, query: dict[str, str]) -> None:
        prefix, behind = query.get("prefix", ""), query.get("continuation-token") or query.get("start-after") or ""
        keys = sorted(key for key in self.server.objects if key.startswith(prefix) and key > behind)
        folders, entries = dict[str, None](), list[str]()
        for key in keys:
            inside, slash, _ = key[len(prefix) :].partition("/") if query.get("delimiter") else (key, "", "")
            if slash:
                folders[f"{prefix}{inside}/"] = None
                continue
            of: Any = self.server.objects[key]
            entries.append(
                f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                f"<ETag>{escape(of.etag)}</ETag><Size>{len(of.data)}</Size></Contents>"
            )
        entries += [f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>" for folder in folders]
        self._send(200, f"<ListBucketResult>{''.join(entries)}</ListBucketResult>".encode())
