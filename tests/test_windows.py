"""What can be said of Windows on Linux: the package works without what Windows lacks, and where files refuse as there.

The rules are those of windows_rules.py, in processes of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

import pytest

from duo_unlearn.cli.workers import COMMAND
from duo_unlearn.storage import moves
from duo_unlearn.storage.names import leads_out

from .drawn_pairs import draw_pairs
from .small_concept import small_concept

INSTALL = "from tests.windows_rules import install; install()\n"
IMPORT_ALL = """
import importlib, pkgutil, duo_unlearn
for module in pkgutil.walk_packages(duo_unlearn.__path__, "duo_unlearn."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""
WORK = """
import sys
from pathlib import Path
from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.holders import holders
from duo_unlearn.runs.labels import Label, append_label
from duo_unlearn.settings.tree import read_settings
run = Run(Path(sys.argv[1]))
with run.lock(shared=True), run.claim("a") as mine:
    assert mine
    assert [claim.name for claim in holders(run)[0].claims] == ["a"]
    run.update_record(a=1)
    run.update_record(b=2)
    assert run.read_record() == {"a": 1, "b": 2}
    append_label(run, Label("0" * 64, "yes", "somebody"))
with run.lock():
    pass
"""
PREPARE = """
import sys
from pathlib import Path
from duo_unlearn.storage import moves
from duo_unlearn.storage.files import write_text
path = Path(sys.argv[1]) / "a"
"""
BREACHES = {
    "import fcntl": "ModuleNotFoundError: No module named 'fcntl' on Windows",
    "from duo_unlearn.cli import workers; workers.os.uname": "no attribute 'uname' on Windows",
    "from duo_unlearn.look import serve; serve.signal.SIGHUP": "no attribute 'SIGHUP' on Windows",
    "handle = path.open('w'); moves.replace(path, path.with_name('b'))": "cannot access the file",
    "handle = path.open('w'); moves.remove(path)": "cannot access the file",
    "handle = path.open('w'); moves.replace(path.parent, path.parent.with_name('c'))": "cannot access",
    "handle = path.open('rb'); moves.os.fsync(handle.fileno())": "it may not be written",
    "moves.os.kill(1, 0)": "is Ctrl-C on Windows",
    "write_text(path.with_name('a:b'), '')": "not allowed on Windows",
    "write_text(path.with_name('nul.txt'), '')": "not allowed on Windows",
    "write_text(path.with_name('b'), ''); write_text(path.with_name('B'), '')": "one file for this name",
    "write_text(path.with_name('a' * 230), '')": "too long for Windows",
}
FEW = {"train.max_train_steps": 3, "train.checkpointing_steps": 1, "pairs.trust": "true", "evaluate.steps": 4}


def ruled(code: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run code under the rules of Windows."""
    environment = {**os.environ, "DUO_LOCKS": "", "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "cp1252", **more}
    command = [sys.executable, "-X", "warn_default_encoding", "-c", INSTALL + code, *words]
    return subprocess.run(
        command, env=environment, cwd=Path(__file__).parents[1], capture_output=True, encoding="utf-8", check=False
    )


def test_locks_and_records_need_nothing_that_windows_lacks(tmp_path: Path) -> None:
    done = ruled(WORK, str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert "this system has no flock" in done.stderr


def test_what_is_printed_has_its_letters() -> None:
    done = ruled(COMMAND, "guards")
    assert done.returncode == 0, done.stderr
    assert "λ; None: the preset's" in done.stdout


@pytest.mark.slow
def test_the_rules_find_what_windows_refuses(tmp_path: Path) -> None:
    tries = "".join(f"\ntry:\n    {code}\nexcept Exception as e:\n    tell(e)\n" for code in BREACHES)
    # A long name is cut with “…”, which the pipe has in Windows' letters and this process reads in its own.
    said = "f'{type(error).__name__}: {error}'.replace(chr(10), ' ').encode('ascii', 'replace').decode()"
    tell = f"def tell(error): sys.stdout.write({said} + chr(10))"
    done = ruled(f"{PREPARE}\nmoves.PAUSES = ()\n{tell}\n{tries}", str(tmp_path))
    assert done.returncode == 0, done.stderr
    for (code, wanted), line in zip(BREACHES.items(), done.stdout.splitlines(), strict=True):
        assert wanted in line, code


@pytest.mark.slow
def test_every_module_can_be_imported() -> None:
    done = ruled(IMPORT_ALL)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_from_its_pairs_to_its_report(tmp_path: Path) -> None:
    draw_pairs(tmp_path / "mine", 3)
    run = str(tmp_path / "run")
    told = [word for key, value in FEW.items() for word in ("--set", f"{key}={value}")]
    for words in (
        ["pairs", "-o", run, "--concept", small_concept(tmp_path), "--pairs", str(tmp_path / "mine"), *told],
        ["train", "-o", run],
        ["attack", run, "--attack", "direct", "--count", "2"],
        ["report", run],
        ["status", run],
        ["export", run, "-o", str(tmp_path / "out"), "--format", "kohya"],
    ):
        done = ruled(COMMAND, *words)
        assert done.returncode == 0, (words, done.stderr)
    records = [path.read_text(encoding="utf-8") for path in (tmp_path / "run" / "attempts").rglob("0*.json")]
    assert records
    assert not any("\\\\" in text for text in records)


def test_what_is_refused_for_a_moment_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moves, "PAUSES", (0.0, 0.0))
    tries: list[int] = []

    def act() -> str:
        tries.append(0)
        if len(tries) < 3:
            raise PermissionError(13, "it is open in another program")
        return "done"

    with pytest.raises(PermissionError):
        moves.patiently(act)
    assert len(tries) == 1
    monkeypatch.setattr(moves, "os", types.SimpleNamespace(name="nt"))
    assert moves.patiently(act) == "done"
    assert len(tries) == 3


@pytest.mark.parametrize("file", ["/a.png", "../a.png", "a/../../b.png"])
@pytest.mark.parametrize("kind", [PurePosixPath, PureWindowsPath])
def test_a_name_that_leads_out_of_its_folder(file: str, kind: type[PurePath]) -> None:
    assert leads_out(file, kind)
    assert not leads_out("unsafe/0001.png", kind)


@pytest.mark.parametrize("file", ["C:/a.png", "C:a.png", r"\a.png", r"\\server\share\a.png", r"a\..\..\b.png"])
def test_a_name_that_leads_out_on_windows_alone(file: str) -> None:
    assert leads_out(file, PureWindowsPath)
    assert not leads_out(file, PurePosixPath)
