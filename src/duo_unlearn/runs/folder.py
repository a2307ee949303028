"""The run folder: the only place that knows its file names.

RUN/
  settings.yaml            the settings as resolved
  run.json                 provenance: versions, machine, base model's fingerprint, stages finished
  pairs/                   unsafe/*.png  safe/*.png  manifest.json  sheet.png
  cache/                   moments.safetensors: latents and text embeddings; preservation.json: what was measured once;
                           small/: pictures for `duo look`
  held-out/                pairs that training does not use, of the same form
  train/NAME/              checkpoint.safetensors  metrics.jsonl, of each eraser that trains; of DUO's kind also
                           kept/NNNNN/: edits of single steps; previews/NNNNN.png: pictures of single steps
  edits/NAME/              an edit: its safetensors file, provenance.json. A LoRA loads with `pipe.load_lora_weights`
  guards/                  what guards learned
  originals/               the original model's images of plain prompts, by what they depend on
  attempts/SYSTEM/SCENARIO/ATTACK.PRESET/
                           group.json; found-NNNN.json: what a search found; NNNN.json: attempts; NNNN.png: their images
  verdicts/                a file a detector contract: its word on every image, by the image's hash
  labels.jsonl             what people say of attempts' pictures
  results.json             estimates, made from attempts, verdicts and labels
  slices/N/                a run folder with a part of the pairs; slices.json: how many there are
  sweep/                   a run folder a β or strength; KIND.json, KIND.svg
  rounds/                  NAME.json: how attacks on each round of an edit went; ROUND.safetensors: what they found
  .locks/                  form.json: the form of locks; in that of files also: lock/, claims/NAME/, processes/
  .lock, .claims/NAME      locks in the form of flock
  report.html              one self-contained page; report.json: its data; report-no-images.html: to share
"""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from ..errors import DuoError
from ..storage.files import digest, read_object, set_aside, write_json
from .locks.choice import Form, choose
from .locks.flock import FlockLocks
from .locks.interface import Locks
from .locks.owner_locks import OwnerLocks
from .machine import is_first_process

OLD_FORM: Final = ("evaluation", "attacks", "attacks.json", "adapter")
"""What the run folder of an older form holds."""


