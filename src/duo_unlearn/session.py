"""What a run's stages share: its settings, folder, concept, and the model and detector, loaded when first needed."""

from __future__ import annotations

import os
import platform
import time
from functools import cached_property
from importlib.metadata import version
from typing import Any, Literal

from .concepts.spec import Concept
from .concepts.store import load_concept
from .detectors.interface import Detector, make_detector
from .errors import DuoError
from .families.identify import family_of
from .families.interface import Model
from .families.load import DTYPES, load_model, pick_device
from .runs.folder import Run
from .runs.machine import is_first_process
from .settings.tree import Settings, as_yaml
from .storage.files import write_text

State = Literal["done", "already done"]
VERSIONED = ("duo_unlearn", "torch", "diffusers", "transformers", "peft", "accelerate")


class Session:
    """A run's parts, each loaded when it is first needed."""

    def __init__(self, settings: Settings, *, quiet: bool = False) -> None:
        self.settings, self.quiet = settings, quiet
        self.run = Run(settings.output)
        self.concept: Concept = load_concept(settings.concept)

    @cached_property
    def model(self) -> Model:
        """The base model, without an adapter."""
        dtype = DTYPES[self.settings.train.mixed_precision]
        device = pick_device(self.settings.device)
        # On a CPU half-precision weights are slow and coarse; autocast alone is used there (bf16; fp16 needs a GPU).
        weights = DTYPES["no"] if device.type == "cpu" else dtype
        given = self.settings
        model = load_model(given.model, device, weights, given.resolution, given.checkpoint_config, given.quantize)
        if given.train.gradient_checkpointing:
            # For attacks too, whose gradients go through the denoiser.
            denoiser: Any = model.denoiser
            denoiser.enable_gradient_checkpointing()
        return model

    @cached_property
    def detector(self) -> Detector:
        """The concept's detector, under its contract."""
        spec, family = self.concept.detector, family_of(self.settings.model)
        return make_detector(spec.name, tuple(spec.labels), family, spec.threshold)

    def begin(self) -> float:
        """Check that the folder holds a run of this concept and seed, or none yet; gives the time now."""
        known = self.run.read_record()
        for name, now in (("concept", self.concept.name), ("seed", self.settings.seed)):
            if known.get(name, now) != now:
                got = f"{name} {known[name]} there, {now} now"
                hint = f"--{name} {known[name]}, or another --output"
                raise DuoError(f"{self.run.folder} holds another run", got=got, hint=hint)
        return time.monotonic()

    def finish(self, stage: str, seconds: float, state: State) -> State:
        """Record a stage and the settings. A stage that was skipped keeps the time that it took when it ran."""
        if not is_first_process():
            return state
        write_text(self.run.settings, as_yaml(self.settings))
        stages = self.run.read_record().get("stages", {})
        if state == "done" or stage not in stages:
            stages[stage] = {"seconds": round(seconds, 1), "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        # Importing pairs needs no model, and reading gigabytes for the record alone would be a waste.
        base = {"base": self.model.fingerprint()} if "model" in vars(self) else {}
        self.run.update_record(
            **base,
            concept=self.concept.name,
            model=self.settings.model,
            seed=self.settings.seed,
            sensitive=self.concept.sensitive,
            versions={name: version(name) for name in VERSIONED},
            machine=machine(pick_device(self.settings.device).type),
            stages=stages,
        )
        return state


def machine(device: str = "cpu") -> str:
    """Processor or GPU that a device type stands for, system and Python, in a few words."""
    import torch

    if device == "cuda":
        processor = torch.cuda.get_device_name()
    else:
        processor = f"{platform.machine()} CPU, {os.cpu_count()} cores"
    return f"{processor}, {platform.system()}, Python {platform.python_version()}"
