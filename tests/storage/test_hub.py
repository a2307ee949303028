"""Whether the hub answers is asked once, with little patience, and never for a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from duo_unlearn.storage import hub
from duo_unlearn.storage.hub import files_here_alone, why_not_loaded

ASK = "from duo_unlearn.storage.hub import answers; print(answers())"


def answer_of(endpoint: str, offline: str = "0") -> str:
    """What a process finds whose hub is at an address."""
    environment = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": offline, "PATH": "/usr/bin", "no_proxy": "*"}
    ran = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def test_nobody_there_is_told_at_once_and_a_server_of_any_kind_is_an_answer() -> None:
    import http.server
    import threading

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        assert answer_of(address) == "True"  # 501 to a HEAD: someone is there
        assert answer_of(address, offline="1") == "False"
        server.shutdown()
    assert answer_of(address) == "False"


def test_a_folder_is_read_without_asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked() -> bool:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(hub, "answers", asked)
    assert files_here_alone(str(tmp_path))
    assert why_not_loaded(OSError("no\n such   file"), str(tmp_path)) == "no such file"


def test_where_the_hub_does_not_answer_its_cache_is_all_there_is() -> None:
    assert not hub.answers()  # the tests are offline
    assert files_here_alone("nobody/nothing")
    assert files_here_alone(None)
    assert (
        why_not_loaded(OSError("404"), "nobody/nothing")
        == "it is not in the hub's cache here, and the hub does not answer"
    )
