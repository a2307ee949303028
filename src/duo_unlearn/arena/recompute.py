"""The estimates of an exported folder, computed again from its evidence, as a run's are from its attempts."""

from __future__ import annotations

from ..export.evidence import attempts_in, labels_in, verdicts_in
from ..export.forms import Evidence
from ..records import Estimate
from ..system import System
from .labelled import Labelled
from .results import Asked, judged_under


def recompute(evidence: Evidence) -> list[Estimate]:
    """Every estimate: of judges' words anew, those of what is preserved as the evidence has them."""
    groups = [Asked(record, attempts) for record, attempts in attempts_in(evidence)]
    # A system here has no guard, so no judge is what one works towards.
    systems = {record.group.system: System() for record, _ in groups}
    labels = labels_in(evidence)
    labelled = Labelled(labels, "", evidence.pool) if labels else None
    seed = evidence.sampling.seed
    judged = [judged_under(seed, groups, verdicts, systems, labelled)[0] for verdicts in verdicts_in(evidence)]
    return [*dict.fromkeys(estimate for found in judged for estimate in found), *evidence.kept]
