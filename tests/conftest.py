"""What all tests share: no network, no window, and a run folder."""

from __future__ import annotations

import gc
import os
import signal
import threading
from pathlib import Path

import pytest

# Before anything imports huggingface_hub, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")
if os.environ.get("DUO_TEST_WINDOWS"):  # the rules of Windows for all tests; not all of these can pass
    from . import windows_rules

    windows_rules.install()

from duo_unlearn.runs.folder import Run

# Modules and models are many objects that are never let go: looking through them less often is a tenth of the time.
gc.set_threshold(100_000, 50, 100)

# What a shell starts in the background ignores Ctrl-C, and so would every command that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run whose folder does not exist yet."""
    return Run(tmp_path / "run")


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judged run of an edit, which no test changes."""
    from .arena.exported_run import measured_run

    return measured_run(tmp_path_factory.mktemp("measured") / "run")


@pytest.fixture(scope="session")
def exported(measured: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its export in kohya's format, which no test changes."""
    import duo_unlearn as duo

    return duo.export(measured, tmp_path_factory.mktemp("exported") / "out", "kohya").folder
