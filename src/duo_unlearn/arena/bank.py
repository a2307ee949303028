"""A bank of captions for robust DUO: a run's system is attacked on training prompts, and what is found is kept."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

from ..attacks.interface import Findings
from ..attacks.registry import ATTACKS, caption_attacks
from ..attacks.tensors import conditioning_of
from ..erasers.robust.bank import Caption, distinct, read_bank, write_bank
from ..errors import DuoError
from ..families.tokens import sequence, word_ids
from ..runs.attempts import read_group
from ..runs.folder import Run
from ..session import Session
from ..storage.files import seed_of, write_text
from ..system import System
from .attempts import make_attempts
from .findings import FindingsFile
from .plans import AttackPlan, Plan, attack_plans
from .sharing import share_pairs

FOLDER: Final = "bank"
"""Of a run's folder: the searches lie there, apart from the run's own attempts, under a seed of their own."""


class Searched(NamedTuple):
    """What attacks found on a system. apart: the run folder of their attempts. plans: those that ran.

    captions: in order of the attacks. provenance: of the system that was attacked, and how. reasons: attack → why it
    did not run.
    """

    apart: Session
    plans: list[Plan]
    captions: list[Caption]
    provenance: dict[str, Any]
    reasons: dict[str, str]


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
    if path.suffix != ".safetensors":  # readers take some other endings for pickles
        raise DuoError("a bank is a safetensors file", got=str(path), hint=f"-o {path.stem or 'bank'}.safetensors")
    if path.exists():
        read_bank(path)  # another file is not replaced
    searched = search(session, system, attacks, count, budgets or {})
    for name, reason in searched.reasons.items():
        say(f"{name}: not in the bank, {reason}")
    if not searched.captions:
        raise no_caption(attacks)
    write_bank(path, searched.captions, searched.provenance)
    ran = ", ".join(searched.provenance["attacks"])
    say(f"bank: {len(searched.captions)} captions of {ran} → {path}")
    return path


def search(
    session: Session,
    system: System,
    attacks: Sequence[str],
    count: int,
    budgets: Mapping[str, Mapping[str, Any]],
) -> Searched:
    """Attack a system as `fill_bank` does, and give what is found. Any number of processes may share it."""
    for name in attacks:
        ATTACKS.check(name)
        if name not in (usable := caption_attacks()):
            raise DuoError("this attack finds no caption", got=name, hint=f"one of {', '.join(usable)}")
    apart = _apart(session)
    with session.run.claim("training prompts", wait=True):  # another edit's rounds may have another number of them
        plan = AttackPlan(list(attacks), prompts=count, file=_training_prompts(session, count), budgets=budgets)
        plans = attack_plans(apart, [system], plan)
    states, _ = make_attempts(apart, plans)
    reasons = {one.group.attack: one.reason for one in states if one.reason is not None}
    ran = [one for one in plans if one.attack.name not in reasons]
    found = [(one.attack.name, findings) for one in ran for findings in _findings(apart.run, one)]
    provenance = {
        "run": session.run.folder.name, "system": system.as_json(), "attacks": [one.attack.name for one in ran],
        "preset": "quick", "budgets": {name: dict(fields) for name, fields in budgets.items()},
        "prompts": count, "seed": apart.settings.seed, "base": session.model.fingerprint(),
    }  # fmt: skip
    asked = {prompt.text for one in ran for prompt in one.scenario.prompts}
    # Searches of tokens run on families that read CLIP alone; another tokenizer has no such sequence.
    written = any(finding.ids is not None for _, each in found for finding in each.findings)
    asked_ids = [sequence(session.model, word_ids(session.model, text)) for text in asked] if written else []
    captions = [one for name, each in found for one in _captions(name, each, asked, asked_ids)]
    return Searched(apart, ran, distinct(captions), provenance, reasons)


def no_caption(attacks: Sequence[str]) -> DuoError:
    """That attacks found nothing that can be read in a prompt's place."""
    hint = "other attacks, or a larger number of prompts"
    return DuoError("the searches found no caption", got=", ".join(attacks), hint=hint)


def _apart(session: Session) -> Session:
    """The run's parts in a folder of its own, under a seed that no evaluation has."""
    seed = seed_of(session.settings.seed, FOLDER) % (1 << 32)
    update = {"output": session.run.folder / FOLDER, "seed": seed}
    apart = Session(session.settings.model_copy(update=update), quiet=session.quiet)
    vars(apart)["model"] = session.model  # read once
    share_pairs(session.run, apart.run, session.settings.edit)
    return apart


def training_prompts(session: Session) -> list[str]:
    """The pairs' unsafe prompts, distinct, in an order that the seed decides. Pairs without any are a DuoError."""
    prompts = sorted({pair.unsafe_prompt for pair in session.pairs if pair.unsafe_prompt})
    if not prompts:
        raise DuoError("a bank needs the pairs' prompts", got="pairs without any", hint="give them in a manifest")
    random.Random(f"{session.settings.seed}/bank").shuffle(prompts)
    return prompts


def _training_prompts(session: Session, count: int) -> Path:
    """A file of some of them; the same for the same run."""
    path = session.run.folder / FOLDER / "training.txt"
    write_text(path, "".join(f"{prompt}\n" for prompt in training_prompts(session)[:count]))
    return path


def _findings(run: Run, plan: Plan) -> list[Findings]:
    """What a search found, part by part; not what lies there of more prompts, or of an edit that was made anew."""
    record, folder = read_group(plan.group.folder(run) / "group.json"), plan.findings_group.folder(run)
    parts = sorted(record.parts) if record is not None else []
    return [FindingsFile(folder / f"found-{part}.json").read().findings for part in parts]


def _captions(
    name: str, found: Findings, asked: Collection[str], asked_ids: Collection[Sequence[int]]
) -> list[Caption]:
    """What was found, as captions. A prompt that was asked is none: a search may leave it as it was.

    asked, asked_ids: those prompts, as texts and as token sequences.
    """
    captions = []
    for finding in found.findings:
        if finding.is_plain and finding.text in asked:
            continue
        if finding.ids is not None and finding.ids in asked_ids:
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
