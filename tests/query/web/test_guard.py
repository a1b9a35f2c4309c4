"""Who is let in: names, origins, tokens, sizes, rates."""

from collections.abc import Callable
from typing import Any

import pytest

from proponent.query.web.explorer import Explorer
from proponent.query.web.guard import COOKIE, Bucket, local_path
from proponent.schema.errors import SettingsError
from proponent.schema.settings import ServeSettings

from .conftest import ADDRESS, client_of

TOKEN = "a long enough token"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8321", 200),
        ("localhost:8321", 200),
        ("[::1]:8321", 200),
        ("LOCALHOST", 200),
        ("evil.example", 403),
        ("evil.example:8321", 403),
        ("127.0.0.1.evil.example", 403),
        ("10.0.0.1:8321", 403),
        ("localhost@evil.example", 403),
        ("localhost:8321/x", 403),
        ("localhost:8321#", 403),
        ("localhost:8321?", 403),
        ("[", 403),
        ("", 403),
    ],
)
def test_only_this_machines_names_are_answered(ask: Any, host: str, status: int) -> None:
    assert ask.get("/api/", headers={"Host": host}).status_code == status


def test_another_sites_page_may_neither_send_nor_read(ask: Any) -> None:
    port = "http://127.0.0.1:9999"
    for origin in ("http://evil.example", "null", "http://[", port, "http://127.0.0.1:8321.evil.example"):
        assert ask.post("/sql", data={"query": "SELECT 1"}, headers={"Origin": origin}).status_code == 403, origin
        assert ask.get("/api/", headers={"Origin": origin}).status_code == 403, origin
    assert ask.post("/sql", data={"query": "SELECT 1"}, headers={"Origin": ADDRESS}).status_code == 200
    assert ask.post("/sql", data={"query": "SELECT 1"}, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert ask.get("/api/", headers={"Sec-Fetch-Site": "same-site"}).status_code == 403
    assert ask.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200, "a link may lead here"


def test_json_is_asked_for_as_json(ask: Any) -> None:
    body = '{"query": "SELECT 1"}'
    assert ask.post("/api/sql", content=body, headers={"Content-Type": "text/plain"}).status_code == 415
    assert ask.post("/sql", json={"query": "SELECT 1"}).status_code == 415
    for wrong in ("", "[]", "{", '"x"', '{"query": 1}', "[" * 100_000, "\udcff".encode("utf-8", "surrogatepass")):
        sent = ask.post("/api/sql", content=wrong, headers={"Content-Type": "application/json"})
        assert sent.status_code == 400, wrong[:20]


def test_every_answer_says_what_it_may_load(ask: Any) -> None:
    for path in ("/", "/api/", "/nothing", "/static/none"):
        headers = ask.get(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cross-origin-resource-policy"] == "same-origin"
    assert ask.get("/", headers={"Host": "evil.example"}).headers["content-security-policy"]


def test_no_page_has_styles_or_scripts_of_its_own(ask: Any) -> None:
    for path in ("/", "/status", "/sql", "/traces/last", "/nothing"):
        page = ask.get(path).text
        assert "<style" not in page
        assert " style=" not in page
        assert " onclick" not in page
        assert page.count("<script") == page.count("<script src=")


def test_too_much_is_refused(ask: Any, make_explorer: Callable[..., Explorer]) -> None:
    assert ask.get("/", params={"prompt": "x" * 20_000}).status_code == 414
    assert ask.post("/api/sql", json={"query": "x" * (1 << 20)}).status_code == 413

    def in_pieces() -> Any:
        for _ in range(300):
            yield b"x" * 8192

    sent = ask.post("/api/sql", content=in_pieces(), headers={"Content-Type": "application/json"})
    assert sent.status_code == 413
    assert ask.get("/?" + "&".join(f"f{n}=1" for n in range(300))).status_code == 400
    assert ask.get("/?prompt=%ff").status_code == 400
    assert ask.get("/?prompt=%00").status_code == 400


def test_a_client_that_asks_too_often_waits(make_explorer: Callable[..., Explorer]) -> None:
    ask = client_of(make_explorer(rate=0.5))
    statuses = [ask.get("/api/openapi.json").status_code for _ in range(4)]
    assert statuses == [200, 200, 429, 429]
    assert ask.get("/api/openapi.json").json()["error"].startswith("more than 0.5 requests a second")


def test_a_bucket_fills_again() -> None:
    bucket = Bucket(rate=1e6, most=2)
    assert all(bucket.take("a") for _ in range(2))
    slow = Bucket(rate=1e-9, most=1)
    assert slow.take("a")
    assert not slow.take("a")
    assert slow.take("b")


def test_without_the_token_nothing_is_told(make_explorer: Callable[..., Explorer]) -> None:
    ask = client_of(make_explorer(token=TOKEN))
    refused = ask.get("/api/status")
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    sent = ask.get("/sql?query=SELECT%201")
    assert (sent.status_code, sent.headers["location"]) == (303, "/login?next=%2Fsql%3Fquery%3DSELECT%25201")
    for given in ("Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer"):
        assert ask.get("/api/status", headers={"Authorization": given}).status_code == 401
    assert ask.get("/api/status", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert ask.get("/api/status", headers={"Cookie": f"{COOKIE}={TOKEN}"}).status_code == 401
    for _ in range(12):
        last = ask.get("/api/status", headers={"Authorization": "Bearer a wrong token"})
    assert last.status_code == 429
    assert ask.get("/api/status", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_the_token_opens_the_page_that_was_wanted(make_explorer: Callable[..., Explorer]) -> None:
    ask = client_of(make_explorer(token=TOKEN))
    page = ask.get("/login?next=%2Fstatus")
    assert '<input type="hidden" name="next" value="/status">' in page.text
    wrong = ask.post("/login", data={"token": "a wrong token", "next": "/status"})
    assert wrong.status_code == 401
    assert "set-cookie" not in wrong.headers
    right = ask.post("/login", data={"token": TOKEN, "next": "/status"})
    assert (right.status_code, right.headers["location"]) == (303, "/status")
    cookie = right.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert TOKEN not in cookie
    assert ask.get("/status").status_code == 200
    for _ in range(12):
        last = ask.post("/login", data={"token": "a wrong token"})
    assert last.status_code == 429


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "status",
        "",
        "/a\nb",
        "\t//x",
        "//[",
    ],
)
def test_no_link_leads_elsewhere(address: str) -> None:
    assert local_path(address) == "/"


def test_a_path_of_ones_own_is_kept() -> None:
    assert local_path("/sql?query=SELECT%201") == "/sql?query=SELECT%201"


@pytest.mark.parametrize(
    "settings",
    [
        {"host": "0.0.0.0"},
        {"host": "0.0.0.0", "token": TOKEN},
        {"host": "::", "exposed": True},
        {"exposed": True},
        {"token": "short"},
        {"port": 70_000},
        {"host": "explorer.example"},
    ],
)
def test_nobody_is_let_in_by_mistake(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        ServeSettings(**settings)


def test_exposed_with_a_token_answers_to_its_names(make_explorer: Callable[..., Explorer]) -> None:
    ask = client_of(
        make_explorer(host="0.0.0.0", exposed=True, token=TOKEN, names=("explorer.example",)),
        headers={"Authorization": f"Bearer {TOKEN}"},
    )
    for host, status in (("explorer.example", 200), ("10.1.2.3:8321", 200), ("evil.example", 403)):
        assert ask.get("/api/status", headers={"Host": host}).status_code == status
