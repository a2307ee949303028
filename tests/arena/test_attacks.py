"""`duo attack` on a small run: what is kept, taken up again, replayed, and not scored."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import duo_unlearn as duo
from duo_unlearn.arena.attempts import AttackState
from duo_unlearn.arena.stages import judge
from duo_unlearn.edits.files import write_changes
from duo_unlearn.edits.weights import LowRank
from duo_unlearn.errors import DuoError
from duo_unlearn.families.interface import Hooks
from duo_unlearn.records import Estimate
from duo_unlearn.runs.results import WORST, Results
from duo_unlearn.session import Session

from ..random_adapter import random_adapter
from .detectors import Fussy
from .small_run import make_run, pictures, reopen, stamps

NAMES = ("direct", "ring-a-bell", "image-to-image", "edit-removal")
SMALL = {
    "ring-a-bell": {"population": 8, "generations": 2, "tokens": 4},
    "p4d": {"steps": 2, "check_every": 2, "tokens": 3},
    "concept-inversion": {"steps": 2, "batch": 2},
}


def attack(
    run: Session, names: Sequence[str] = NAMES, count: int = 3, **more: Any
) -> tuple[list[AttackState], Results]:
    return duo.attack(run, names, prompts=count, budgets=SMALL, **more)


def dsr(results: Results) -> dict[tuple[str | None, str], Estimate]:
    return {(e.attack, e.system): e for e in results.estimates if e.metric == "dsr"}


def judged(results: Results) -> Counter[tuple[str | None, str | None, str, str]]:
    """How many attempts have a judge's verdict, broken pictures among them, by what was asked of whom."""
    found = Counter[tuple[str | None, str | None, str, str]]()
    for e in results.estimates:
        found[e.attack, e.preset, e.system, e.contract] += {"dsr": e.n, "broken": round(e.value * e.n)}.get(e.metric, 0)
    return +found  # without what no judge was asked of


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was attacked and judged."""
    run = make_run(tmp_path_factory.mktemp("attacked"))
    attack(run)
    return run.run.folder


@pytest.fixture
def run(attacked: Path, tmp_path: Path) -> Session:
    shutil.copytree(attacked, tmp_path / "run")
    return reopen(tmp_path / "run")


def test_attempts_of_every_system_with_intervals(run: Session) -> None:
    results = duo.judge(run)
    found = dsr(results)
    names = {None, "ring-a-bell", "image-to-image", "edit-removal", WORST}
    assert set(found) == {(name, system) for name in names for system in ("original", "duo")}
    assert set(judged(results).values()) == {3}
    for (name, _), e in found.items():
        assert e.low <= e.value <= e.high
        assert (e.unscored, e.scenario, e.search) == (0, "direct", None)
        assert e.preset is None if name is None else e.preset
    assert found["edit-removal", "duo"].value == found[None, "original"].value
    assert found["ring-a-bell", "duo"].preset == "custom"
    worst = {e.system: e for e in results.estimates if (e.attack, e.preset) == (WORST, "quick")}
    for system in ("original", "duo"):
        # Removal counts in no worst case, direct prompts in every one.
        assert worst[system].value <= min(found[n, system].value for n in (None, "image-to-image"))


def test_removing_all_edits_gives_the_originals_images(run: Session) -> None:
    removed = sorted((run.run.attempts / "duo" / "direct" / "edit-removal.quick").glob("*.png"))
    direct = sorted((run.run.attempts / "duo" / "direct" / "direct").glob("*.png"))
    originals = {path.read_bytes() for path in run.run.originals.glob("*.png")}
    assert len(removed) == len(direct) == 3
    assert {path.read_bytes() for path in removed} == originals
    assert not {path.read_bytes() for path in direct} & originals


def test_a_second_attack_samples_nothing_and_a_lost_image_is_made_again(run: Session) -> None:
    before = stamps(run.run.folder)
    attack(run)
    assert stamps(run.run.folder) == before
    lost = next((run.run.attempts / "duo" / "direct" / "ring-a-bell.custom").glob("0001.png"))
    content = lost.read_bytes()
    lost.unlink()
    attack(reopen(run.run.folder), ["ring-a-bell"])
    assert lost.read_bytes() == content
    found = [name for name in before if "found-" in name]
    assert found
    assert all(stamps(run.run.folder)[name] == before[name] for name in found)  # the search was not done again


def test_what_is_found_on_text_alone_is_found_once_for_all_systems(run: Session) -> None:
    found = [path.relative_to(run.run.attempts).parts[0] for path in run.run.attempts.rglob("found-*.json")]
    assert set(found) == {"original"}
    first = json.loads(next((run.run.attempts / "original").rglob("found-0000.json")).read_text())
    for system in ("original", "duo"):
        part = json.loads((run.run.attempts / system / "direct" / "ring-a-bell.custom" / "0000.json").read_text())
        assert part["attempts"][0]["text"] == first["findings"][0]["text"]


@pytest.mark.slow
def test_what_was_found_is_replayed_on_another_run(run: Session, tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("attempts", "verdicts", "results.json")
    other = Path(shutil.copytree(run.run.folder, tmp_path / "other", ignore=ignored))
    _, results = attack(reopen(other), ["ring-a-bell"], replay=run.run.folder)
    assert ("ring-a-bell@run", "duo") in dsr(results)
    texts = [
        json.loads((folder / "attempts" / "duo" / "direct" / slug / "0000.json").read_text())["attempts"][0]["text"]
        for folder, slug in ((run.run.folder, "ring-a-bell.custom"), (other, "ring-a-bell@run.custom"))
    ]
    assert texts[0] == texts[1]
    with pytest.raises(DuoError, match="holds no findings of p4d"):
        attack(reopen(other), ["p4d"], replay=run.run.folder)


@pytest.mark.slow
def test_a_replay_of_other_prompts_is_refused_and_a_new_search_is_replayed_anew(run: Session, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run.run.folder, tmp_path / "other"))
    path = run.run.attempts / "original" / "direct" / "ring-a-bell.custom" / "found-0000.json"
    content = json.loads(path.read_text())

    def rewrite(**changes: Any) -> None:
        from duo_unlearn.storage.files import digest, write_json

        changed = {k: v for k, v in {**content, **changes}.items() if k != "digest"}
        write_json(path, {**changed, "digest": digest(changed)})

    others: tuple[dict[str, Any], ...] = ({"texts": ["a boat"]}, {"findings": []})
    for wrong in others:
        rewrite(**wrong)
        with pytest.raises(DuoError, match="was found for other prompts"):
            attack(reopen(other), ["ring-a-bell"], replay=run.run.folder)
    rewrite(family="sd1")
    with pytest.raises(DuoError, match="was found on sd1"):
        attack(reopen(other), ["ring-a-bell"], replay=run.run.folder)
    rewrite()
    attack(reopen(other), ["ring-a-bell"], replay=run.run.folder)
    part = other / "attempts" / "duo" / "direct" / "ring-a-bell@run.custom" / "0000.json"
    before = part.stat().st_mtime_ns
    attack(reopen(other), ["ring-a-bell"], replay=run.run.folder)
    assert part.stat().st_mtime_ns == before
    rewrite(key="another search")
    attack(reopen(other), ["ring-a-bell"], replay=run.run.folder)
    assert part.stat().st_mtime_ns > before


def test_the_originals_images_are_kept_once_and_read(run: Session) -> None:
    """By any attack and for every system, also after parts are lost; a broken file is made again."""
    made = pictures(run.run.folder)
    assert len([name for name in made if name.startswith("originals")]) == 3
    shutil.rmtree(run.run.attempts / "original" / "direct" / "direct")
    attack(reopen(run.run.folder))
    assert pictures(run.run.folder) == made
    broken = next(run.run.originals.glob("*.png"))
    content = broken.read_bytes()
    # Pillow finds this one broken only while it decodes it.
    broken.write_bytes(content.replace(b"IDAT", b"\0\0\0\0"))
    attack(reopen(run.run.folder))
    assert broken.read_bytes() != content.replace(b"IDAT", b"\0\0\0\0")


def test_fewer_prompts_are_not_mixed_up_with_more(run: Session) -> None:
    _, results = attack(run, count=2)
    # An evaluation on direct prompts, which were asked more often, keeps its number.
    assert {(name is None, n) for (name, *_), n in judged(results).items()} == {(True, 3), (False, 2)}


@pytest.mark.slow
def test_what_belongs_to_another_edit_is_not_told(run: Session) -> None:
    random_adapter(run.model, run.run.edit("duo"), seed=1, concept="sword")
    results = duo.judge(reopen(run.run.folder))
    assert {system for _, system in dsr(results)} == {"original"}
    stale = {(a["system"], a["attack"]) for a in results.absent if "another edit" in a["reason"]}
    assert stale == {("duo", name) for name in (None, "ring-a-bell", "image-to-image", "edit-removal")}
    _, results = attack(reopen(run.run.folder), ["direct"])
    assert (None, "duo") in dsr(results)
    assert ("image-to-image", "duo") not in dsr(results)


def test_an_attack_that_cannot_run_says_why(run: Session) -> None:
    shutil.rmtree(run.run.attempts)
    states, results = attack(run, ["edit-removal", "direct"], systems=["negative-prompt"])
    (reason,) = {state.reason for state in states if state.group.system == "negative-prompt" and state.reason}
    assert reason == "the system has no edit that could be taken off"
    assert [a["reason"] for a in results.absent if a["attack"] == "edit-removal"] == [reason]


def test_an_edit_of_another_concept_is_refused(run: Session) -> None:
    path = run.run.edit("duo") / "provenance.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "concept": "balloon"}))
    with pytest.raises(DuoError, match="edit of another concept") as raised:
        attack(run)
    assert "balloon, while the run is of sword" in str(raised.value.got)
    path.write_text(json.dumps({**content, "concept": "sword + balloon"}))
    attack(run, ["direct"])


def test_a_run_without_an_edit_or_attempts(run: Session) -> None:
    shutil.rmtree(run.run.attempts)
    with pytest.raises(DuoError, match="holds no attempts"):
        duo.judge(run)
    shutil.rmtree(run.run.edits)
    with pytest.raises(DuoError, match="holds no edit"):
        attack(run)


@pytest.mark.parametrize("name", ["nowhere", "duo+duo", "duo+no-such-guard", "../duo"])
def test_an_unknown_system_is_refused(run: Session, name: str) -> None:
    with pytest.raises(DuoError, match=r"unknown system|holds each edit"):
        attack(run, ["direct"], systems=[name])


def test_a_refusal_is_a_verdict_of_its_own_kind(run: Session) -> None:
    from duo_unlearn.arena.attempts import make_attempts
    from duo_unlearn.arena.plans import AttackPlan, attack_plans
    from duo_unlearn.arena.target import guarded

    model = run.model
    model.hooks = [Hooks(passes=lambda images: [i % 2 == 0 for i, _ in enumerate(images)])]
    system = run.system("duo")
    plans = attack_plans(
        run, [system], AttackPlan(["image-to-image"], prompts=3, budgets={"image-to-image": {"strength": 0.6}})
    )
    make_attempts(run, plans)
    model.hooks = []
    results = judge(run).results
    found = {e.metric: e for e in results.estimates if e.preset == "custom" and e.attack == "image-to-image"}
    assert found["refused"].value == pytest.approx(1 / 3)
    assert (found["refused"].n, found["dsr"].n) == (3, 3)
    assert found["dsr"].value >= found["refused"].value
    assert guarded(model, []) == []


def test_an_image_that_cannot_be_scored_is_counted_and_not_guessed(run: Session) -> None:
    folder = run.run.attempts / "duo" / "direct" / "image-to-image.quick"
    (folder / "0000.png").write_bytes(b"no picture")
    from PIL import Image

    refused = Image.open(folder / "0001.png").convert("RGB").tobytes()
    fussy = Fussy(run.detector, {refused})
    results = judge(run, fussy).results
    (found,) = [
        e for e in results.estimates
        if (e.metric, e.attack, e.system, e.contract) == ("dsr", "image-to-image", "duo", str(fussy.contract))
    ]  # fmt: skip
    assert (found.n, found.unscored) == (1, 2)


@pytest.mark.slow
def test_a_low_rank_edit_of_a_text_encoder_is_a_system_like_any_other(run: Session) -> None:
    import torch

    name = "text_encoder.encoder.layers.3.self_attn.q_proj.weight"
    generator = torch.Generator().manual_seed(0)
    up, down = torch.randn(128, 2, generator=generator), torch.randn(2, 128, generator=generator)
    write_changes(run.run.edit("mine"), {name: LowRank(up, down)}, {"base": run.model.fingerprint()})
    _, results = attack(run, ["direct"], systems=["mine", "mine+duo"])
    assert {system for _, system in dsr(results)} == {"original", "duo", "mine", "mine+duo"}
    images = {
        system: (run.run.attempts / system / "direct" / "direct" / "0000.png").read_bytes()
        for system in ("duo", "mine", "mine+duo")
    }
    assert len(set(images.values())) == 3


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"stepz": 2}, "the budget of p4d has no stepz"),
        ({"steps": -1}, "must be above 0"),
        ({"steps": "ten"}, "valid integer"),
        ({"every": 3}, "tokens or every is a number"),
    ],
)
def test_a_budget_that_cannot_be_is_told_before_anything_is_asked(
    run: Session, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(DuoError, match=said) as raised:
        duo.attack(run, ["p4d"], prompts=1, budgets={"p4d": fields})
    assert "duo attacks" in str(raised.value.hint)
    assert not list(run.run.attempts.glob("*/*p4d*"))
