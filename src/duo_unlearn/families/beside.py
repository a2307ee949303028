"""What a model has beside its weights: configurations, tokenizers and buffers, by which two loads are compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from torch import nn

from ..storage.files import digest
from .interface import Model

_UNEQUAL: Final = ("architectures", "dtype", "torch_dtype", "transformers_version")
"""What a configuration says of the load or of who saved it, and not of the model; so do names with an underscore."""


def beside_weights(model: Model) -> dict[str, str]:
    """What it is of, e.g. "scheduler: configuration" → a hash of it."""
    found = {}
    for name, component in model.pipe.components.items():
        if hasattr(component, "get_vocab"):
            found[f"{name}: tokenizer"] = digest(_tokenizer(component))
        elif hasattr(component, "config"):
            found[f"{name}: configuration"] = digest(_configuration(component.config))
        if isinstance(component, nn.Module):
            found[f"{name}: buffers"] = _buffers(component)
    return found


def _configuration(config: Any) -> dict[str, Any]:
    """A configuration of diffusers or of transformers as JSON has it."""
    entries = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    plain: dict[str, Any] = json.loads(json.dumps(_entries(entries), default=str))
    return plain


def _entries(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _entries(v) for k, v in value.items() if not str(k).startswith("_") and k not in _UNEQUAL}
    return value


def _tokenizer(tokenizer: Any) -> dict[str, Any]:
    """All that decides tokens, but for what a call sets: truncation and padding."""
    rules: dict[str, Any] = {"vocabulary": tokenizer.get_vocab()}
    if (fast := getattr(tokenizer, "backend_tokenizer", None)) is not None:
        rules = {k: v for k, v in json.loads(fast.to_str()).items() if k not in ("truncation", "padding")}
    named = {key: str(value) for key, value in tokenizer.special_tokens_map.items()}
    template = getattr(tokenizer, "chat_template", None)
    return {"rules": rules, "special": named, "length": tokenizer.model_max_length, "template": template}


def _buffers(module: nn.Module) -> str:
    found = hashlib.sha256()
    for name, value in module.named_buffers():
        whole = value.detach().cpu().contiguous()
        found.update(f"{name.replace('.base_layer.', '.')} {tuple(whole.shape)}".encode())
        found.update(whole.double().numpy().tobytes())
    return found.hexdigest()
