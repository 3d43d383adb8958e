"""The server of `sigma browse`: pages over one dataset or evaluation, by default for browsers on this machine only."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import NamedTuple

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from curation.selection.thresholds import rules_on_record
from engine.catalog import require_dataset
from engine.dataset import Dataset
from engine.one_state import Replaced
from schemas.files import shown_place
from viewer import filters, images, sections, thresholds
from viewer.database import BACKGROUND_SECONDS, Database, signature
from viewer.evaluation_pages import EvaluationPages
from viewer.export import FORMATS, exported
from viewer.figures import NOUNS_TABLE
from viewer.filters import Filter
from viewer.guard import LOOPBACK, Guard, is_loopback
from viewer.site import Page, Site, jpeg

LOOK_EVERY_S = 1.0
"""The dataset is checked for new tables at most this often."""
PAINT_S = 0.3
"""The overview waits this long for the dataset to be open and for its sections; the script fetches the others."""
NUM_NOUNS = 200


class State(NamedTuple):
    """One state of a dataset, opened."""

    database: Database
    overview: sections.Overview
    thumbnails: images.Thumbnails


class Live:
    """The dataset as it is now: opened in the background, and anew when its tables change."""

    def __init__(self, dataset: Dataset) -> None:
        """Begin to open it. Raises ValueError: the folder is no dataset, or it is seen soon that a file of it is
        damaged."""
        require_dataset(dataset)
        self._dataset, self._lock, self._looked = dataset, threading.Lock(), time.monotonic()
        self._opener = ThreadPoolExecutor(max_workers=1, thread_name_prefix="opening")
        self._opening = self._opener.submit(self._open)
        with suppress(TimeoutError):
            self._opening.result(PAINT_S)

    def _open(self) -> State:
        database = Database(self._dataset)
        return State(database, sections.Overview(database), images.Thumbnails())

    def _look(self) -> Future[State]:
        """Begin to open it anew if it has changed, or if it could not be opened before."""
        with self._lock:
            before = self._opening
            if before.done() and (before.exception() or self._is_other(before.result().database)):
                _stop(before)
                self._opening = self._opener.submit(self._open)
            return self._opening

    def _is_other(self, database: Database) -> bool:
        if not database.replaced and time.monotonic() - self._looked <= LOOK_EVERY_S:
            return False
        self._looked = time.monotonic()
        return signature(self._dataset) != database.signature

    def now(self) -> State:
        """The state that there is now, once it is open. Raises ValueError: it cannot be opened; the next request tries
        again."""
        return self._look().result()

    def sections(self, seconds: float) -> dict[str, sections.Content | str | None]:
        """The sections of the overview that are ready within some seconds; None for the others."""
        until, opening = time.monotonic() + seconds, self._look()
        try:
            overview = opening.result(seconds).overview
        except TimeoutError:
            return dict.fromkeys(sections.SECTIONS)
        return overview.ready(until - time.monotonic())

    def close(self) -> None:
        self._opener.shutdown(wait=False)
        self._opening.add_done_callback(lambda opening: _stop(opening, at_once=True))


def _stop(opening: Future[State], at_once: bool = False) -> None:
    """Stop the background of a state; what is asked of it may still be answered, but for `at_once`."""
    if not opening.exception():
        database, overview, _ = opening.result()
        overview.close()
        (database.close if at_once else database.stop_searches)()


class Pages(Site):
    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        self.live, self._root = Live(dataset), shown_place(dataset.root)

    def routes(self) -> dict[str, Page]:
        return {
            "/": self.index,
            "/overview/{name}": self.section,
            "/images": self.images,
            "/images.sql": self.sql,
            "/images.{form:str}": self.export,
            "/images/{row_id:int}": self.image,
            "/image/{row_id:int}": self.proxy,
            "/thumb/{row_id:int}": self.thumbnail,
            "/nouns": self.nouns,
            "/nouns/{noun:path}": self.noun,
            "/thresholds": self.thresholds,
        }

    def index(self, request: Request) -> Response:
        """The overview: sections that are ready; the script fetches the others."""
        found = self.live.sections(PAINT_S)
        titles = {name: section.title for name, section in sections.SECTIONS.items()}
        return self.page("overview.html.jinja", sections=found, titles=titles, root=self._root)

    def section(self, request: Request) -> Response:
        """One section by itself; the answer waits for it."""
        name = request.path_params["name"]
        if name not in sections.SECTIONS:
            raise HTTPException(404)
        live = self.live.now()
        content = live.overview.get(name, live.database.seconds)
        return self.page(
            "section.html.jinja", 200 if content is not None else 202, part=name, content=content,
            title=sections.SECTIONS[name].title, bare=request.headers.get("x-part") == "1",
        )  # fmt: skip

    def images(self, request: Request) -> Response:
        wanted = Filter.of(request.query_params.multi_items())
        found = images.page(self.live.now().database, wanted)
        return self.page(
            "images.html.jinja", wanted=wanted, found=found, sql=wanted.sql(), most=images.MOST_COUNTED,
            columns=filters.FIELDS, operators=filters.OPERATORS, sorts=filters.SORTS.values(),
            ready=filters.READY,
        )  # fmt: skip

    def sql(self, request: Request) -> Response:
        text = Filter.of(request.query_params.multi_items()).sql()
        disposition = {"content-disposition": 'attachment; filename="filter.sql"'}
        return PlainTextResponse(text.encode("utf-8", errors="replace"), headers=disposition)

    def export(self, request: Request) -> Response:
        """The rows of the filter as CSV or JSON, all of them."""
        form = request.path_params["form"]
        if form not in ("csv", "json"):
            raise HTTPException(404)
        sql = Filter.of(request.query_params.multi_items()).sql()
        with ExitStack() as opened:
            cursor = opened.enter_context(self.live.now().database.cursor(BACKGROUND_SECONDS))
            chunks = exported(cursor.execute(sql), form)
            until_sent = opened.pop_all()

        def sent() -> Iterator[bytes]:
            with until_sent:
                yield from chunks

        disposition = {"content-disposition": f'attachment; filename="images.{form}"'}
        return StreamingResponse(sent(), media_type=FORMATS[form], headers=disposition)

    def image(self, request: Request) -> Response:
        """One input: its rows over all tables, and its history."""
        found = images.details(self.live.now().database, request.path_params["row_id"])
        if found is None:
            raise HTTPException(404, "nothing was listed under this number")
        return self.page("image.html.jinja", found=found, card=found.card)

    def proxy(self, request: Request) -> Response:
        return jpeg(images.proxy(self.live.now().database, request.path_params["row_id"]))

    def thumbnail(self, request: Request) -> Response:
        live = self.live.now()
        return jpeg(live.thumbnails.of(live.database, request.path_params["row_id"]))

    def nouns(self, request: Request) -> Response:
        database = self.live.now().database
        text = request.query_params.get("q", "").strip()
        sort = request.query_params.get("sort", "mix")
        if sort not in ("raw", "synthetic", "mix"):
            raise ValueError("nouns are sorted by raw, synthetic or mix")
        found = None
        if database.ready(NOUNS_TABLE):
            found = database.rows(
                f"SELECT * FROM {NOUNS_TABLE} WHERE contains(lower(noun), lower($text)) "
                f"ORDER BY {sort}_images DESC, noun",
                {"text": text},
                limit=NUM_NOUNS,
            )
        return self.page("nouns.html.jinja", found=found, text=text, sort=sort, most=NUM_NOUNS)

    def noun(self, request: Request) -> Response:
        database = self.live.now().database
        wanted = Filter.of([("noun", request.path_params["noun"]), *request.query_params.multi_items()])
        counts = None
        if database.ready(NOUNS_TABLE):
            counts = database.rows(f"SELECT * FROM {NOUNS_TABLE} WHERE noun = $noun", {"noun": wanted.noun})
        found = images.page(database, wanted)
        return self.page("noun.html.jinja", wanted=wanted, found=found, counts=counts, sql=wanted.sql(),
                          most=images.MOST_COUNTED)  # fmt: skip

    def thresholds(self, request: Request) -> Response:
        """The counts and pictures that other thresholds would give."""
        database = self.live.now().database
        now = rules_on_record(database.dataset)
        rules = thresholds.tried(request.query_params, now)
        return self.page(
            "thresholds.html.jinja", sliders=thresholds.sliders(rules, now), found=thresholds.outcome(database, rules)
        )  # fmt: skip


def make_app(dataset: Dataset, hosts: Iterable[str] = LOOPBACK) -> Starlette:
    """The pages of a dataset or an evaluation as an ASGI application; `app.state.pages.live.close()` stops its
    background. `hosts`: names that a Host header may give. Raises ValueError: the folder is neither."""
    pages = EvaluationPages(dataset) if dataset.is_evaluation else Pages(dataset)

    def get(path: str, page: Page) -> Route:
        def answer(request: Request) -> Response:
            with suppress(Replaced):
                return page(request)
            return page(request)  # of the tables that are there now

        return Route(path, answer)

    app = Starlette(
        routes=[get(path, page) for path, page in (pages.routes() | pages.shared()).items()],
        exception_handlers={ValueError: pages.refused, HTTPException: pages.refused},
    )
    app.add_middleware(Guard, hosts=tuple(hosts))
    app.state.pages = pages
    return app


def serve(
    dataset: Dataset,
    host: str = "127.0.0.1",
    port: int = 8000,
    allow_hosts: Iterable[str] = (),
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve until interrupted.

    Args:
        host: the address to listen on. Beyond loopback only the names in `allow_hosts` are answered.
        port: 0 takes a free one.
        on_ready: gets the address of the pages once the port is open.

    Raises:
        ValueError: no dataset, no such address, the port is taken, or another address without `allow_hosts`.
    """
    allowed = tuple(allow_hosts)
    if not is_loopback(host) and not allowed:
        raise ValueError(
            f"{host} can be reached from other machines; name the Host that they will ask for: --allow-host"
        )
    app = make_app(dataset, (*LOOPBACK, *allowed) if is_loopback(host) else allowed)
    try:
        with _listen(host, port) as listener:
            shown = f"[{host}]" if ":" in host else host
            on_ready(f"http://{shown}:{listener.getsockname()[1]}/")
            config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False,
                                    proxy_headers=False, timeout_graceful_shutdown=1, lifespan="off")  # fmt: skip
            uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        return
    finally:
        app.state.pages.live.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()  # a browser that is faster than the server waits
    except (OSError, UnicodeError) as error:  # a name may be too long for one
        why = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"cannot listen on {host}, port {port}: {why}; name another with --port or --host") from None
    return listener
