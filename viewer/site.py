"""What the live pages of a dataset and those of an evaluation share: frame, style, script, and the page of an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from engine.dataset import Dataset
from engine.one_state import Replaced
from viewer.database import TooSlow
from viewer.rendering import TEMPLATES, environment

Page = Callable[[Request], Response]


class Site:
    """Pages with one frame; the default is that of a dataset."""

    frame = "base.html.jinja"
    styles: tuple[str, ...] = ("style.css",)
    script_file = "browse.js"
    back = ("/images", "All images")
    """Where the page of an error leads, and what it calls it."""

    def __init__(self, dataset: Dataset) -> None:
        self._name = dataset.root.name or str(dataset.root)
        self._templates = environment(live=True)
        for template in self._templates.list_templates(["jinja"]):
            self._templates.get_template(template)  # compiled now, not while the first page is waited for
        self._style = "".join(TEMPLATES.joinpath(name).read_text(encoding="utf-8") for name in self.styles)
        self._script = TEMPLATES.joinpath(self.script_file).read_text(encoding="utf-8")

    def page(self, template: str, status: int = 200, **content: Any) -> Response:
        page = self._templates.get_template(template).render(name=self._name, **content)
        return Response(page.encode("utf-8", errors="replace"), status, media_type="text/html; charset=utf-8")

    def shared(self) -> dict[str, Page]:
        """The pages that every site has."""
        return {"/style.css": self.style, "/browse.js": self.script, "/favicon.ico": self.nothing}

    def style(self, request: Request) -> Response:
        return Response(self._style, media_type="text/css")

    def script(self, request: Request) -> Response:
        return Response(self._script, media_type="text/javascript")

    def nothing(self, request: Request) -> Response:
        """The answer to a request for an icon: there is none."""
        return Response(status_code=204)

    def refused(self, request: Request, error: Exception) -> Response:
        """The page of an error: 400 for a wrong query, 503 for one that takes too long or while a build
        replaces tables, 404."""
        if isinstance(error, HTTPException):
            status, text = error.status_code, str(error.detail)
        else:
            status, text = 503 if isinstance(error, TooSlow | Replaced) else 400, str(error)
        return self.page("refused.html.jinja", status, code=status, text=text, frame=self.frame, back=self.back)


def jpeg(found: bytes | None, media_type: str = "image/jpeg") -> Response:
    """The answer that is a picture. Raises HTTPException: there is none."""
    if found is None:
        raise HTTPException(404, "there is no picture")
    return Response(found, media_type=media_type, headers={"cache-control": "private, max-age=60"})
