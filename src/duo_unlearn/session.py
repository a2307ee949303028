"""What a run's stages share: its settings, folder, concept, and the model and detector, loaded when first needed."""

from __future__ import annotations

import os
import platform
import time
from functools import cached_property
from importlib.metadata import version
from typing import Literal

from .concepts.spec import Concept
from .concepts.store import load_concept
from .config import Settings, as_yaml
from .detectors.base import Detector, make_detector
from .families.base import Model
from .families.load import DTYPES, load_model, pick_device
from .run import Run
from .storage import write_text

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
        # On a CPU half-precision weights are slow and coarse; autocast alone is used there.
        return load_model(self.settings.model, device, DTYPES["no"] if device.type == "cpu" else dtype)

    @cached_property
    def detector(self) -> Detector:
        """The concept's detector, under its contract."""
        from .detectors import mini_judge  # noqa: F401  (registers itself)

        spec = self.concept.detector
        return make_detector(spec.name, tuple(spec.labels), spec.threshold)

    def finish(self, stage: str, seconds: float, state: State) -> State:
        """Record a stage in run.json. One that was skipped keeps the time that it took when it ran."""
        stages = self.run.read_record().get("stages", {})
        if state == "done" or stage not in stages:
            stages[stage] = {"seconds": round(seconds, 1), "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        self.run.update_record(
            concept=self.concept.name,
            model=self.settings.model,
            seed=self.settings.seed,
            sensitive=self.concept.sensitive,
            versions={name: version(name) for name in VERSIONED},
            machine=machine(),
            stages=stages,
        )
        return state


def machine() -> str:
    """Processor or GPU, system and Python, in a few words."""
    import torch

    if torch.cuda.is_available():
        processor = torch.cuda.get_device_name()
    else:
        processor = f"{platform.machine()} CPU, {os.cpu_count()} cores"
    return f"{processor}, {platform.system()}, Python {platform.python_version()}"


def begin_stage(session: Session) -> float:
    """Write the settings as resolved; gives the time now."""
    write_text(session.run.settings, as_yaml(session.settings))
    return time.monotonic()
