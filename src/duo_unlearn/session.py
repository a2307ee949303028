"""What a run's stages share: its settings, folder, concept, systems, and the model and detector, loaded when needed."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from importlib.metadata import version
from typing import Any, Final, NamedTuple

from .concepts.prompt_sets import Counts, prompt_sets
from .concepts.spec import Concept
from .concepts.store import load_concept
from .detectors.interface import Detector
from .detectors.registry import check_detector, make_detector
from .edits.interface import edits_off
from .erasers.interface import State
from .erasers.latents import Cache, build_cache
from .erasers.wraps import whole_name
from .errors import DuoError
from .families.identify import family_of
from .families.interface import Model
from .families.load import DTYPES, load_model, pick_device
from .guards.interface import Context, Learned, Sides
from .pairs.manifest import MANIFEST, load_pairs, read_entries
from .records import ORIGINAL, Pair
from .runs.folder import Run
from .runs.machine import is_first_process
from .settings.guards import check_asked, check_guard_family, guard_detector
from .settings.resolve import as_kept
from .settings.tree import Settings, write_settings
from .storage.files import digest
from .system import System, system_of

VERSIONED: Final = ("duo_unlearn", "torch", "diffusers", "transformers", "peft", "accelerate")


class Judges(NamedTuple):
    """The detectors that score a run, that of the first table first. absent: why those are not there that cannot be."""

    there: list[Detector]
    absent: dict[str, str]


class Session:
    """A run's parts, each loaded when it is first needed."""

    def __init__(self, settings: Settings, *, quiet: bool = False) -> None:
        self.settings, self.quiet = settings, quiet
        self._asked: dict[str, Detector] = {}
        self._cached: tuple[str, Cache] | None = None
        self.run = Run(settings.output)
        self.run.check_form()
        self.concept: Concept = load_concept(settings.concept)
        for name in settings.guard:
            check_asked(self.concept, settings, name, settings.guards.get(name, {}))

    @cached_property
    def family(self) -> str:
        """The name of the model's family, without loading it."""
        return family_of(self.settings.model)

    @cached_property
    def model(self) -> Model:
        """The base model, without an edit."""
        chosen, device = self.settings, pick_device(self.settings.device)
        # On a CPU half-precision weights are slow and coarse; autocast alone is used there (bf16; fp16 needs a GPU).
        weights = DTYPES["no" if device.type == "cpu" else chosen.train.mixed_precision]
        source = (chosen.model, device, weights, chosen.resolution, chosen.checkpoint_config, chosen.quantize)
        model = load_model(*source, channels_last=chosen.channels_last)
        if chosen.train.gradient_checkpointing:
            # For attacks too, whose gradients go through the denoiser.
            denoiser: Any = model.denoiser
            denoiser.enable_gradient_checkpointing()
        return model

    @cached_property
    def detector(self) -> Detector:
        """The run's detector, under its contract: it gates pairs, and searches ask it."""
        spec = self.concept.detector_named(self.settings.detector)
        return make_detector(spec.name, tuple(spec.labels), self.family, spec.threshold)

    @cached_property
    def judges(self) -> Judges:
        """The detectors that score, that of the first table first, and those that the concept names but cannot be had.

        One that the settings name and that cannot be had is a DuoError; so is it where there is none at all.
        """
        named, detector = self.settings.evaluate.judges, self.settings.detector
        there, absent = [], {}
        for spec in self.concept.scorers(named, detector):
            if spec == self.concept.detector_named(detector):
                there.append(self.detector)
                continue
            try:
                check_detector(spec.name, self.family, tuple(spec.labels), spec.threshold)
                there.append(make_detector(spec.name, tuple(spec.labels), self.family, spec.threshold))
            except DuoError as error:
                if named is not None:
                    raise
                absent[spec.name] = error.reason
        return Judges(there, absent)

    @property
    def pairs(self) -> list[Pair]:
        """The pairs that training uses."""
        return [pair for pair in load_pairs(self.run.pairs) if pair.keep]

    @property
    def held_out_count(self) -> int:
        """How many pairs the run has that no step uses."""
        return len(read_entries(self.run.held_out).pairs) if (self.run.held_out / MANIFEST).exists() else 0

    @property
    def pairs_digest(self) -> str:
        """A hash of the pairs that training uses; "" where the run has none."""
        if not (self.run.pairs / MANIFEST).exists():
            return ""
        return digest([pair.content for pair in read_entries(self.run.pairs).pairs if pair.keep])[:16]

    @property
    def cache(self) -> Cache:
        """Latents and text embeddings of the pairs as they are now, by the original model."""
        now = self.pairs_digest
        if self._cached is None or self._cached[0] != now:
            with edits_off(self.model):
                captions = self.settings.train.captions
                made = build_cache(self.model, self.pairs, self.run.pairs, self.run.moments, captions=captions)
            self._cached = (now, made)
        return self._cached[1]

    def unload(self) -> None:
        """Let go of model and detectors, which are loaded again when needed: who waits holds no memory of a GPU."""
        import gc

        import torch

        for name in ("model", "detector", "judges"):
            vars(self).pop(name, None)
        self._cached = None
        self._asked.clear()
        gc.collect()
        torch.cuda.empty_cache()

    def contrast(self) -> list[tuple[str, str]]:
        """Each pair's prompt with the concept and without it."""
        return [(pair.unsafe_prompt or "", pair.safe_prompt or "") for pair in self.pairs]

    @property
    def benign(self) -> list[str]:
        """Prompts without the concept."""
        keep = prompt_sets(self.concept, Counts(0, self.settings.evaluate.keep_prompts, 0, 0), self.settings.seed)
        return [prompt.text for prompt in keep[0].prompts] if keep else ["a picture"]

    def system(self, name: str) -> System:
        """The system of a name such as "original", "duo", "uce+duo" or "duo+negative-prompt"."""

        def contract_of(options: Mapping[str, Any]) -> str:
            detector = self._guard_detector(options.get("detector"), options.get("labels"), options.get("threshold"))
            return str(detector.contract)

        return system_of(name, self.run.edits, self.settings.guards, self.pairs_digest, contract_of)

    def systems(self) -> list[System]:
        """The systems that the run measures now: the original, its edit, and with guards the edit behind these."""
        return [self.system(name) for name in self._names()]

    def _names(self) -> list[str]:
        edit = self.settings.edit
        names = [ORIGINAL, whole_name(edit, self.settings.floor)] if self.run.edit(edit).is_dir() else [ORIGINAL]
        return [*names, "+".join([*names[1:], *self.settings.guard])] if self.settings.guard else names

    def known_systems(self) -> dict[str, System]:
        """Name → system, as its edits and guards are now: those of the settings, and those that have attempts.

        One whose edit is gone or damaged is left out, so that nothing is told of it.
        """
        folder = self.run.attempts
        asked = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        systems = {}
        for name in dict.fromkeys([*self._names(), *asked]):
            with contextlib.suppress(DuoError):
                systems[name] = self.system(name)
        return systems

    def guard_context(self, system: System) -> Context:
        """What the guards of a system are built from."""
        model, edits = self.model, [[edit.name, edit.sha256, edit.strength] for edit in system.edits]
        return Context(
            model=model,
            concept=self.concept.name.replace("-", " "),
            pairs=self._learned(),
            folder=self.run.guards,
            key=digest([model.fingerprint(), model.variant, edits, self.pairs_digest]),
            seed=self.settings.seed,
            detector=self._guard_detector,
            quiet=self.quiet,
            claim=partial(self.run.claim, wait=True),
        )

    def _learned(self) -> Learned:
        from .storage.pictures import open_image

        def pictures() -> Sides:
            folder, pairs = self.run.pairs, self.pairs
            return Sides([open_image(folder / p.unsafe) for p in pairs], [open_image(folder / p.safe) for p in pairs])

        return Learned(lambda: self.cache.unsafe, lambda: self.cache.safe, pictures, self.contrast)

    def _guard_detector(self, name: str | None, labels: Sequence[str] | None, threshold: float | None) -> Detector:
        """The detector that a guard asks: one of the concept's, or with labels of its own any other."""
        spec = guard_detector(self.concept, self.settings, name, labels, threshold)
        if (key := spec.model_dump_json()) not in self._asked:
            self._asked[key] = make_detector(spec.name, tuple(spec.labels), self.family, spec.threshold)
        return self._asked[key]

    def check_change(self, systems: Sequence[System]) -> None:
        """Fail where no system has an edit or a guard: the original alone has nothing to be compared with."""
        if not any(system.edits or system.guards for system in systems):
            if self.run.edit(self.settings.edit).is_dir():
                raise DuoError("nothing was erased from what is named", got=ORIGINAL, hint="another --system")
            hint = "run `duo train` first, or `duo erase` for all stages; or name a system: --system"
            raise DuoError(f"{self.run.folder} holds no edit {self.settings.edit}", hint=hint)

    def check_system(self, system: System) -> None:
        """Fail for a guard that the family or the run cannot have, and for an edit of another concept."""
        for guard in system.guards:
            check_asked(self.concept, self.settings, guard.name, guard.options, self.family)
            check_guard_family(guard.name, self.family)
        self._check_concepts(system)

    def _check_concepts(self, system: System) -> None:
        from .edits.provenance import read_provenance

        for edit in system.edits:
            made_for = read_provenance(edit.folder).get("concept")
            wanted = set(self.concept.erased.split(" + "))
            if made_for is not None and not wanted <= set(str(made_for).split(" + ")):
                got = f"{made_for}, while the run is of {self.concept.erased}"
                raise DuoError(f"{edit.folder} is an edit of another concept", got=got, hint="put the run's own back")

    def begin(self) -> float:
        """Check that the folder holds a run of this concept and seed, or none yet; gives the time now."""
        known = self.run.read_record()
        for name, now in (("concept", self.concept.name), ("seed", self.settings.seed)):
            if (kept := known.get(name, now)) != now:
                got, hint = f"{name} {kept} there, {now} now", as_kept(self.settings, name, kept)
                raise DuoError(f"{self.run.folder} holds another run", got=got, hint=hint)
        return time.monotonic()

    def finish(self, stage: str, seconds: float, state: State) -> State:
        """Record a stage and the settings.

        A stage that was skipped keeps the time that it took when it ran, and the machine and versions stay those that
        made what is there.
        """
        if not is_first_process():
            return state
        write_settings(self.run.settings, self.settings)
        finished = {"finished": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        # How long it took when it ran is not known of a stage that was skipped and has no entry.
        took = {"seconds": round(seconds, 1), **finished} if state == "done" else None
        # Importing pairs needs no model, and reading gigabytes for the record alone would be a waste.
        base = {"base": self.model.fingerprint()} if "model" in vars(self) else {}
        entries = {
            **base,
            "concept": self.concept.name,
            "model": self.settings.model,
            "seed": self.settings.seed,
            "sensitive": self.concept.sensitive,
        }
        made_with = {
            "versions": {name: version(name) for name in VERSIONED},
            "machine": machine(pick_device(self.settings.device).type),
        }

        def with_stage(known: dict[str, Any]) -> dict[str, Any]:
            stages = known.get("stages", {})
            whole = {**made_with, **known} if took is None else {**known, **made_with}
            return {**whole, **entries, "stages": {**stages, stage: took or stages.get(stage, finished)}}

        self.run.change_record(with_stage)
        return state


def machine(device: str = "cpu") -> str:
    """Processor or GPU that a device type stands for, system and Python, in a few words."""
    import torch

    if device == "cuda":
        processor = torch.cuda.get_device_name()
    else:
        processor = f"{platform.machine()} CPU, {os.cpu_count()} cores"
    return f"{processor}, {platform.system()}, Python {platform.python_version()}"
