"""The application: addresses, and the way of a request from text to a page or JSON.

Notable: what reads the lake runs on threads, so that one slow page keeps nobody else waiting; the event loop only
passes on. The same function makes a page and its JSON twin.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Final, TypeVar
from urllib.parse import quote

import anyio
from anyio import CapacityLimiter, create_task_group, fail_after, to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from proponent.schema.errors import InputError, ModelError, NotFoundError, ProponentError

from . import assets
from .explorer import Explorer
from .failures import RefusedError, failed, json_response
from .guard import COOKIE, LOGIN, Guard, local_path, pass_of, same_text
from .openapi import describe
from .page import API, METRICS, Action, Download, File, Form, Page
from .pages import ACTIONS, DOWNLOADS, PAGES
from .parameters import FieldError, as_texts, from_json, from_pairs, pairs_of
from .render import prepare, render
from .waiting import STOP_AGAIN_S, Waiting

T = TypeVar("T")

OPENAPI: Final = f"{API}/openapi.json"
_FOR_EVER: Final = {"Cache-Control": "public, max-age=31536000, immutable"}
_FORM: Final = "application/x-www-form-urlencoded"
_THREADS: Final = 8
_SLOW_THREADS: Final = 6
"""For what people may make as slow as they like; others wait, but for nothing else."""
_PIECE: Final = 1 << 18
"""Bytes of a file that are sent at a time."""
_LOOK_S: Final = 0.2
"""Between two looks at a job that is watched."""
_BEAT_S: Final = 10.0
"""Between two signs of life to somebody who watches a job in which nothing happens."""
_PASS_DAYS: Final = 30


def make_app(explorer: Explorer) -> ASGIApp:
    """Return the application of an explorer, which it closes when the server ends."""
    served = _Served(explorer)

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        await to_thread.run_sync(_warm, explorer)
        yield
        await to_thread.run_sync(explorer.close)

    routes = [
        Route(f"{assets.FOLDER}/{{name}}", served.asset),
        Route(OPENAPI, served.openapi),
        Route(f"{API}/jobs/{{job}}/events", served.events),
    ]
    if explorer.metrics is not None:
        routes.append(Route(METRICS, served.metrics))
    if explorer.settings.token is not None:
        routes += [Route(LOGIN, served.login_page), Route(LOGIN, served.login, methods=["POST"])]
    by_path: dict[str, tuple[list[Page], list[Action]]] = {}
    for page in PAGES:
        by_path.setdefault(page.path, ([], []))[0].append(page)
    for action in ACTIONS:
        by_path.setdefault(action.path, ([], []))[1].append(action)
    for path, (pages, actions) in by_path.items():
        # One route for each path, so that any other method is refused with those there are.
        methods = (["GET"] if pages else []) + (["POST"] if actions else [])
        routes.append(Route(path, served.on_page(pages, actions), methods=methods))
        routes.append(Route(API + path, served.on_api(pages, actions), methods=methods))
    routes += [Route(API + one.path, served.on_download(one)) for one in DOWNLOADS]
    # The router alone: Starlette's own handling of errors would answer before ours does.
    router = Router(routes, redirect_slashes=False, lifespan=lifespan)
    return Guard(_Named(router, served.failed), explorer.settings, served.failed)


def _warm(explorer: Explorer) -> None:
    """Do beforehand what the first readers would wait for: templates are compiled, and a session opens."""
    for page in PAGES:
        prepare(page.template)
    with suppress(ProponentError), explorer.session():  # a lake that cannot be read says so on every page
        pass


class _Named:
    """Turns whatever a request raises into an answer."""

    def __init__(self, app: ASGIApp, answer: Callable[[Request, Exception], Response]) -> None:
        self._app, self._answer = app, answer

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Let the application answer, or tell what went wrong."""
        scope["app"], begun = self._app, False  # without it, the router answers what it has no route for itself

        async def sent(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, sent)
        except ClientDisconnect:
            return
        except Exception as error:
            if begun or scope["type"] != "http":
                raise
            await self._answer(Request(scope), error)(scope, receive, send)


