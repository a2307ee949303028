"""The README of an adapter or a merged model: what it is, how to load it, where it comes from, what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..records import Estimate

LOAD = {
    "diffusers": 'pipe.load_lora_weights("FOLDER")',
    "kohya": "Put FILE into ComfyUI's models/loras or A1111's models/Lora, and use it at weight 1.",
    "merged": 'pipe = DiffusionPipeline.from_pretrained("FOLDER", use_safetensors=True)',
    "checkpoint": "Put FILE into ComfyUI's models/checkpoints or A1111's models/Stable-diffusion.",
}
REMOVABLE = (
    "Whoever loads the model can leave this adapter out: without it the concept is there. "
    "Ship a merged model where that matters."
)
FIXED = "The change is in the weights: it cannot be unloaded. Fine-tuning can still bring the concept back."


def model_card(
    form: str, name: str, provenance: Mapping[str, Any], estimates: Sequence[Estimate], strength: float, check: str
) -> str:
    """A model card as Markdown. check: one sentence on how the export was compared with the original run."""
    concept, base = str(provenance.get("concept", "a concept")), str(provenance.get("model", "unknown"))
    merged = form in ("merged", "checkpoint")
    tags = ["text-to-image", "unlearning", "duo_unlearn", *([] if merged else ["lora"])]
    front = {"base_model": base, "library_name": "diffusers", "tags": tags}
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in front.items()), "---", ""]
    lines += [f"# {base} without “{concept}”", ""]
    kind = "A merged model" if merged else "An adapter (LoRA)"
    method = "by direct unlearning optimization (DUO)"
    lines += [f"{kind} from which the concept was erased {method}, at strength {strength:g}.", ""]
    lines += [
        f"**{FIXED if merged else REMOVABLE}**",
        "",
        "## Loading",
        "",
        f"    {LOAD[form].replace('FOLDER', name).replace('FILE', name)}",
        "",
    ]
    lines += [
        "## Results",
        "",
        *_results(estimates),
        "",
        "## Checked",
        "",
        check,
        "",
        "## Provenance",
        "",
        *_provenance(provenance),
        "",
    ]
    return "\n".join(lines)


def _results(estimates: Sequence[Estimate]) -> list[str]:
    if not estimates:
        return ["Not measured: there is no results.json beside the adapter."]
    head = ["| metric | prompts | model | value [95 % interval] | n | judged by |", "|---|---|---|---|---|---|"]
    return head + [
        f"| {e.metric} | {e.prompts} | {e.model} | {e.value:.3f} [{e.low:.3f}, {e.high:.3f}] | {e.n} | `{e.contract}` |"
        for e in estimates
    ]


def _provenance(provenance: Mapping[str, Any]) -> list[str]:
    rows: list[str] = []
    for key, value in provenance.items():
        if key == "pairs":
            rows.append(f"* pairs: {len(value)}; SHA-256 of each member in provenance.json")
        elif key == "parts":
            rows += [
                f"* part: {part.get('concept')}, weight {part.get('weight')}, sha256 {part.get('sha256')}"
                for part in value
            ]
        else:
            rows.append(f"* {key}: {json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value}")
    return rows
