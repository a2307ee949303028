"""How a run's images are sampled by its settings, and which of its attempts were sampled otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..runs.attempts import GroupRecord, read_groups
from ..runs.folder import Run
from .tree import Settings, read_settings


def sampling_of(settings: Settings | Mapping[str, Any]) -> dict[str, float]:
    """Steps and guidance of every image that is evaluated or attacked, as far as a run's settings have them."""
    raw = settings.model_dump(include={"evaluate"}) if isinstance(settings, Settings) else settings
    told = raw.get("evaluate") or {}
    return {name: told[name] for name in ("steps", "guidance") if name in told}


def read_sampling(run: Run) -> dict[str, float]:
    """Steps and guidance by the settings of a run's folder; {} where it has none."""
    return sampling_of(read_settings(run.settings)) if run.settings.exists() else {}


def why_other(sampling: Mapping[str, float], wanted: Mapping[str, float]) -> str | None:
    """Why images that were sampled so say nothing of what is wanted, or None. What is not known is no reason."""
    other = {name: value for name, value in sampling.items() if name in wanted and value != wanted[name]}
    told = ", ".join(f"{name} {value:g} where the settings have {wanted[name]:g}" for name, value in other.items())
    return f"its images have {told}: `duo evaluate` or `duo attack` again" if told else None


def read_current(run: Run, settings: Settings | Mapping[str, Any] | None = None) -> list[GroupRecord]:
    """Every group of a run. One whose images were sampled otherwise than the settings say has that as its reason.

    settings: those that are to hold; None: those of the run's folder.
    """
    wanted = read_sampling(run) if settings is None else sampling_of(settings)
    return [r if r.reason else r._replace(reason=why_other(r.sampling, wanted)) for r in read_groups(run)]
