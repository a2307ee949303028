"""A page in Chromium, for slow tests; a system without it has none of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this system")]


@contextmanager
def browsing(url: str, **context: Any) -> Iterator[tuple[Any, list[str]]]:
    """A page that is opened there, and what went wrong in it: dialogs, errors, and what its policy refused."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    faults: list[str] = []
    with playwright.sync_playwright() as kit:
        # Chromium's own sandbox cannot be had by the superuser, as in many containers.
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = kit.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_context(**context).new_page()
        page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
        page.goto(url)
        yield page, faults
        browser.close()
