"""What a session's model is loaded with."""

from __future__ import annotations

from duo_unlearn.runs.folder import Run
from duo_unlearn.session import Session
from duo_unlearn.settings.resolve import resolve_settings


def test_gradient_checkpointing_holds_for_every_stage(run: Run) -> None:
    for asked in (True, False):
        told = {"output": str(run.folder), "train": {"gradient_checkpointing": asked}}
        flags = {
            layer.gradient_checkpointing
            for layer in Session(resolve_settings(told)).model.denoiser.modules()
            if hasattr(layer, "gradient_checkpointing")
        }
        assert flags == {asked}
