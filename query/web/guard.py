"""Who is let in, and what they may send: before any page, and on every answer.

- Host: browsers are told by a page of somebody else's that its name is now this address (DNS rebinding); so only names
  that are this machine's are answered. An address in numbers cannot be rebound.
- Origin: another site may not send forms here, and may not read the API.
- Token: compared in constant time, kept in a cookie that scripts cannot read and other sites' forms do not carry.
- Sizes, rates and times are bounded; what is answered may load nothing from anywhere else.
"""

import hashlib
import hmac
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from proponent.schema.settings import ServeSettings

from .assets import FOLDER
from .failures import RefusedError, is_api

COOKIE: Final = "proponent"
LOGIN: Final = "/login"
MOST_URL: Final = 16_384
"""Bytes of a path with its query string."""
LOGINS_A_MINUTE: Final = 10
_MOST_CLIENTS: Final = 10_000
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer, forms would be sent without their origin
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


class Guard:
    """Wraps the application. `failed` makes the answer to a request that is refused."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, failed: Callable[[Request, Exception], Response]) -> None:
        self._app = app
        self._settings = settings
        self._failed = failed
        self._names = {"localhost", *(name.lower() for name in settings.names)}
        if not settings.is_local:
            self._names |= {socket.gethostname().lower(), settings.host.lower()}
        self._requests = Bucket(rate=settings.rate, most=4 * settings.rate)
        self._logins = Bucket(rate=LOGINS_A_MINUTE / 60, most=LOGINS_A_MINUTE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # nothing here speaks anything else
            await send({"type": "websocket.close", "code": 1000})
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "private, no-cache")
            await send(message)

        request = Request(scope)
        try:
            answer = self._looked_at(request)
        except RefusedError as refusal:
            answer = self._failed(request, refusal)
        if answer is not None:
            await answer(scope, receive, sent)
            return
        await self._app(scope, _bounded(receive, self._settings.max_body), sent)

    def _looked_at(self, request: Request) -> Response | None:
        """Return an answer that takes the place of the page, if any. Raises RefusedError."""
        self._require_name(request.headers)
        self._require_rate(request)
        self._require_size(request)
        self._require_origin(request)
        if self._settings.token is None or self._may_pass(request):
            return None
        if is_api(request.url.path):
            headers = {"WWW-Authenticate": "Bearer"}
            raise RefusedError(401, "a token is needed; send it as `Authorization: Bearer TOKEN`", headers=headers)
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(login_address(wanted if request.method == "GET" else "/"), status_code=303)

    def _require_name(self, headers: Headers) -> None:
        given = headers.getlist("host")
        name = _host_name(given[0]) if len(given) == 1 else None
        if name is None or not (name in self._names or _is_address(name, local=self._settings.is_local)):
            raise RefusedError(
                403, "this name is not one of the explorer's; open it at its address, or start it with --name NAME"
            )

    def _require_rate(self, request: Request) -> None:
        client = request.client.host if request.client else ""
        if request.url.path == LOGIN and request.method == "POST":
            self._count_attempt(request)
        if not request.url.path.startswith(f"{FOLDER}/") and not self._requests.take(client):
            raise RefusedError(429, f"more than {self._settings.rate:g} requests a second; wait a moment")

    def _count_attempt(self, request: Request) -> None:
        if not self._logins.take(request.client.host if request.client else ""):
            raise RefusedError(429, "too many attempts; wait a minute", headers={"Retry-After": "60"})

    def _require_size(self, request: Request) -> None:
        if len(request.scope.get("raw_path") or b"") + len(request.scope["query_string"]) > MOST_URL:
            raise RefusedError(414, f"the address has more than {MOST_URL:,} bytes; ask for less, or send it as JSON")
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._settings.max_body:
            raise RefusedError(413, f"the body has more than {self._settings.max_body:,} bytes; send less")

    def _require_origin(self, request: Request) -> None:
        """Refuse what a page of another site sends, and what it reads of the API."""
        safe = request.method in _SAFE
        site = request.headers.get("sec-fetch-site", "none")
        if site not in {"none", "same-origin"} and (not safe or is_api(request.url.path)):
            raise RefusedError(403, "another site's page asked for this; open the explorer itself")
        origin = request.headers.get("origin")
        if origin is None or (safe and not is_api(request.url.path)):
            return
        parts = _split(origin)
        own = request.headers["host"].lower()
        if parts is None or parts.scheme not in {"http", "https"} or parts.netloc.lower() != own:
            raise RefusedError(403, "another site's page asked for this; open the explorer itself")

    def _may_pass(self, request: Request) -> bool:
        path = request.url.path
        if path == LOGIN or path.startswith(f"{FOLDER}/"):
            return True
        token = self._settings.token or ""
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            if same_text(given.strip(), token):
                return True
            self._count_attempt(request)
        cookies = cookie_parser(request.headers.get("cookie", ""))
        return same_text(cookies.get(COOKIE, ""), pass_of(token))


def pass_of(token: str) -> str:
    """Return what the cookie holds in the place of the token, so that a cookie that is seen does not tell it."""
    return hmac.new(token.encode(), b"proponent explorer", hashlib.sha256).hexdigest()


def same_text(one: str, other: str) -> bool:
    """Compare in a time that does not tell how much is the same."""
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


def login_address(wanted: str) -> str:
    """Return where somebody gives the token, to see a page afterwards."""
    from .render import url

    return url(LOGIN, next="" if wanted == "/" else wanted)


def local_path(address: str) -> str:
    """Return an address of this site, `/` in the place of any other: no link may lead through here elsewhere."""
    parts = _split(address) if address.isprintable() and "\\" not in address else None
    safe = parts and not parts.scheme and not parts.netloc and address.startswith("/") and address[1:2] != "/"
    return address if safe else "/"


class Bucket:
    """Lets each client do something `most` times at once, and `rate` times a second in the long run."""

    def __init__(self, *, rate: float, most: float) -> None:
        self._rate, self._most = rate, most
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> bool:
        """Return whether a client may do it now."""
        now = time.monotonic()
        left, since = self._left.pop(client, (self._most, now))
        left = min(self._most, left + (now - since) * self._rate)
        self._left[client] = (left - 1 if left >= 1 else left, now)
        if len(self._left) > _MOST_CLIENTS:
            self._left.popitem(last=False)
        return left >= 1


def _bounded(receive: Receive, most: int) -> Receive:
    """Count a body that does not say how long it is."""
    seen = 0

    async def received() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > most:
                raise RefusedError(413, f"the body has more than {most:,} bytes; send less")
        return message

    return received


def _host_name(host: str) -> str | None:
    """Return the name in a Host header without the port, or None for what is none."""
    if not {"/", "?", "#", "@", "\\"}.isdisjoint(host):
        return None
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    return parts.hostname


def _split(address: str) -> SplitResult | None:
    """Return the parts of an address, None for what is none, such as a bracket that is not closed."""
    try:
        return urlsplit(address)
    except ValueError:
        return None


def _is_address(name: str, *, local: bool) -> bool:
    try:
        address = ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or not local
