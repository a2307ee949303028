"""What a safetensors file says of itself to other tools: the SAI Model Spec 1.0.1, and kohya's `ss_*` keys."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from torch import Tensor

from ..edits.interface import Edit
from ..families.interface import Model
from .statement import STATEMENT

VERSION: Final = "1.0.1"
PREDICTIONS: Final = {"epsilon": "epsilon", "v_prediction": "v"}
"""The spec's words for diffusers' names; another family has none."""


def metadata(edit: Edit, model: Model, tensors: Mapping[str, Tensor], *, adapter: bool) -> dict[str, str]:
    """Title, base, hash and what tools choose their way of loading by.

    There is no date: the same edit gives the same file. implementation: the tensors' names are diffusers' in an
    adapter, and the original model's in a whole file.
    """
    architecture = model.kind.architecture(model.pipe)
    concept, base = str(edit.provenance.get("concept", "concept")), str(edit.provenance.get("model", model.source))
    title, sha256 = f"{base} without {concept} ({edit.name})", hash_of(tensors)
    prediction = PREDICTIONS.get(str(model.pipe.scheduler.config.get("prediction_type")))
    found = {
        "modelspec.sai_model_spec": VERSION,
        "modelspec.architecture": f"{architecture}/lora" if adapter else architecture,
        "modelspec.implementation": "diffusers" if adapter else "https://github.com/Stability-AI/generative-models",
        "modelspec.title": title,
        "modelspec.resolution": f"{model.resolution}x{model.resolution}",
        "modelspec.description": f"{concept} is erased, at strength {edit.strength:g}. What was measured is in "
        f"{STATEMENT} beside this file.",
        "modelspec.hash_sha256": f"0x{sha256}",
        "modelspec.tags": "unlearning",
        **({"modelspec.usage_hint": "Use it at weight 1."} if adapter else {}),
        **({"modelspec.prediction_type": prediction} if prediction else {}),
    }
    if not adapter:
        return found
    # A1111 tells SDXL and SD 2 by these two.
    version = {"ss_base_model_version": "sdxl_base_v1-0"} if "-xl-" in architecture else {}
    kohya = {"ss_output_name": title, "ss_sd_model_name": base, "ss_v2": str("-v2-" in architecture)}
    return {**found, **version, **kohya, "sshs_model_hash": sha256}


def hash_of(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of all tensors' bytes as they lie in the file, which is all of it but the header.

    It is what the spec's `hash_sha256` is of, and sd-scripts' `sshs_model_hash`.
    """
    from safetensors.torch import save

    content = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    return hashlib.sha256(memoryview(content)[8 + int.from_bytes(content[:8], "little") :]).hexdigest()
