"""Who may speak to the page: every way in but the right one is closed, and says why in three lines."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from duo_unlearn.errors import DuoError
from duo_unlearn.look import serve
from duo_unlearn.look.gate import Door
from duo_unlearn.runs.folder import Run

from .browser import BASE, door_of, manifest, opened, stranger

DROP = "/pairs/0001/drop"


def test_the_first_url_gives_a_cookie_that_scripts_and_other_sites_cannot_use(small: Run) -> None:
    door = door_of()
    client = stranger(small, door)
    answer = client.get(f"/open?token={door.token}")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert door.token not in cookie
    assert client.get("/").status_code == 200


@pytest.mark.parametrize("token", ["", "x", "é", "a" * 5000])
def test_another_token_opens_nothing(small: Run, token: str) -> None:
    client = stranger(small)
    answer = client.get("/open", params={"token": token})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    assert "Try" in answer.text
    assert client.get("/").status_code == 403


@pytest.mark.parametrize("other", ['a={"x":1}', "flag", "x[y]=2", "t=\xe9", "path=/x"])
def test_cookies_of_other_programs_of_this_machine_lock_nobody_out(small: Run, other: str) -> None:
    door = door_of()
    client = stranger(small, door)
    ours = f"{door.cookie}={door.secret}"
    for line in (f"{other}; {ours}", f"{ours}; {other}"):
        assert client.get("/", headers=[(b"Cookie", line.encode("latin-1"))]).status_code == 200


@pytest.mark.parametrize("path", ["/", "/pairs", "/pairs/0001", "/picture/" + "a" * 64, "/nothing"])
def test_without_the_cookie_nothing_is_shown(small: Run, path: str) -> None:
    for cookie in (None, "duo-look-8765=guess", "duo-look-8765=\xe9", "a=b;;=;"):
        client = stranger(small)
        answer = client.get(path, headers=[(b"Cookie", cookie.encode("latin-1"))] if cookie else [])
        assert answer.status_code == 403
        assert "run" not in answer.text.lower() or "opened the run" in answer.text


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8765", "", "10.0.0.7"]
)
def test_another_host_is_refused_even_with_the_cookie(small: Run, host: str) -> None:
    client = opened(small)
    assert client.get("/", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost:8765", "LOCALHOST:9000", "127.0.0.1", "[::1]:8765"])
def test_the_names_of_this_machine_are_good_hosts(small: Run, host: str) -> None:
    assert opened(small).get("/", headers={"Host": host}).status_code == 200


def test_with_remote_any_address_is_a_good_host_and_no_foreign_name(small: Run) -> None:
    door = door_of(remote=True)
    client = stranger(small, door)
    client.get(f"/open?token={door.token}")
    assert client.get("/", headers={"Host": "10.0.0.7:8765"}).status_code == 200
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://evil.example", "Sec-Fetch-Site": ""},
        {"Origin": "null", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "http://127.0.0.1:3000", "Sec-Fetch-Site": "same-site"},
        {"Origin": BASE, "Sec-Fetch-Site": "cross-site"},
        {"Origin": BASE, "Content-Type": "text/plain"},
        {"Origin": BASE, "Content-Type": "application/json"},
    ],
)
def test_another_origin_changes_nothing(small: Run, headers: dict[str, str]) -> None:
    client, before = opened(small), manifest(small)
    answer = client.post(DROP, data={"reason": "x"}, headers=headers)
    assert answer.status_code == 403
    assert manifest(small) == before


def test_a_form_of_nowhere_and_one_without_the_cookie_change_nothing(small: Run) -> None:
    before = manifest(small)
    client = opened(small)
    for name in ("Origin", "Sec-Fetch-Site"):
        del client.headers[name]
    assert client.post(DROP, data={"reason": "x"}).status_code == 403
    unknown = stranger(small)
    assert unknown.post(DROP, data={"reason": "x"}, headers={"Origin": BASE}).status_code == 403
    assert manifest(small) == before


def test_a_large_body_is_refused_whether_its_length_is_told_or_not(small: Run) -> None:
    client, before = opened(small), manifest(small)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert client.post(DROP, content=b"reason=" + b"x" * 10_000_000, headers=form).status_code == 413
    taken = 0

    def chunks() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(160):
            taken += 1
            yield b"x" * 65536

    assert client.post(DROP, content=chunks(), headers=form).status_code == 413
    assert client.post(DROP, content=b"&".join(b"a%d=1" % i for i in range(100)), headers=form).status_code == 400
    assert manifest(small) == before


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH"])
def test_no_other_method_and_no_cors(small: Run, method: str) -> None:
    answer = opened(small).request(method, DROP)
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_every_answer_carries_the_security_headers(small: Run) -> None:
    client = opened(small)
    for path in ("/", "/pairs", "/static/look.css", "/picture/x", "/nothing", "/open?token=x"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self'")
        assert "unsafe-inline" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    "path",
    [
        "/picture/..%2f..%2fsettings.yaml", "/picture/../settings.yaml", "/picture/%2e%2e/%2e%2e/etc/passwd",
        "/picture/pairs/unsafe/0000.png", "/small/..%2f..%2frun.json", "/small/" + "0" * 63 + "/",
        "/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd",
    ],
)  # fmt: skip
def test_no_path_leads_to_a_file(small: Run, path: str) -> None:
    answer = opened(small).get(path)
    assert answer.status_code in (404, 405)
    assert "recipe" not in answer.text
    assert "def " not in answer.text


def test_a_very_long_address_is_refused(small: Run) -> None:
    assert opened(small).get("/attempts/a/b/c/" + "9" * 5000).status_code == 414


def test_pages_hold_no_inline_script_and_no_inline_style(small: Run) -> None:
    client = opened(small)
    for path in ("/", "/pairs", "/pairs/0001"):
        text = client.get(path).text
        assert text.count("<script") == text.count('<script src="/static/look.js" defer></script>') == 1
        assert not [word for word in (" style=", "<style", " onclick", " onload", "javascript:") if word in text]


def test_only_loopback_unless_it_is_asked_for() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.9"):
        serve.check_host(host, remote=False)
    for host in ("0.0.0.0", "::", "10.0.0.7", "example.org", ""):
        with pytest.raises(DuoError, match="other machines could reach") as caught:
            serve.check_host(host, remote=False)
        assert "--allow-remote" in str(caught.value)
        serve.check_host(host, remote=True)


def test_another_loopback_address_is_a_good_host_where_it_was_asked_for(small: Run) -> None:
    door = Door.fresh(8765, frozenset({"127.0.0.2"}))
    assert stranger(small, door, "http://127.0.0.2:8765").get(f"/open?token={door.token}").status_code == 200
    assert stranger(small, door, "http://127.0.0.3:8765").get(f"/open?token={door.token}").status_code == 421


def test_a_port_in_use_is_told_and_without_one_another_is_taken() -> None:
    with contextlib.closing(serve.listen("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(DuoError, match=f"port {port} is in use") as caught:
            serve.listen("127.0.0.1", port)
        assert len(str(caught.value).splitlines()) == 3
    with contextlib.closing(serve.listen("127.0.0.1", None)), contextlib.closing(serve.listen("127.0.0.1", None)):
        pass


def test_a_folder_that_is_no_run_is_told(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(DuoError, match="is no run folder"):
            serve.check_run(Run(folder))


def test_the_page_loads_no_torch() -> None:
    code = "import sys, duo_unlearn.look.serve; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
