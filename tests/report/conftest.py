"""A whole run and its page, which several tests look at."""

from __future__ import annotations

import pytest

from duo_unlearn.runs.folder import Run

from .html_page import Page, page_of
from .make_run import add_all


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with everything that a report shows. No test changes it."""
    run = Run(tmp_path_factory.mktemp("full"))
    add_all(run)
    return run


@pytest.fixture(scope="session")
def full_page(full: Run) -> Page:
    """Its page."""
    return page_of(full)
