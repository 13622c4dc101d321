"""The pages by their addresses."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from sidelight.exceptions import QueryError, SidelightError
from sidelight.page import answers, looks
from sidelight.page.beside import Beside
from sidelight.page.examination import Examination
from sidelight.page.live import stream
from sidelight.store import Store

_PATIENCE: Final = 0.8  # seconds that a page waits for the doctor
_PAGES: Final = {
    "now": "/",
    "artifacts": "/artifacts",
    "flow": "/flow",
    "points": "/points",
    "health": "/health",
}


class Site:
    """The pages of one store; see `serve` for the arguments."""

    def __init__(
        self,
        store: Store,
        beside: Beside,
        is_ending: Callable[[], bool] = lambda: False,
    ) -> None:
        self._store = store
        self._beside = beside
        self._examination = Examination(beside.health)
        self._is_ending = is_ending
        self._templates = Environment(
            loader=PackageLoader("sidelight.page"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        looks.register(self._templates)
        self._templates.globals["days"] = answers.DAYS
        self._event = self._templates.get_template("event.html")

    def application(self) -> Starlette:
        """Build the ASGI application."""
        return Starlette(
            routes=[
                Route("/", self._now),
                Route("/artifacts", self._search),
                Route("/artifact/{artifact_id:path}", self._artifact),
                Route("/flow", self._flow),
                Route("/points", self._points),
                Route("/health", self._findings),
                Route("/live", self._live),
                Mount("/static", StaticFiles(packages=[("sidelight.page", "static")])),
            ],
            exception_handlers={HTTPException: self._missing, SidelightError: self._refused},
        )

    def _page(self, name: str, shown: dict[str, Any], status: int = 200) -> Response:
        template = self._templates.get_template(f"{name}.html")
        text = template.render(page=name, pages=_PAGES, store=self._store.url, **shown)
        return HTMLResponse(text, status_code=status)

    # Starlette runs functions that are not coroutines in threads, so that a slow store stops no
    # other page.

    def _now(self, _: Request) -> Response:
        return self._page("now", answers.now(self._store, self._beside))

    def _search(self, request: Request) -> Response:
        wanted = request.query_params.get("q", "").strip()
        if wanted and answers.knows(self._store, wanted):
            return RedirectResponse(f"/artifact/{quote(wanted, safe='')}", status_code=303)
        return self._page("artifacts", answers.search(self._store, wanted))

    def _artifact(self, request: Request) -> Response:
        artifact_id = request.path_params["artifact_id"]
        shown = answers.artifact(self._store, self._beside, artifact_id)
        if not shown["bars"]:
            raise HTTPException(404, f"The store holds no event of the artifact {artifact_id}")
        trace, address = None, self._beside.trace_url
        if address is not None and shown["trace_id"] is not None:
            trace = address.replace("{trace_id}", quote(shown["trace_id"], safe=""))
        return self._page("artifact", {**shown, "trace": trace})

    def _flow(self, request: Request) -> Response:
        asked = request.query_params.get("steps", "")
        shown = answers.flow(self._store, self._beside, asked)
        return self._page("flow", shown)

    def _points(self, _: Request) -> Response:
        return self._page("points", answers.points(self._store, self._beside))

    def _findings(self, _: Request) -> Response:
        return self._page("health", {"health": self._examination.look(_PATIENCE)})

    def _live(self, request: Request) -> Response:
        last = request.headers.get("last-event-id") or request.query_params.get("after", "")
        after = 0
        with suppress(ValueError):
            after = int(last)
        events = stream(
            self._store, after, lambda event: self._event.render(event=event), self._is_ending
        )
        return StreamingResponse(events, media_type="text/event-stream")

    def _missing(self, _: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 500)
        detail = getattr(error, "detail", "the page failed")
        return self._page("error", {"problem": detail, "again": None}, status)

    def _refused(self, request: Request, error: Exception) -> Response:
        if isinstance(error, QueryError):
            return self._page("error", {"problem": error, "again": request.url.path}, 400)
        return self._page("error", {"problem": error, "again": None}, 503)
