"""The red team: what attacks find and the images it gives, written part by part, and not judged here."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from PIL import Image
from torch import Tensor

from ..attacks.interface import Artifact, Attack, Found, Preset, Report, Subject, requests_for
from ..attacks.registry import ATTACKS
from ..edits.lora import NAME, adapters_off, load_adapter, read_provenance, set_strength
from ..errors import DuoError
from ..families.interface import seed_of
from ..progress import progress
from ..records import ModelName, Prompt
from ..session import Session
from ..storage.files import read_json, read_tensors, sha256_of, write_json, write_tensors
from .attempted import MODELS, adapter_hash
from .groups import prompt_groups, save_png
from .target import subject_of

POLL: Final = 0.5
"""Seconds between looks at the parts that other processes are making."""


class Line(NamedTuple):
    """One attack's state after a run: how many attempts there are on each model, or why it did not run."""

    attack: str
    attempts: int
    reason: str | None


@dataclasses.dataclass(frozen=True)
class Asked:
    """The prompts that are attacked, and the seeds of their images. name: "direct", or the file's."""

    name: str
    prompts: list[Prompt]
    seeds: list[int]


def asked(session: Session, count: int, file: Path | None = None) -> Asked:
    """`count` direct prompts of the concept, or all of a file's."""
    seed = session.settings.seed
    if file is not None:
        from ..attacks.direct import read_prompts

        prompts, name = read_prompts(file), f"file-{file.stem}"
    else:
        evaluate = session.settings.evaluate.model_copy(update={"prompts": count})
        groups = [group for group in prompt_groups(session.concept, evaluate, seed) if group.kind == "attack"]
        if not groups:
            raise DuoError(
                f"the concept {session.concept.name} asks for nothing", hint="add attacks: to its file, or --prompts"
            )
        prompts, name = groups[0].prompts, groups[0].name
    return Asked(name, prompts, [seed_of(seed, "evaluate", name, i) for i in range(len(prompts))])


def attack(
    session: Session, names: Sequence[str], preset: Preset, asked_for: Asked, replay: Path | None = None
) -> list[Line]:
    """Run attacks on the original and on the erased model; parts that are there already are kept.

    Any number of processes may share the parts of a run: each claims what it works on, and all stay until all is done.
    replay: a run whose artifacts, found on its erased model, are used in place of a search (transfer).
    """
    _prepare(session)
    lines, works = [], []
    for name in names:
        one = ATTACKS[name]
        reason = one.why_not(session.model)
        both = [_Work(session, one, which, preset, asked_for, replay) for which in MODELS]
        if reason is None and replay is None and any(work.missing() for work in both):
            reason = one.why_no_search(session.model)
        works += both if reason is None else []
        lines.append(Line(name, 0 if reason else len(asked_for.prompts), reason))
        parts = {work.which: work.keys() for work in both}
        told = {**both[0].described(), "adapter": adapter_hash(session.run), "parts": parts, "reason": reason}
        write_json(both[0].folder / "attack.json", told)
    while todo := [work for work in works if work.missing()]:
        if not any(work.run() for work in todo):
            time.sleep(POLL)  # the rest is being made by others
    return lines


def _prepare(session: Session) -> None:
    if not session.run.adapter_weights.exists():
        hint = "run `duo train` first, or `duo erase` for all stages"
        raise DuoError(f"{session.run.folder} holds no adapter", hint=hint)
    made_for = read_provenance(session.run.adapter).get("concept")
    if made_for is not None and session.concept.name not in str(made_for).split(" + "):
        got = f"{made_for}, while the run is of {session.concept.name}"
        raise DuoError(f"{session.run.adapter} is an adapter of another concept", got=got, hint="put its own one back")
    if not any(f".{NAME}." in name for name, _ in session.model.denoiser.named_parameters()):
        load_adapter(session.model, session.run.adapter)
    set_strength(session.model, 1.0)


