"""A store that answers each request after a delay, and counts them: enough of S3 for a driver, nothing on a disk.

`python -m benchmarks.slow_store PORT_FILE DELAY_MS FILE` serves the objects of a JSON file, {"templates": {name:
base64}, "keys": {key: name}}: many keys hold the same bytes. It is a process of its own, so that it takes no memory and
no time of the driver.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import subprocess
import sys
import time
import urllib.request
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote
from xml.sax.saxutils import escape

from aiohttp import web

PAGE = 1000
"""Keys of one answer to a listing, as in S3."""
BUCKET = "made"
_UPLOAD = (
    f"<InitiateMultipartUploadResult><Bucket>{BUCKET}</Bucket><Key>{{key}}</Key><UploadId>1</UploadId>"
    "</InitiateMultipartUploadResult>"
)
_WHOLE = (
    f"<CompleteMultipartUploadResult><Location>/</Location><Bucket>{BUCKET}</Bucket><Key>{{key}}</Key>"
    "<ETag>&quot;{etag}&quot;</ETag></CompleteMultipartUploadResult>"
)


class SlowStore:
    """The objects, and the requests for them."""

    def __init__(self, delay_s: float, templates: Mapping[str, bytes], keys: Mapping[str, str]) -> None:
        self._delay_s, self._templates, self._keys = delay_s, dict(templates), dict(keys)
        self._sorted: list[str] | None = None
        self._pieces: dict[str, dict[int, bytes]] = {}
        self.requests: Counter[str] = Counter()

    def app(self) -> web.Application:
        """The server."""
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/admin/{what}", self._admin)
        app.router.add_route("*", f"/{BUCKET}", self._bucket)
        app.router.add_route("*", f"/{BUCKET}/{{key:.*}}", self._object)
        return app

    async def _admin(self, request: web.Request) -> web.Response:
        """Outside the count: add keys, take out those below one that ends in a slash, and tell the counts."""
        if request.method == "POST":
            given = await request.json()
            gone = tuple(key for key in given if key.endswith("/"))
            self._keys = {key: name for key, name in self._keys.items() if not gone or not key.startswith(gone)}
            self._keys |= {key: name for key, name in given.items() if not key.endswith("/")}
            self._sorted = None
        counts = dict(self.requests)
        self.requests.clear()
        return web.json_response(counts)

    async def _waited(self, what: str) -> None:
        self.requests[what] += 1
        await asyncio.sleep(self._delay_s)

    async def _bucket(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            await self._waited("DELETE")
            gone = [part.partition("</Key>")[0] for part in (await request.text()).split("<Key>")[1:]]
            for key in gone:
                self._keys.pop(key, None)
            self._sorted = None
            said = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in gone)
            return web.Response(text=f"<DeleteResult>{said}</DeleteResult>", content_type="application/xml")
        await self._waited("LIST")
        prefix, query = request.query.get("prefix", ""), request.query
        token = query.get("continuation-token") or query.get("start-after", "")
        return web.Response(text=self._page(prefix, token, "delimiter" in query), content_type="application/xml")

    def _page(self, prefix: str, token: str, in_folder: bool) -> str:
        if self._sorted is None:
            self._sorted = sorted(self._keys)
        found, folders, last = list[str](), list[str](), ""
        place = bisect_right(self._sorted, token) if token else bisect_left(self._sorted, prefix)
        while place < len(self._sorted) and (key := self._sorted[place]).startswith(prefix):
            if len(found) + len(folders) == PAGE:
                break
            folder, slash, _ = key[len(prefix) :].partition("/")
            if in_folder and slash:
                folders.append(prefix + folder + "/")
                last = folders[-1] + "\U0010ffff"
                place = bisect_left(self._sorted, last)
            else:
                found.append(key)
                last = key
                place += 1
        more = place < len(self._sorted) and self._sorted[place].startswith(prefix)
        objects = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;{self._keys[key]}&quot;</ETag><Size>{len(self._templates[self._keys[key]])}</Size></Contents>"
            for key in found
        )
        prefixes = "".join(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders)
        following = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if more else ""
        return (
            f"<ListBucketResult><Name>{BUCKET}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(found)}</KeyCount>"
            f"<MaxKeys>{PAGE}</MaxKeys><IsTruncated>{str(more).lower()}</IsTruncated>{following}{objects}{prefixes}"
            "</ListBucketResult>"
        )

    async def _object(self, request: web.Request) -> web.Response:
        key = unquote(request.match_info["key"])
        await self._waited(request.method)
        if request.method == "POST" and "uploads" in request.query:
            self._pieces[key] = {}
            return web.Response(text=_UPLOAD.format(key=escape(key)), content_type="application/xml")
        if request.method == "PUT" and "partNumber" in request.query:
            self._pieces[key][int(request.query["partNumber"])] = await request.read()
            return web.Response(headers={"ETag": f'"{request.query["partNumber"]}"'})
        if request.method in ("PUT", "POST"):
            pieces = self._pieces.pop(key, {})
            data = await request.read() if request.method == "PUT" else b"".join(pieces[n] for n in sorted(pieces))
            name = hashlib.sha256(data).hexdigest()
            refused = "If-None-Match" in request.headers and key in self._keys
            wanted = request.headers.get("If-Match")
            if refused or (wanted is not None and wanted.strip('"') != self._keys.get(key)):
                return web.Response(status=412, text="<Error><Code>PreconditionFailed</Code></Error>")
            if key not in self._keys:
                self._sorted = None
            self._templates[name], self._keys[key] = data, name
            if request.method == "POST":
                return web.Response(text=_WHOLE.format(key=escape(key), etag=name), content_type="application/xml")
            return web.Response(headers={"ETag": f'"{name}"'})
        if request.method == "DELETE":
            self._keys.pop(key, None)
            self._sorted = None
            return web.Response(status=204)
        if key not in self._keys:
            return web.Response(status=404, text="<Error><Code>NoSuchKey</Code></Error>")
        name = self._keys[key]
        data, status = self._templates[name], 200
        headers = {"ETag": f'"{name}"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        if (span := request.headers.get("Range")) is not None:
            begin, _, end = span.removeprefix("bytes=").partition("-")
            first, behind = int(begin), min(int(end or len(data)) + 1, len(data))
            headers["Content-Range"] = f"bytes {first}-{behind - 1}/{len(data)}"
            data, status = data[first:behind], 206
        if request.method == "HEAD":
            return web.Response(headers=headers | {"Content-Length": str(len(data))})
        return web.Response(body=data, status=status, headers=headers)


@contextmanager
def serving(folder: Path, templates: Mapping[str, bytes], keys: Mapping[str, str], delay_ms: float) -> Iterator[str]:
    """Serve objects from a process of its own; the address of the server."""
    path = folder / "objects.json"
    encoded = {name: base64.b64encode(data).decode() for name, data in templates.items()}
    path.write_text(json.dumps({"templates": encoded, "keys": dict(keys)}), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.slow_store", str(folder / "port"), str(delay_ms), str(path)]
    process = subprocess.Popen(command)
    try:
        while not (folder / "port").is_file():
            assert process.poll() is None, "the server has ended"
            time.sleep(0.05)
        yield (folder / "port").read_text(encoding="utf-8")
    finally:
        process.kill()
        process.wait()


def asked(url: str, keys: Mapping[str, str] | None = None) -> dict[str, int]:
    """The requests since the last call, by kind; `keys` are added, see `SlowStore._admin`."""
    data = None if keys is None else json.dumps(dict(keys)).encode()
    request = urllib.request.Request(f"{url}/admin/counts", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        counts: dict[str, int] = json.load(answer)
    return counts


async def _serve(port_file: Path, delay_s: float, objects: Path) -> None:
    given = json.loads(objects.read_text(encoding="utf-8"))
    templates = {name: base64.b64decode(data) for name, data in given["templates"].items()}
    runner = web.AppRunner(SlowStore(delay_s, templates, given["keys"]).app(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    aside = port_file.with_suffix(".aside")
    aside.write_text(f"http://127.0.0.1:{runner.addresses[0][1]}", encoding="utf-8")
    aside.rename(port_file)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), float(sys.argv[2]) / 1000, Path(sys.argv[3])))