class _Served:
    """The endpoints of an explorer."""

    def __init__(self, explorer: Explorer) -> None:
        self._explorer = explorer
        self._limiter, self._slow_limiter = CapacityLimiter(_THREADS), CapacityLimiter(_SLOW_THREADS)
        with_token = explorer.settings.token is not None
        self._described = _tagged(json_response(describe(PAGES, ACTIONS, DOWNLOADS, with_token=with_token)))

    # Pages and actions

    def on_page(self, pages: Sequence[Page], actions: Sequence[Action]) -> Callable[[Request], Any]:
        """Return the endpoint of an address that people open."""

        async def endpoint(request: Request) -> Response:
            if request.method == "POST":
                return await self._act_on_form(request, actions[0])
            return await self._show(request, pages[0])

        return endpoint

    def on_api(self, pages: Sequence[Page], actions: Sequence[Action]) -> Callable[[Request], Any]:
        """Return the endpoint of its twin."""

        async def endpoint(request: Request) -> Response:
            if request.method == "POST":
                return await self._act_on_json(request, actions[0])
            return await self._tell(request, pages[0])

        return endpoint

    def on_download(self, download: Download) -> Callable[[Request], Any]:
        """Return the endpoint of a file."""

        async def endpoint(request: Request) -> Response:
            params = from_pairs(download.params, _query(request), request.path_params, strict=True)
            file = await self._on_thread(
                request, lambda: download.make(self._explorer, params), slow=True, time_s=download.time_s
            )
            headers = {
                "Content-Disposition": f'attachment; filename="{file.name}"',
                "Content-Length": str(file.size),
                "Cache-Control": "private, no-store",
            }
            return StreamingResponse(_pieces(file), media_type=file.media_type, headers=headers)

        return endpoint

    async def _show(self, request: Request, page: Page) -> Response:
        pairs, path = _query(request), request.path_params
        params = from_pairs(page.params, pairs, path, strict=False)
        if page.still is not None and _is_led_here(request):
            params = page.still(params)

        def made() -> Response:
            data, form = self._looked_at(page, params, pairs, path)
            if moved := page.moved(data):
                return RedirectResponse(moved, status_code=303)
            html = self._html(request, page, data, form)
            return _tagged(HTMLResponse(html, status_code=422 if form.errors else 200))

        answer = await self._on_thread(request, lambda: self._kept(request, page, params, made), slow=page.slow(params))
        return _unless_known(request, answer)

    def _looked_at(
        self, page: Page, params: Any, pairs: list[tuple[str, str]], path: dict[str, str]
    ) -> tuple[Any, Form]:
        """Return what a page shows without the fields that it refuses, and its form, which says what is wrong."""
        form = Form(as_texts(params))
        while True:
            try:
                return page.load(self._explorer, params), form
            except FieldError as error:
                left = [pair for pair in pairs if pair[0] != error.field]
                if len(left) == len(pairs):
                    raise
                errors = form.errors | {error.field: str(error)}
                form = replace(form, errors=errors, place=getattr(error, "place", None))
                # A page that does something shows the field that is wrong, and does nothing.
                still = page.still
                params = still(params) if still else from_pairs(page.params, left, path, strict=False)
                pairs = left

    async def _tell(self, request: Request, page: Page) -> Response:
        params = from_pairs(page.params, _query(request), request.path_params, strict=True)

        def made() -> Response:
            return _tagged(json_response(page.load(self._explorer, params)))

        answer = await self._on_thread(request, lambda: self._kept(request, page, params, made), slow=page.slow(params))
        return _unless_known(request, answer)

    def _kept(self, request: Request, page: Page, params: Any, make: Callable[[], Response]) -> Response:
        """Return a page as it was made before, or make it."""
        state = page.keeps(self._explorer, params)
        if state is None:
            return make()
        # As the router and the parameters have them: `request.url` drops what is behind a #, which would keep this page
        # for those who ask for another one.
        return self._explorer.kept_page((request.scope["path"], request.scope["query_string"]), state, make)

    async def _act_on_form(self, request: Request, action: Action) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
            raise RefusedError(415, f"a form is sent as {_FORM}; JSON goes to {API}{request.url.path}")
        body = await request.body()
        try:
            pairs = pairs_of(body.decode("ascii"))
        except UnicodeDecodeError as error:
            raise FieldError("", "a form is sent percent-encoded") from error
        try:
            fields = from_pairs(action.fields, pairs, request.path_params, strict=False)
            answer = await self._on_thread(request, lambda: self._act(action, fields), slow=action.slow(fields))
        except NotFoundError:
            raise
        except (InputError, ModelError) as error:
            return await self._show_again(request, action.page, pairs, error)
        if action.then is not None:
            return RedirectResponse(action.then(answer), status_code=303)
        form = Form(dict(pairs))
        html = await self._on_thread(request, lambda: self._html(request, action.page, answer, form))
        return HTMLResponse(html)

    async def _show_again(
        self, request: Request, page: Page, pairs: list[tuple[str, str]], error: Exception
    ) -> Response:
        """Show a page with what was typed, and with what is wrong beside its field."""
        form = Form(dict(pairs), {getattr(error, "field", ""): str(error)}, getattr(error, "place", None))

        def made() -> str:
            try:
                params = from_pairs(page.params, pairs, request.path_params, strict=False)
            except FieldError:
                params = from_pairs(page.params, [], request.path_params, strict=False)
            if page.still is not None:
                params = page.still(params)
            return self._html(request, page, page.load(self._explorer, params), form)

        return HTMLResponse(await self._on_thread(request, made), status_code=422)

    async def _act_on_json(self, request: Request, action: Action) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise RefusedError(415, "the API takes application/json")
        fields = from_json(action.fields, await request.body(), request.path_params)
        answer = await self._on_thread(request, lambda: self._act(action, fields), slow=action.slow(fields))
        return json_response(answer, status=action.status)

    def _act(self, action: Action, fields: Any) -> Any:
        if action.writes and self._explorer.settings.read_only:
            raise RefusedError(403, "this explorer is read-only; to ask, start `proponent serve` without --read-only")
        return action.act(self._explorer, fields)

    def _html(self, request: Request, page: Page, data: Any, form: Form) -> str:
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        values = self._site(request) | {
            "title": page.title,
            "page": page,
            "data": data,
            "form": form,
            "here": here,
            "twin": API + here,
        }
        return render(page.template, values)

    def _site(self, request: Request) -> dict[str, Any]:
        """Return what every page shows around its own."""
        path = request.url.path
        return {
            "lake": self._explorer.name,
            "read_only": self._explorer.settings.read_only,
            "has_lake": self._explorer.has_lake,
            "has_token": self._explorer.settings.token is not None,
            "nav": [(page.nav, page.path, page.path == path) for page in PAGES if page.nav is not None],
        }

    async def _on_thread(
        self, request: Request, work: Callable[[], T], *, slow: bool = False, time_s: float | None = None
    ) -> T:
        """Return what some work returns, which is stopped when nobody waits for it any more."""
        waiting = Waiting()
        failures: list[Exception] = []  # of which the group would make one of its own
        async with create_task_group() as group:
            group.start_soon(_stop_when_left, request, waiting, failures)
            try:
                with fail_after(time_s or self._explorer.settings.page_time_s):
                    answer = await to_thread.run_sync(
                        lambda: waiting.for_(work),
                        limiter=self._slow_limiter if slow else self._limiter,
                        abandon_on_cancel=True,
                    )
            except Exception as error:
                failures.append(error)
                waiting.give_up()
            group.cancel_scope.cancel()
        if failures:
            raise failures[0]
        return answer

    # The rest

    def failed(self, request: Request, error: Exception) -> Response:
        """Tell what went wrong."""
        return failed(request, error, self._site(request))

    async def asset(self, request: Request) -> Response:
        """Send a file of styles or scripts."""
        found = assets.by_address().get(request.path_params["name"])
        if found is None:
            raise RefusedError(404, "there is no such file; reload the page")
        return Response(found.content, media_type=found.media_type, headers=_FOR_EVER)

    async def openapi(self, request: Request) -> Response:
        """Describe the API."""
        return _unless_known(request, self._described)

    async def metrics(self, request: Request) -> Response:
        """Send what Prometheus asks for."""
        counted = self._explorer.metrics
        assert counted is not None
        text, kind = await self._on_thread(request, counted.text)
        return Response(text, headers={"Content-Type": kind, "Cache-Control": "no-store"})

    async def events(self, request: Request) -> Response:
        """Tell of a job as it goes on, as server-sent events, until it ends."""
        job_id = request.path_params["job"]
        self._explorer.jobs.view(job_id)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._watched(job_id), media_type="text/event-stream", headers=headers)

    async def _watched(self, job_id: str) -> AsyncIterator[bytes]:
        last, still = None, 0.0
        while not self._explorer.closing.is_set():
            view = self._explorer.jobs.view(job_id)
            if view != last:
                last, still = view, 0.0
                yield b"event: job\ndata: " + bytes(json_response(view).body) + b"\n\n"
            elif still >= _BEAT_S:
                still = 0.0
                yield b": still here\n\n"
            if view.state not in {"waiting", "running"}:
                return
            await anyio.sleep(_LOOK_S)
            still += _LOOK_S

    async def login_page(self, request: Request) -> Response:
        """Ask for the token."""
        return self._login(request, local_path(request.query_params.get("next", "/")), "")

    async def login(self, request: Request) -> Response:
        """Look at the token, and hand out the cookie."""
        fields = dict(pairs_of((await request.body()).decode("ascii", "replace")))
        wanted, token = local_path(fields.get("next", "/")), self._explorer.settings.token or ""
        if not same_text(fields.get("token", ""), token):
            return self._login(request, wanted, "This is not the token that the explorer was started with.")
        answer = RedirectResponse(quote(wanted, safe="/?&=%+:,;@!$'()*~-._"), status_code=303)
        answer.set_cookie(
            COOKIE,
            pass_of(token),
            max_age=_PASS_DAYS * 86_400,
            httponly=True,
            samesite="lax",  # a link that somebody shares opens; forms of other sites come without it
            secure=request.url.scheme == "https",
        )
        return answer

    def _login(self, request: Request, wanted: str, error: str) -> Response:
        values = {**self._site(request), "title": "Token", "nav": [], "wanted": wanted, "error": error}
        return HTMLResponse(render("login.html.j2", values), status_code=401 if error else 200)


