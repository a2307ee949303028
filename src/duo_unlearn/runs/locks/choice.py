"""Which form of locks a run folder has. The first process that needs one looks, and keeps its choice for all others."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import IO, Any, Final, Literal, NamedTuple, get_args

from ...errors import DuoError
from ...storage.files import printable, read_object, write_json
from . import flock
from .process import machine
from .watch import DEAD_AFTER

Form = Literal["flock", "files"]
VARIABLE: Final = "DUO_LOCKS"
"""The environment variable that forces a form."""
FILE: Final = "form.json"
Take = Callable[[IO[Any]], bool]
"""Locks an open file by flock; gives False where another handle has it."""

ALWAYS: Final = ("",)
LOCAL: Final[Mapping[str, tuple[str, ...]]] = {
    "lustre": ("localflock",),
    "nfs": ("nolock", "local_lock=flock", "local_lock=all"),
    "nfs4": ("nolock", "local_lock=flock", "local_lock=all"),
    "gfs2": ("localflocks",),
    "afs": ("flock=local",),
    "beegfs": ALWAYS,  # unless tuneUseGlobalFileLocks is set, which the mount does not say
    "cifs": ALWAYS,  # not seen with every kernel, nor with nobrl
    "smb3": ALWAYS,
}
"""Types of file systems on which flock is not seen by other machines, by the mount's options.

Sources: mount.lustre(8), flock(2), nfs(5); the code of gfs2, afs and beegfs. What is in doubt is here too, as owner
files exclude everywhere: cifs.
"""
FUSE: Final = "fuse."
LOCKING: Final = ("glusterfs", "ceph", "ceph-fuse", "fuse-overlayfs", "gocryptfs", "encfs", "mergerfs")
"""File systems of FUSE that make locks for all machines, or that one machine alone has.

Of the others (sshfs, rclone, s3fs, blobfuse2, …) nothing is known: FUSE has the kernel's own locks, which other
machines do not see, unless a file system makes others.
"""


class Choice(NamedTuple):
    """A form of locks. found: why."""

    form: Form
    found: str


def choose(
    root: Path,
    *,
    environment: Mapping[str, str] = os.environ,
    mounts: str | None = None,
    take: Take | None = flock.take if flock.IS_THERE else None,
) -> Form:
    """The form of a run folder's locks, by what is kept in `root`, or else by a look, which is kept and told.

    root: a folder of the run folder, which is there. mounts: as /proc/self/mounts has them, which is read for None.
    take: flock; None: there is none. OSError: the folder cannot be written. DuoError: a form is forced that is unknown,
    or another one than that of the run folder.
    """
    folder, known, forced = root.parent, read_choice(root), _forced(environment, take)
    if forced is not None:
        chosen = known or Choice(forced, f"{VARIABLE}={forced}")
    elif known is not None and known.form == "files":
        chosen = known
    elif take is None:
        chosen = Choice("files", "this system has no flock")
    elif against := _local(folder, _mounts() if mounts is None else mounts):
        chosen = Choice("files", against)  # also where flock was kept: the run was copied from another file system
    else:
        chosen = known or _looked(folder, take)
    if (known is None or known.form != chosen.form) and _keep(root, chosen, known) and chosen.form == "files":
        _tell(folder, chosen)
    kept = read_choice(root) or chosen  # of two that choose at once, the choice of the first
    if forced is not None and kept.form != forced:
        hint = f"unset {VARIABLE}, or delete {printable(root)} when no process works on the run"
        problem = f"{printable(folder)} has locks of another form, {kept.form}"
        raise DuoError(problem, got=f"{VARIABLE}={forced}", hint=hint)
    return kept.form


def read_choice(root: Path) -> Choice | None:
    """What is kept; None where nothing is. What cannot be read is a DuoError."""
    path = root / FILE
    if not path.exists():
        return None
    hint = f"delete {printable(root)} when no process works on the run"
    content = read_object(path, hint)
    if content.get("form") not in get_args(Form):
        raise DuoError(f"{printable(path)} has an unknown form of locks", got=str(content.get("form"))[:80], hint=hint)
    return Choice(content["form"], str(content.get("found", "")))


def _forced(environment: Mapping[str, str], take: Take | None) -> Form | None:
    word = environment.get(VARIABLE, "")
    if not word:
        return None
    form = next((known for known in get_args(Form) if known == word), None)
    if form is None:
        raise DuoError(f"{VARIABLE} is a form of locks", got=word[:80], hint="flock or files")
    if form == "flock" and take is None:
        raise DuoError("this system has no flock", got=f"{VARIABLE}=flock", hint=f"{VARIABLE}=files, or unset it")
    found: Form = form
    return found


def _mounts() -> str:
    try:
        return Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # not Linux
        return ""


def _local(folder: Path, mounts: str) -> str | None:
    """Why flock on a folder's file system is not seen by other machines; None where nothing says so."""
    real, kind, options, depth = PurePath(os.path.realpath(folder)), "", "", -1
    for line in mounts.splitlines():
        words = line.split(" ")
        if len(words) < 4:
            continue
        point = PurePath(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), words[1]))
        if real.is_relative_to(point) and len(point.parts) >= depth:  # of two on one place the later one is on top
            kind, options, depth = words[2], words[3], len(point.parts)
    if kind.startswith(FUSE) and kind.removeprefix(FUSE) not in LOCKING:
        return f"on {kind}, flock may not be seen by other machines"
    found = next((one for one in LOCAL.get(kind, ()) if one in ("", *options.split(","))), None)
    if found is None:
        return None
    how = f" mounted with {found}" if found else ""
    return f"on {kind}{how}, flock is not seen by other machines"


def _looked(folder: Path, take: Take) -> Choice:
    """Whether flock excludes: of two handles on one file the second must not have it. OSError: no file can be made."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".flock-") as first, Path(first.name).open("ab") as second:
        try:
            if not take(first.file):
                return Choice("files", "a file that nobody else has is locked here")
            if take(second):
                return Choice("files", "flock gives one lock to two here")
        except OSError as error:
            return Choice("files", f"flock is refused here: {error.strerror or error}")
    return Choice("flock", "flock excludes here")


def _keep(root: Path, chosen: Choice, known: Choice | None) -> bool:
    """Keep a choice for all processes; False where another one was first. known: what is replaced, or None.

    A folder with the file in it takes its place at once, or not at all where one is there that holds something. So
    nobody reads a half of it, also where the file system has no hard links.
    """
    if known is None:
        part = root.with_name(f"{root.name}.{secrets.token_hex(8)}.part")
        try:
            part.mkdir()
            (part / FILE).write_bytes(json.dumps(chosen._asdict()).encode() + b"\n")
            with contextlib.suppress(OSError):
                part.rename(root)
                return True
        finally:
            shutil.rmtree(part, ignore_errors=True)
        if (root / FILE).exists():
            return False
    write_json(root / FILE, chosen._asdict())
    return True


def _tell(folder: Path, chosen: Choice) -> None:
    whose = "a process of another machine" if machine() is not None else "another process"
    costs = f"what {whose} held when it died is free after {DEAD_AFTER:.0f} seconds"
    print(f"{printable(folder)}: {chosen.found}", file=sys.stderr)
    print(f"locks are owner files: {costs}; a lock takes longer", file=sys.stderr)
    print(f"{VARIABLE}=flock or {VARIABLE}=files forces a form (docs/run-folder.md)", file=sys.stderr, flush=True)