class _Work:
    """One attack on one model: what it finds, and its attempts, in parts that are written whole."""

    def __init__(
        self, session: Session, one: Attack, which: ModelName, preset: Preset, asked_for: Asked, replay: Path | None
    ) -> None:
        self.session, self.one, self.which, self.preset = session, one, which, preset
        self.asked, self.replay = asked_for, replay
        suffix = "" if asked_for.name == "direct" else f"@{asked_for.name}"
        suffix += f"@{replay.name}" if replay is not None else ""
        self.folder = session.run.attacks / preset / (one.name + suffix)
        size = min(one.chunk(preset), len(asked_for.prompts))
        self.parts = [slice(first, first + size) for first in range(0, len(asked_for.prompts), size)]
        weights = session.model.fingerprint() if which == "original" else adapter_hash(session.run)
        self.base = f"{session.model.fingerprint()} at {session.model.variant}"
        self.state = f"{weights} at {session.model.variant}"

    def described(self) -> dict[str, Any]:
        return {
            "attack": self.folder.name,
            "title": self.one.title,
            "preset": self.preset,
            "budget": self.one.budget(self.preset),
            "prompts": self.asked.name,
            "replay": str(self.replay) if self.replay else None,
        }

    def keys(self) -> dict[str, str]:
        """The parts that are asked for: name of the file → the key that it must have."""
        return {f"{part.start:04}": self._key(part, self.state) for part in self.parts}

    def missing(self) -> list[slice]:
        """The parts that are still to be made, by this process or another one."""
        return [part for part in self.parts if not self._is_done(part)]

    def run(self) -> bool:
        """Find and sample what is missing and nobody works on; gives whether there was something."""
        label, done = f"{self.folder.name}: {self.which}, percent", 0
        todo = self.missing()
        with contextlib.ExitStack() as stack:
            for part in todo:
                claim = self.session.run.claim(f"{self.preset}.{self.folder.name}.{self.which}.{part.start:04}")
                with claim as mine:
                    # Between the look and the claim another process may have finished it.
                    if not mine or self._is_done(part):
                        continue
                    begin = time.monotonic()
                    if not done:
                        subject, report = self._entered(stack, label)
                    self._make(subject, part, _telling(report, done, len(todo)), begin)
                    done += 1
        return done > 0

    def _entered(self, stack: contextlib.ExitStack, label: str) -> tuple[Subject, Callable[[int], None]]:
        """The model as this work needs it, until the stack closes: an attack may change it, for all parts at once."""
        if self.which == "original":
            stack.enter_context(adapters_off(self.session.model.denoiser))
        subject = subject_of(self.session)
        report = stack.enter_context(progress(label, 100, quiet=self.session.quiet))
        if self.one.alters:
            stack.enter_context(self.one.during(subject))
        return subject, report

    def _make(self, subject: Subject, part: slice, report: Report, begin: float) -> None:
        entries = self._sample(subject, part, self._found(subject, part, report))
        told = {"key": self._key(part, self.state), "seconds": round(time.monotonic() - begin, 1)}
        write_json(self.folder / self.which / f"{part.start:04}.json", {**told, "attempts": entries})
        report(1.0)

    def _key(self, part: slice, state: str) -> str:
        settings, prompts = self.session.settings.evaluate, [prompt.text for prompt in self.asked.prompts[part]]
        basis: list[Any] = [self.one.name, self.one.budget(self.preset), prompts, self.asked.seeds[part], state]
        basis += [self.session.settings.seed, settings.steps, settings.guidance, str(self.session.detector.contract)]
        if self.replay is not None:
            basis.append(sha256_of(self._replayed(part)))
        if self.one.version > 1:  # a first one has no number, as before there were any
            basis.append(self.one.version)
        return hashlib.sha256(json.dumps(basis).encode()).hexdigest()[:16]

    def _is_done(self, part: slice) -> bool:
        path = self.folder / self.which / f"{part.start:04}.json"
        if not path.exists():
            return False
        known = read_json(path)
        # Someone may have deleted images that are not for every eye; they are made again.
        whole = all((self.folder / entry["file"]).exists() for entry in known["attempts"])
        return bool(whole and known["key"] == self._key(part, self.state))

    def _found(self, subject: Subject, part: slice, report: Report) -> Found:
        """What the attack finds for a part: searched for once and kept, or another run's."""
        if self.replay is not None:
            return _read_found(self._replayed(part))
        owner = "shared" if self.one.shared else self.which
        path = self.folder / f"found-{owner}" / f"{part.start:04}.json"
        # One process searches, and the others read what it found.
        with self.session.run.claim(f"{self.preset}.{self.folder.name}.found-{owner}.{part.start:04}", wait=True):
            return self._searched(subject, part, path, report)

    def _replayed(self, part: slice) -> Path:
        """What was found on another run's erased model for the same prompts; a DuoError where nothing was."""
        assert self.replay is not None
        folder = self.replay / "attacks" / self.preset / self.folder.name.removesuffix(f"@{self.replay.name}")
        owner = "shared" if self.one.shared else "erased"
        path = folder / f"found-{owner}" / f"{part.start:04}.json"
        hint = f"duo attack {self.replay} --attack {self.one.name} --preset {self.preset}, with the same prompts"
        if not path.exists():
            raise DuoError(f"{self.replay} holds no artifacts of {self.one.name}", got=f"no {path}", hint=hint)
        known, asked_for = read_json(path), [prompt.text for prompt in self.asked.prompts[part]]
        if known.get("texts", asked_for) != asked_for or len(known["artifacts"]) != len(asked_for):
            got = f"{len(known['artifacts'])} artifacts there, {len(asked_for)} prompts here"
            raise DuoError(f"{path} was found for other prompts", got=got, hint=hint)
        family = self.session.model.family
        if known.get("family", family) != family:
            raise DuoError(f"{path} was found on {known['family']}", got=f"a model of {family}", hint="its own family")
        return path

    def _searched(self, subject: Subject, part: slice, path: Path, report: Report) -> Found:
        # What is shared depends on no adapter.
        key = self._key(part, self.base if self.one.shared else self.state)
        pairs = sha256_of(self.session.run.pairs / "manifest.json")
        if path.exists() and (known := read_json(path))["key"] == key and known.get("pairs", pairs) == pairs:
            return _read_found(path)
        found = self.one.find(subject, self.asked.prompts[part], self.asked.seeds[part], self.preset, report)
        texts = [prompt.text for prompt in self.asked.prompts[part]]
        model, family = self.session.model.fingerprint(), self.session.model.family
        provenance = {"key": key, "model": model, "family": family, "state": self.state, "pairs": pairs, "texts": texts}
        _write_found(path, found, {**provenance, "seed": self.session.settings.seed, **self.described()})
        return found

    def _sample(self, subject: Subject, part: slice, found: Found) -> list[dict[str, Any]]:
        prompts, seeds = self.asked.prompts[part], self.asked.seeds[part]
        starts: list[Image.Image | None] = [None] * len(prompts)
        if any(artifact.strength is not None for artifact in found.artifacts):
            starts = list(subject.originals([prompt.text for prompt in prompts], seeds))
        if self.which == "original" and not self.one.alters and all(map(_is_plain, found.artifacts)):
            images = subject.originals([artifact.text for artifact in found.artifacts], seeds)
        else:
            images = subject.sample(requests_for(subject.model, found, seeds, starts))
        entries = []
        for i, (prompt, artifact, image) in enumerate(zip(prompts, found.artifacts, images, strict=True)):
            file = Path("images") / self.which / f"{part.start + i:04}.png"
            save_png(image, self.folder / file)
            told = {"prompt": prompt.text, "shows": dict(prompt.shows), "seed": seeds[i], "text": artifact.text}
            entries.append({**told, "facts": artifact.facts, "file": str(file)})
        return entries


def _is_plain(artifact: Artifact) -> bool:
    """Whether its text is all that is asked with."""
    return artifact.ids is None and artifact.vector is None and artifact.strength is None


def _telling(report: Callable[[int], None], done: int, parts: int) -> Report:
    """A part's share of the whole work, told in per cent."""
    return lambda share: report(int(100 * (done + share) / parts))


def _write_found(path: Path, found: Found, provenance: dict[str, Any]) -> None:
    if found.tensors:
        write_tensors(path.with_suffix(".safetensors"), found.tensors)
    write_json(path, {**provenance, "artifacts": [artifact._asdict() for artifact in found.artifacts]})


def _read_found(path: Path) -> Found:
    tensors: dict[str, Tensor] = {}
    if path.with_suffix(".safetensors").exists():
        tensors = read_tensors(path.with_suffix(".safetensors"))[0]
    return Found([Artifact(**entry) for entry in read_json(path)["artifacts"]], tensors)
