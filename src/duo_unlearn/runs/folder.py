"""The run folder: the only place that knows its file names.

RUN/
  settings.yaml            the settings as resolved
  run.json                 provenance: versions, machine, base model's fingerprint, stages finished
  pairs/                   unsafe/*.png  safe/*.png  manifest.json  sheet.png
  cache/                   moments.safetensors: latents and text embeddings, made once
  train/                   checkpoint.safetensors  metrics.jsonl
  adapter/                 pytorch_lora_weights.safetensors  provenance.json
  evaluation/              images/SET/MODEL/NNNN.png  parts/SET.MODEL/FIRST.json  verdicts.json  inverted.safetensors
  attacks/                 PRESET/ATTACK/: what was found, attempts and images
  attacks/originals/       the original model's images that attacks start from or aim at, by what they depend on
  attacks.json             estimates of the red team, by attack and preset
  results.json             estimates
  sweep/                   a run folder a β or strength; KIND.json, KIND.svg
  report.html              one self-contained page; report.json: its data; report-no-images.html: to share
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DuoError
from .machine import is_first_process
from ..storage.files import read_json, write_json


class Run:
    """Paths of one run. Making a Run touches nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = folder / "settings.yaml"
        self.record = folder / "run.json"
        self.pairs = folder / "pairs"
        self.moments = folder / "cache" / "moments.safetensors"
        self.checkpoint = folder / "train" / "checkpoint.safetensors"
        self.metrics = folder / "train" / "metrics.jsonl"
        self.adapter = folder / "adapter"
        self.adapter_weights = self.adapter / "pytorch_lora_weights.safetensors"
        self.evaluation = folder / "evaluation"
        self.verdicts = self.evaluation / "verdicts.json"
        self.inverted = self.evaluation / "inverted.safetensors"
        self.attacks = folder / "attacks"
        self.originals = self.attacks / "originals"
        self.attack_results = folder / "attacks.json"
        self.results = folder / "results.json"
        self.sweep = folder / "sweep"
        self.report = folder / "report.html"
        self.report_data = folder / "report.json"
        self.report_to_share = folder / "report-no-images.html"

    def images(self, prompts: str, model: str) -> Path:
        """Where the evaluation images of a prompt set and a model lie."""
        return self.evaluation / "images" / prompts / model

    def part(self, prompts: str, model: str, first: int) -> Path:
        """Where the verdicts of the images from number `first` on are kept until the evaluation is whole."""
        return self.evaluation / "parts" / f"{prompts}.{model}" / f"{first:04}.json"

    def attack_verdicts(self, contract: str) -> Path:
        """Where the red team's verdicts under a contract are kept."""
        return self.attacks / "measures" / f"{hashlib.sha256(contract.encode()).hexdigest()[:12]}.json"

    def read_record(self) -> dict[str, Any]:
        """run.json, or an empty record."""
        found: dict[str, Any] = read_json(self.record) if self.record.exists() else {}
        return found

    def update_record(self, **entries: Any) -> None:
        """Add or replace entries of run.json."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.claim("record", wait=True):
            write_json(self.record, self.read_record() | entries)

    @contextlib.contextmanager
    def claim(self, name: str, *, wait: bool = False) -> Iterator[bool]:
        """Hold a named piece of work inside the block, among the processes of this run.

        Gives False when another process has it; wait: until it lets go. A process that dies lets go of all.
        """
        folder = self.folder / ".claims"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = (folder / name).open("a")
        except OSError as error:
            raise DuoError(f"cannot write in {folder}", got=error.strerror or str(error)) from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True

    @contextlib.contextmanager
    def lock(self, *, shared: bool = False) -> Iterator[None]:
        """Hold the folder for this process; a folder that another process holds is a DuoError.

        shared: together with other shared holders, for work that is divided by claims. Of the processes that `torchrun`
        starts, the first one holds it for all.
        """
        if not (shared or is_first_process()):
            yield
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = (self.folder / ".lock").open("a+")
        except OSError as error:
            raise DuoError(f"cannot use {self.folder} as output folder", got=error.strerror or str(error)) from error
        with handle:
            try:
                fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except OSError:
                handle.seek(0)
                owner = handle.read().strip() or "another process"
                hint = "wait for it, stop it, or choose another --output"
                raise DuoError(f"{self.folder} is in use by another run", got=owner, hint=hint) from None
            with contextlib.suppress(OSError):  # on a full disk the lock holds all the same, without a name
                handle.truncate(0)
                handle.write(f"process {os.getpid()}")
                handle.flush()
            yield