class Run:
    """Paths of one run. Making a Run touches nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._form: Form | None = None
        self.settings = folder / "settings.yaml"
        self.record = folder / "run.json"
        self.pairs = folder / "pairs"
        self.held_out = folder / "held-out"
        self.moments = folder / "cache" / "moments.safetensors"
        self.preservation = folder / "cache" / "preservation.json"
        self.edits = folder / "edits"
        self.guards = folder / "guards"
        self.originals = folder / "originals"
        self.attempts = folder / "attempts"
        self.verdicts = folder / "verdicts"
        self.labels = folder / "labels.jsonl"
        self.results = folder / "results.json"
        self.slices = folder / "slices"
        self.slice_count = folder / "slices.json"
        self.sweep = folder / "sweep"
        self.rounds = folder / "rounds"
        self.locks = folder / ".locks"
        self.report = folder / "report.html"
        self.report_data = folder / "report.json"
        self.report_to_share = folder / "report-no-images.html"

    def edit(self, name: str) -> Path:
        """The folder of an edit."""
        return self.edits / name

    def checkpoint(self, name: str) -> Path:
        """Where the training of an edit keeps its state."""
        return self.folder / "train" / name / "checkpoint.safetensors"

    def metrics(self, name: str) -> Path:
        """Where the training of an edit writes a line a step."""
        return self.folder / "train" / name / "metrics.jsonl"

    def step_adapters(self, name: str) -> Path:
        """Where the training of an edit keeps the adapters of single steps, each a folder as an edit's."""
        return self.folder / "train" / name / "kept"

    def previews(self, name: str) -> Path:
        """Where the training of an edit puts the pictures of single steps."""
        return self.folder / "train" / name / "previews"

    def verdicts_of(self, contract: str) -> Path:
        """Where the verdicts under a contract are kept."""
        return self.verdicts / f"{digest(contract)[:16]}.json"

    @property
    def is_there(self) -> bool:
        """Whether the folder holds anything of a run."""
        parts = (self.settings, self.record, self.pairs, self.edits, self.attempts, self.locks, self.folder / ".lock")
        return any(path.exists() for path in parts)

    @property
    def argument(self) -> str:
        """The folder as a command is given it in a shell."""
        return shlex.quote(str(self.folder))

    def no_run(self, hint: str) -> DuoError:
        """The error that this is no run folder, with what it is, and the run folder that is meant where one is near."""
        folder = self.folder
        got = "no settings.yaml in it" if folder.is_dir() else "a file" if folder.exists() else "no such folder"
        if folder.is_file() and Run(folder.parent).settings.exists():
            hint = f"its run folder, {folder.parent}"
        elif folder.is_dir() and (inside := sorted(folder.glob("*/settings.yaml"))):
            hint = f"a run folder in it, e.g. {inside[0].parent}"
        return DuoError(f"{folder} is no run folder", got=got, hint=hint)

    def check_form(self) -> None:
        """Fail for a run folder of the form before systems had names: its attempts cannot be told apart."""
        old = [name for name in OLD_FORM if (self.folder / name).exists()]
        if old:
            hint = "choose another --output and run `duo erase` there; `--pairs OLD/pairs` takes the pairs along"
            raise DuoError(f"{self.folder} is a run folder of an older form", got=f"{old[0]} in it", hint=hint)

    def read_record(self) -> dict[str, Any]:
        """run.json, or an empty record."""
        if not self.record.exists():
            return {}
        try:
            return read_object(self.record)
        except DuoError as error:
            print(f"{error.problem}: it is set aside and made again", file=sys.stderr, flush=True)
            set_aside(self.record)
            return {}

    def update_record(self, **entries: Any) -> None:
        """Add or replace entries of run.json."""
        self.change_record(lambda known: known | entries)

    def change_record(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Write run.json as `change` makes it from what is there, while no other process writes it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.claim("record", wait=True):
            write_json(self.record, change(self.read_record()))

    @contextlib.contextmanager
    def claim(self, name: str, *, wait: bool = False) -> Iterator[bool]:
        """Hold a named piece of work inside the block, among the processes of this run.

        Gives False when another process has it; wait: until it lets go. A process that dies lets go of all.
        """
        with contextlib.ExitStack() as stack:
            try:
                mine = stack.enter_context(self._locks().hold(f"claims/{name}", wait=wait))
            except OSError as error:
                raise DuoError(f"cannot write in {self.folder}", got=error.strerror or str(error)) from error
            yield mine

    @contextlib.contextmanager
    def lock(self, *, shared: bool = False) -> Iterator[None]:
        """Hold the folder for this process; a folder that another process holds is a DuoError.

        shared: together with other shared holders, for work that is divided by claims. Of the processes that `torchrun`
        starts, the first one holds it for all.
        """
        if not (shared or is_first_process()):
            yield
            return
        with contextlib.ExitStack() as stack:
            try:
                locks = self._locks()
                mine = stack.enter_context(locks.hold("lock", shared=shared, sure=True))
            except OSError as error:
                got, hint = error.strerror or str(error), "choose another --output"
                got = dead_link(self.folder) or got
                raise DuoError(f"cannot use {self.folder} as output folder", got=got, hint=hint) from error
            if not mine:
                hint = "wait for it, stop it, or choose another --output"
                raise DuoError(f"{self.folder} is in use by another run", got=locks.owner("lock"), hint=hint)
            yield

    def _locks(self) -> Locks:
        """Its locks, of the form that all processes of this folder use. OSError: the folder cannot be written."""
        if self._form is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._form = choose(self.locks)
        return FlockLocks(self.folder) if self._form == "flock" else OwnerLocks(self.locks)


def dead_link(folder: Path) -> str | None:
    """That a folder is a link to what is not there, and to what; None: it is no such link."""
    return f"a link to {folder.readlink()}, which is not there" if folder.is_symlink() and not folder.exists() else None
