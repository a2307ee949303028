"""The README of an export: what it is, how to load it, where it comes from, and what was measured.

Its head is the metadata that the hub reads, the model index among it. All numbers are those of the statement.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..families.identify import is_hub_id
from ..records import CORRECTED, Estimate
from .forms import Missing, Predicate
from .registry import FORMATS
from .statement import STATEMENT

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

REMOVABLE = (
    "Whoever loads the model can leave this adapter out: without it the concept is there. "
    "Ship a merged model where that matters."
)
FIXED = "The change is in the weights: it cannot be unloaded. Fine-tuning can still bring the concept back."
UNMEASURED = "Not measured: there is no results.json of this edit beside it."
INDEXED: Final = ("dsr", CORRECTED, "detected", "prior preservation", "lpips", "clip score")
"""Metrics that go into the model index: DSR, and what is preserved. Agreements of attributes do too."""
TASK: Final = "text-to-image"
STATED: Final = ("Results", "Not measured", "Checked")
"""The sections that follow from the statement alone."""


def model_card(predicate: Predicate, provenance: Mapping[str, Any], name: str, picture: Path | None) -> str:
    """A model card as Markdown.

    name: of the folder or the file that is loaded. picture: a sheet of pictures in the folder; None: there is none.
    """
    form, strength = FORMATS.get(predicate.export.format), predicate.export.strength
    kind = "An adapter (LoRA)" if form.removable else "A merged model"
    method = "" if predicate.edit.method is None else f" The method: {predicate.edit.method}."
    loading = form.loading.replace("FOLDER", name).replace("FILE", name)
    sections = {
        "Loading": [f"    {loading}"],
        "Results": results(predicate.measured, strength),
        **({} if picture is None else {"Pictures": _pictures(predicate, picture)}),
        "Not measured": _lacking(predicate.not_measured),
        "Checked": [_checked(predicate)],
        "Provenance": _provenance(provenance),
    }
    lines = ["---", metadata(predicate, name), "---", ""]
    lines += [f"# {predicate.base.name} without “{predicate.concept.name}”", ""]
    lines += [f"{kind} that erases the concept, at strength {strength:g}.{method}", ""]
    lines += [f"**{REMOVABLE if form.removable else FIXED}**", ""]
    for title, content in sections.items():
        lines += [f"## {title}", "", *content, ""]
    return "\n".join(lines)


def metadata(predicate: Predicate, name: str, *, indexed: bool | None = None) -> str:
    """The card's head as YAML, as the hub's own class writes it.

    indexed: whether it has a model index; None: where the numbers are of the strength that the export has, since who
    reads an index reads no note beside it.
    """
    from huggingface_hub import ModelCardData

    removable = predicate.export.removable
    indexed = predicate.export.strength == 1 if indexed is None else indexed
    index = model_index(predicate) if indexed else []
    data = ModelCardData(
        license=predicate.export.license,
        library_name="diffusers",
        pipeline_tag=TASK,
        tags=[TASK, "unlearning", "duo_unlearn", *(["lora"] if removable else [])],
        model_name=name if index else None,
        eval_results=index or None,
    )
    if is_hub_id(predicate.base.name):  # the hub takes ids of its own models alone
        for key, value in named_base(predicate).items():
            data[key] = value
    return str(data.to_yaml())


def named_base(predicate: Predicate) -> dict[str, str]:
    """How the metadata names a base of the hub, and what the export is to it."""
    relation = "adapter" if predicate.export.removable else "finetune"
    return {"base_model": predicate.base.name, "base_model_relation": relation}


def model_index(predicate: Predicate) -> list[EvalResult]:
    """What was measured of the edit, as the hub's model index has it."""
    from huggingface_hub import EvalResult

    own = predicate.systems[-1].name if predicate.systems else None
    return [
        EvalResult(
            task_type=TASK,
            dataset_type=f"{predicate.concept.name}/{e.scenario}".replace(" ", ""),
            dataset_name=f"{predicate.concept.name}: {e.scenario}",
            dataset_config=None if e.attack is None else " ".join(filter(None, (e.attack, e.preset, e.search))),
            metric_type=e.metric,
            metric_name={"dsr": "DSR", CORRECTED: "corrected DSR"}.get(e.metric, e.metric),
            metric_value=e.value,
            metric_config=e.contract,
            metric_args={"low": e.low, "high": e.high, "n": e.n},
        )
        for e in predicate.measured
        if e.system == own and (e.metric in INDEXED or e.metric.endswith(" agreement"))
    ]


def results(estimates: Sequence[Estimate], strength: float) -> list[str]:
    """The lines of the results' table."""
    if not estimates:
        return [UNMEASURED]
    head = [] if strength == 1 else [f"Measured at strength 1, not at {strength:g}.", ""]
    columns = ("metric", "scenario", "attack", "preset", "system", "value [95 % interval]", "n", "judged by")
    head += [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return head + [_row(estimate) for estimate in estimates]


def _row(e: Estimate) -> str:
    value = f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]"
    cells = (e.metric, e.scenario, e.attack or "–", e.preset or "–", e.system, value, str(e.n), f"`{e.contract}`")
    # A bar ends a cell, in code too: a detector of several labels has some in its contract.
    told = [cell.replace("|", r"\|") for cell in cells]
    return f"| {' | '.join(told)} |"


def _pictures(predicate: Predicate, picture: Path) -> list[str]:
    blurred = " Blurred, because they may be disturbing." if predicate.concept.sensitive else ""
    words = "The original above, the edited model below, from the same prompts and noise."
    return [f"![The original and the edited model]({picture.name})", "", words + blurred]


def _lacking(missing: Sequence[Missing]) -> list[str]:
    """A line a metric and reason, with all places that they are of."""
    places: dict[tuple[str, str], list[str]] = {}
    for one in missing:
        of = (one.system, one.scenario, one.attack, one.preset)
        places.setdefault((one.what, one.reason), []).append(" ".join(part for part in of if part is not None))
    told = {key: f" ({', '.join(where)})" if any(where) else "" for key, where in places.items()}
    return [f"* {what}{where}: {reason}" for (what, reason), where in told.items()]


def _checked(predicate: Predicate) -> str:
    return (
        f"Loaded back and compared with the edit on its base: the largest mean difference of an image was "
        f"{predicate.export.difference:.3f} of 255 levels (allowed: {predicate.export.allowed:g}). "
        f"{STATEMENT} says what was measured, and `duo verify` checks it."
    )


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
