"""The live pages of an evaluation: results and curves, samples of every model, and two models side by side."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from engine.dataset import Dataset
from engine.one_state import Replaced
from schemas.files import shown_place
from schemas.lru import Lru
from viewer import evaluation_sections as sections
from viewer.cards import thumbnail
from viewer.database import STORE_LISTED_EVERY_S
from viewer.evaluated import Evaluation, Key, for_browsers, signature, unchanged
from viewer.images import MOST_THUMBNAIL_BYTES, PAGE, THUMBNAIL_PX
from viewer.site import Page, Site, jpeg

LOOK_EVERY_S = 1.0
"""The evaluation is checked for new parts at most this often."""
LIVE_EACH = 4
"""Pictures of a grid."""
MOST_CATEGORIES = 40
"""Categories of one page."""
SIDE_ORDERS = {"listed": "as they are listed", "left": "left fits better first", "right": "right fits better first"}


class LiveEvaluation:
    """The evaluation as it is now."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset, self._lock = dataset, threading.Lock()
        self._found, self._looked = Evaluation(dataset), time.monotonic()
        self._every_s = LOOK_EVERY_S if dataset.store is None else STORE_LISTED_EVERY_S

    def now(self, at_once: bool = False) -> Evaluation:
        """It, opened anew where parts were written since it was looked at last, or `at_once`."""
        with self._lock:
            if at_once or time.monotonic() - self._looked > self._every_s:
                if signature(self._dataset) != self._found.signature:
                    self._found = Evaluation(self._dataset)
                self._looked = time.monotonic()
            return self._found

    def close(self) -> None:
        """Nothing goes on in the background."""


class EvaluationPages(Site):
    frame, back = "evaluation_base.html.jinja", ("/", "Results")
    styles, script_file = ("style.css", "evaluation.css"), "evaluation.js"

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        self.live = LiveEvaluation(dataset)
        self._thumbnails = Lru[str, bytes | None](MOST_THUMBNAIL_BYTES, size_of=lambda jpeg: len(jpeg or b""))

    def routes(self) -> dict[str, Page]:
        pictures = "{model}/{row_id:int}/{number:int}"
        return {
            "/": self._of_now(self.index),
            "/samples": self._of_now(self.samples),
            "/side": self._of_now(self.side),
            f"/picture/{pictures}": self._of_now(self.picture),
            f"/thumb/{pictures}": self._of_now(self.thumbnail),
        }

    def _of_now(self, page: Callable[[Evaluation, Request], Response]) -> Page:
        def answer(request: Request) -> Response:
            evaluation = self.live.now()
            try:
                with unchanged(evaluation):
                    return page(evaluation, request)
            except Replaced:
                self.live.now(at_once=True)  # for the next try
                raise

        return answer

    def index(self, evaluation: Evaluation, request: Request) -> Response:
        found = {"results": sections.results(evaluation), "curves": sections.curves(evaluation)}
        return self.page(
            "evaluation_overview.html.jinja", sections=found, titles=sections.TITLES,
            numbers=sections.overview(evaluation), root=shown_place(evaluation.dataset.root),
        )  # fmt: skip

    def samples(self, evaluation: Evaluation, request: Request) -> Response:
        """A model's pictures: some of each category, or all of one of them, page by page."""
        asked = request.query_params
        model = _chosen("model", asked.get("model") or next(iter(evaluation.chosen_models), ""), evaluation.models)
        names = {category or "": category for category in evaluation.categories}
        chosen = asked.get("category")
        if chosen is None or not asked.get("order"):
            some = evaluation.categories[:MOST_CATEGORIES]
            found = sections.samples(evaluation, [model] if model else [], some, LIVE_EACH)
            return self.page("evaluation_samples.html.jinja", evaluation=evaluation, model=model, found=found,
                             orders=sections.ORDERS, order="", category=None, cards=None)  # fmt: skip
        order = _chosen("order", asked["order"], [*sections.ORDERS])
        category = names[_chosen("category", chosen, [*names])]
        if order in ("best", "worst") and not evaluation.ranked(model):
            order = "draw"
        keys = sections.keys(evaluation, model, category, order)
        begin = _whole("from", asked.get("from", "0"))
        return self.page(
            "evaluation_samples.html.jinja", evaluation=evaluation, model=model, found=None, orders=sections.ORDERS,
            order=order, category=category, cards=evaluation.cards(model, keys[begin : begin + PAGE]), num=len(keys),
            begin=begin, before=max(0, begin - PAGE) if begin else None,
            after=begin + PAGE if begin + PAGE < len(keys) else None,
        )  # fmt: skip

    def side(self, evaluation: Evaluation, request: Request) -> Response:
        """One prompt, and the pictures that two models drew for it."""
        asked, both = request.query_params, sections.two_models(evaluation) or [*evaluation.models[:1] * 2]
        left, right = (_chosen(name, asked.get(name) or (both[place] if both else ""), evaluation.models)
                       for place, name in enumerate(("left", "right")))  # fmt: skip
        text, order = asked.get("q", "").strip(), _chosen("order", asked.get("order") or "listed", [*SIDE_ORDERS])
        rows = sections.row_ids_of(evaluation, text, left, right, order)
        row_id = _whole("row", asked.get("row", "0"))
        at = rows.index(row_id) if row_id in rows else 0
        shown = sections.beside(evaluation, left, right, rows[at : at + 1] if left else [])
        return self.page(
            "evaluation_side.html.jinja", models=evaluation.models, left=left, right=right, text=text, order=order,
            orders=SIDE_ORDERS, found=shown[0] if shown else None, place=at, num=len(rows),
            before=rows[at - 1] if at else None, after=rows[at + 1] if at + 1 < len(rows) else None,
        )  # fmt: skip

    def picture(self, evaluation: Evaluation, request: Request) -> Response:
        found = evaluation.picture(*_named(request))
        shown = None if found is None else for_browsers(found[1])
        if shown is None:
            raise HTTPException(404, "there is no picture that can be read")
        return jpeg(shown[1], shown[0])

    def thumbnail(self, evaluation: Evaluation, request: Request) -> Response:
        found = evaluation.picture(*_named(request))
        if found is None:
            return jpeg(None)
        return jpeg(self._thumbnails.get(found[0], lambda: thumbnail(found[1], THUMBNAIL_PX)))


def _named(request: Request) -> tuple[str, Key]:
    named = request.path_params
    return named["model"], Key(named["row_id"], named["number"])


def _chosen(what: str, value: str, known: list[str]) -> str:
    if value not in known and (value or known):
        raise ValueError(f"{what}={value}: there is none of this name; there are {', '.join(known) or 'none yet'}")
    return value


def _whole(what: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 12):
        raise ValueError(f"{what}={value}: is no number")
    return int(value)
