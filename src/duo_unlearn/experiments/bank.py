"""A bank of captions for robust DUO: a run's system is attacked on training prompts, and what is found is kept."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from ..arena.attempts import make_attempts
from ..arena.findings import FindingsFile
from ..arena.plans import AttackPlan, Plan, attack_plans
from ..attacks.interface import Attack, Findings
from ..attacks.registry import ATTACKS
from ..attacks.tensors import conditioning_of
from ..erasers.robust.bank import Caption, write_bank
from ..errors import DuoError
from ..runs.attempts import read_group
from ..runs.folder import Run
from ..session import Session
from ..storage.files import seed_of, write_text
from ..system import System
from .sharing import share_pairs

FOLDER: Final = "bank"
"""Of a run's folder: the searches lie there, apart from the run's own attempts, under a seed of their own."""


def fill_bank(
    session: Session,
    system: System,
    attacks: Sequence[str],
    count: int,
    path: Path,
    budgets: Mapping[str, Mapping[str, Any]] | None = None,
    say: Callable[[str], None] = lambda _text: None,
) -> Path:
    """Attack a system with quick budgets on `count` of the pairs' unsafe prompts, and write what is found to a bank.

    attacks: searches that give captions; another one is a DuoError. budgets: attack → fields of its budget that are not
    the quick one's. What could not run is said, and is not in the bank; so is a bank of nothing a DuoError. The same
    command goes on after a kill.
    """
    for name in attacks:
        ATTACKS.check(name)
        if not _finds_captions(ATTACKS.get(name)):
            usable = [one for one in ATTACKS.names() if _finds_captions(ATTACKS.get(one))]
            raise DuoError("this attack finds no caption", got=name, hint=f"one of {', '.join(usable)}")
    apart = _apart(session)
    plan = AttackPlan(list(attacks), prompts=count, file=_training_prompts(session, count), budgets=budgets or {})
    plans = attack_plans(apart, [system], plan)
    states, _ = make_attempts(apart, plans)
    captions: list[Caption] = []
    ran = []
    for one, state in zip(plans, states, strict=True):
        if state.reason is not None:
            say(f"{one.attack.name}: not in the bank, {state.reason}")
            continue
        ran.append(one.attack.name)
        captions += [caption for found in _findings(apart.run, one) for caption in _captions(one.attack.name, found)]
    if not captions:
        raise DuoError(
            "the searches found no caption", got=", ".join(attacks), hint="other attacks, or a larger --count"
        )
    provenance = {
        "run": session.run.folder.name, "system": system.as_json(), "attacks": ran, "preset": "quick",
        "budgets": {name: dict(fields) for name, fields in (budgets or {}).items()},
        "prompts": count, "seed": apart.settings.seed, "base": session.model.fingerprint(),
    }  # fmt: skip
    write_bank(path, captions, provenance)
    say(f"bank: {len(captions)} captions of {', '.join(ran)} → {path}")
    return path


def _finds_captions(attack: Attack) -> bool:
    return attack.found_on in ("text", "images", "model") and not attack.has_control


def _apart(session: Session) -> Session:
    """The run's parts in a folder of its own, under a seed that no evaluation has."""
    seed = seed_of(session.settings.seed, FOLDER) % (1 << 32)
    update = {"output": session.run.folder / FOLDER, "seed": seed}
    apart = Session(session.settings.model_copy(update=update), quiet=session.quiet)
    vars(apart)["model"] = session.model  # read once
    share_pairs(session.run, apart.run, session.settings.edit)
    return apart


def _training_prompts(session: Session, count: int) -> Path:
    """A file of some of the pairs' unsafe prompts, distinct; the same for the same run."""
    prompts = sorted({pair.unsafe_prompt for pair in session.pairs if pair.unsafe_prompt})
    if not prompts:
        raise DuoError("a bank needs the pairs' prompts", got="pairs without any", hint="give them in a manifest")
    random.Random(f"{session.settings.seed}/bank").shuffle(prompts)
    path = session.run.folder / FOLDER / "training.txt"
    write_text(path, "".join(f"{prompt}\n" for prompt in prompts[:count]))
    return path


def _findings(run: Run, plan: Plan) -> list[Findings]:
    """What a search found, part by part; not what lies there of more prompts, or of an edit that was made anew."""
    record, folder = read_group(plan.group.folder(run) / "group.json"), plan.findings_group.folder(run)
    parts = sorted(record.parts) if record is not None else []
    return [FindingsFile(folder / f"found-{part}.json").read().findings for part in parts]


def _captions(name: str, found: Findings) -> list[Caption]:
    """What was found, as captions. A prompt that was left as it was is none."""
    captions = []
    for finding in found.findings:
        if finding.is_plain and name != "sneakyprompt":
            continue
        captions.append(
            Caption(
                name,
                finding.text,
                ids=torch.tensor(finding.ids) if finding.ids is not None else None,
                vector=found.tensors[finding.vector] if finding.vector is not None else None,
                behind=conditioning_of(found.tensors, finding.conditioning) if finding.conditioning else None,
            )
        )
    return captions