def _query(request: Request) -> list[tuple[str, str]]:
    try:
        return pairs_of(request.scope["query_string"].decode("ascii"))
    except UnicodeDecodeError as error:
        raise FieldError("", "the address is not percent-encoded") from error


def _is_led_here(request: Request) -> bool:
    """Whether another site's page leads here, as far as the browser tells."""
    return request.headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}


async def _stop_when_left(request: Request, waiting: Waiting, failures: list[Exception]) -> None:
    """Stop what works for a request whose reader has gone, or which sends more than it may."""
    try:
        while (await request.receive())["type"] != "http.disconnect":
            pass
    except RefusedError as error:
        failures.append(error)
    while True:  # until the work has ended, which ends this, too
        waiting.stop()
        await anyio.sleep(STOP_AGAIN_S)


def _pieces(file: File) -> Iterator[bytes]:
    with file.content as content:
        while piece := content.read(_PIECE):
            yield piece


def _tagged(answer: Response) -> Response:
    """Return an answer with a hash of it, by which browsers know it again."""
    answer.headers["ETag"] = f'"{hashlib.sha256(answer.body).hexdigest()[:24]}"'
    return answer


def _unless_known(request: Request, answer: Response) -> Response:
    """Return an answer, or word that the browser's own copy is still right."""
    tag = answer.headers.get("ETag")
    known = request.headers.get("if-none-match", "")
    if tag is not None and tag in {one.strip().removeprefix("W/") for one in known.split(",")}:
        return Response(status_code=304, headers={"ETag": tag})
    # A new one, since the guard adds headers, and what is kept is sent to many.
    return Response(answer.body, answer.status_code, dict(answer.headers))
