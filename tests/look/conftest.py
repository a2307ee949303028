"""Runs to look at. The page needs the extra `ui`: where it is not installed, none of these tests can be imported."""

from __future__ import annotations

import importlib.util
import shutil

import pytest

from duo_unlearn.runs.folder import Run

from ..report.make_run import THREE, add_images, add_pairs, add_record, add_results

collect_ignore_glob = [] if importlib.util.find_spec("starlette") else ["test_*.py"]


@pytest.fixture
def small(run: Run) -> Run:
    """A run of fourteen pairs."""
    add_pairs(run, count=14)
    add_record(run)
    return run


@pytest.fixture(scope="session")
def asked_once(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three systems, twelve images of each prompt set, judged; drawn once, to be copied."""
    run = Run(tmp_path_factory.mktemp("asked") / "run")
    add_images(run, count=12, systems=THREE)
    add_results(run, THREE)
    add_record(run)
    return run


@pytest.fixture
def asked(asked_once: Run, run: Run) -> Run:
    """A copy that a test may change."""
    shutil.copytree(asked_once.folder, run.folder)
    return run
