"""Which form of locks a run folder has: by its file system, kept for all, told, and forced."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import pytest

import duo_unlearn
from duo_unlearn.errors import DuoError
from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.locks import flock
from duo_unlearn.runs.locks.choice import VARIABLE, Form, choose, read_choice

WITHOUT_FCNTL = """
import sys
sys.modules["fcntl"] = None
from pathlib import Path
from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.holders import holders
run = Run(Path(sys.argv[1]))
with run.lock(shared=True), run.claim("a") as mine:
    assert mine
    assert [claim.name for claim in holders(run)[0].claims] == ["a"]
"""
FULL = """
import resource, sys
from pathlib import Path
from duo_unlearn.errors import DuoError
from duo_unlearn.runs.folder import Run
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
run = Run(Path(sys.argv[1]))
for held in (run.lock(), run.claim("a")):
    try:
        with held:
            pass
    except DuoError as error:
        sys.stdout.writelines(f"{error.problem}\\n")
"""


def mounts(folder: Path, kind: str, options: str) -> str:
    """A table of mounts with a folder in it."""
    place = str(folder).replace(" ", "\\040")
    return (
        f"/dev/sda1 / ext4 rw,relatime 0 0\nserver {place} {kind} {options} 0 0\nother {place}2 lustre localflock 0 0\n"
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "a run"
    folder.mkdir()
    return folder / ".locks"


@pytest.mark.parametrize(
    ("kind", "options", "form"),
    [
        ("ext4", "rw", "flock"),
        ("lustre", "rw,flock,lazystatfs", "flock"),
        ("lustre", "rw,localflock,lazystatfs", "files"),
        ("nfs4", "rw,vers=4.2,local_lock=none", "flock"),
        ("nfs4", "rw,vers=4.2,local_lock=all", "files"),
        ("nfs", "rw,vers=3,nolock,local_lock=all", "files"),
        ("beegfs", "rw,cfgFile=/etc/beegfs/beegfs-client.conf", "files"),
        ("cifs", "rw,vers=3.1.1", "files"),
        ("fuse.sshfs", "rw", "files"),
        ("fuse.blobfuse2", "rw", "files"),
        ("fuse.fuse-overlayfs", "rw", "flock"),
        ("fuse.glusterfs", "rw", "flock"),
    ],
)
def test_a_form_by_the_file_system(
    root: Path, kind: str, options: str, form: Form, capsys: pytest.CaptureFixture[str]
) -> None:
    assert choose(root, environment={}, mounts=mounts(root.parent, kind, options)) == form
    told = capsys.readouterr().err.splitlines()
    assert len(told) == (3 if form == "files" else 0)
    assert not told or (kind in told[0] and "owner files" in told[1] and VARIABLE in told[2])
    assert choose(root, environment={}, mounts="") == form
    assert capsys.readouterr().err == ""
    assert [path.name for path in root.parent.iterdir()] == [".locks"]


def has_none(_handle: IO[Any]) -> bool:
    raise OSError(95, "Operation not supported")


@pytest.mark.parametrize(
    ("take", "found"), [(lambda _: True, "to two"), (has_none, "not supported"), (None, "no flock")]
)
def test_flock_that_excludes_nobody_is_found_out(root: Path, take: Any, found: str) -> None:
    assert choose(root, environment={}, mounts="", take=take) == "files"
    choice = read_choice(root)
    assert choice is not None
    assert found in choice.found


def test_all_that_begin_at_once_have_the_form_of_the_first(root: Path) -> None:
    def begin(form: str) -> str:
        try:
            assert choose(root, environment={VARIABLE: form}, mounts="") == form
        except DuoError:
            return "refused"
        return form

    with ThreadPoolExecutor(16) as pool:
        forms = list(pool.map(begin, ["files", "flock"] * 8))
    choice = read_choice(root)
    assert choice is not None
    assert sorted(forms) == sorted([choice.form] * 8 + ["refused"] * 8)
    assert [path.name for path in root.parent.iterdir()] == [".locks"]


def test_a_form_that_is_forced_against_the_kept_one_is_refused(root: Path) -> None:
    assert choose(root, environment={VARIABLE: "files"}, mounts="") == "files"
    assert choose(root, environment={}, mounts="") == "files"
    with pytest.raises(DuoError, match="locks of another form, files") as caught:
        choose(root, environment={VARIABLE: "flock"}, mounts="")
    assert len(str(caught.value).splitlines()) == 3
    with pytest.raises(DuoError, match="flock or files"):
        choose(root, environment={VARIABLE: "fcntl"}, mounts="")
    with pytest.raises(DuoError, match="has no flock"):
        choose(root, environment={VARIABLE: "flock"}, mounts="", take=None)


def test_a_run_that_was_copied_to_a_place_without_locks_changes_its_form(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert choose(root, environment={}, mounts="") == "flock"
    assert choose(root, environment={}, mounts=mounts(root.parent, "lustre", "rw,localflock")) == "files"
    assert "mounted with localflock" in capsys.readouterr().err
    assert choose(root, environment={}, mounts="") == "files"


def test_a_folder_without_its_file_gets_it(root: Path) -> None:
    (root / "claims").mkdir(parents=True)
    assert choose(root, environment={}, mounts="") == "flock"
    assert json.loads((root / "form.json").read_text())["form"] == "flock"


@pytest.mark.parametrize("content", ["{half", "[]", '{"form": "fcntl"}'])
def test_a_form_that_cannot_be_read_is_told(run: Run, content: str) -> None:
    run.locks.mkdir(parents=True)
    (run.locks / "form.json").write_text(content)
    with pytest.raises(DuoError, match=r"form\.json") as caught, run.lock():
        pass
    assert "when no process works on the run" in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit that writing meets")
def test_a_disk_without_room_is_told_in_words(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "run")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert "as output folder" in first
    assert "cannot write in" in second


def test_the_package_needs_no_fcntl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_FCNTL, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "this system has no flock" in done.stderr


def test_one_file_alone_imports_fcntl() -> None:
    package = Path(duo_unlearn.__file__).parent
    imports = re.compile(r"^ *(import|from) fcntl\b", re.MULTILINE)
    named = [
        path.relative_to(package).as_posix()
        for path in sorted(package.rglob("*.py"))
        if imports.search(path.read_text(encoding="utf-8"))
    ]
    assert named == [Path(flock.__file__).relative_to(package).as_posix()]
