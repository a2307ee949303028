"""An edit put into a model's weights for good."""

from __future__ import annotations

import dataclasses

from ..families.interface import Model
from .interface import Edit
from .lora import LoraEdit, detach
from .weights import WeightEdit


def merge(edit: Edit, model: Model) -> None:
    """W ← W + strength · ΔW in the model's weights: nothing lies beside them, and nothing can be taken off.

    Adapters of other edits are taken off the model. An edit that does not fit it is a DuoError.
    """
    if isinstance(edit, LoraEdit):
        with dataclasses.replace(edit, strength=1.0).on(model):
            *_, adapter = model.adapters
            model.pipe.fuse_lora(components=[model.denoiser_name], lora_scale=edit.strength, adapter_names=[adapter])
            detach(model)
        return
    assert isinstance(edit, WeightEdit)
    for parameter, change in edit.located(model):
        parameter.data = change.applied(parameter.data, edit.strength)
