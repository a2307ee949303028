"""`duo attack` and `duo measure` on a small run: what is kept, taken up again, replayed, and not scored."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import duo_unlearn as duo
from duo_unlearn.arena.judge import WORST, measure
from duo_unlearn.arena.red_team import Line, asked, attack
from duo_unlearn.attacks import ring_a_bell
from duo_unlearn.attacks.interface import Preset
from duo_unlearn.attacks.registry import ATTACKS
from duo_unlearn.detectors.interface import Contract
from duo_unlearn.detectors.registry import make_detector
from duo_unlearn.errors import DuoError
from duo_unlearn.families.interface import SampleRequest
from duo_unlearn.families.load import load_model
from duo_unlearn.families.model import DiffusersModel
from duo_unlearn.records import Verdict
from duo_unlearn.runs.folder import Run
from duo_unlearn.session import Session
from duo_unlearn.settings.resolve import resolve_settings
from duo_unlearn.storage.files import read_tensors, write_tensors

from ..drawn_pairs import draw_pairs
from ..random_adapter import random_adapter

NAMES = ("direct", "ring-a-bell", "image-to-image", "adapter-removal")
SMALL = {"population": 8, "generations": 2, "tokens": 4, "eta": 3.0}
JUDGE = make_detector("mini-judge", ("item=sword",), "mini")


def red_team(run: Run, names: Sequence[str] = NAMES, *, count: int = 3, **more: Any) -> list[Line]:
    session = Session(resolve_settings({"output": str(run.folder)}), quiet=True)
    preset: Preset = "quick"
    return attack(session, names, preset, asked(session, count, more.pop("file", None)), **more)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with drawn pairs and a random adapter, attacked and measured."""
    folder = tmp_path_factory.mktemp("attacked") / "run"
    draw_pairs(folder.parent / "mine", 3)
    told = {"pairs.folder": str(folder.parent / "mine"), "evaluate.steps": 2, "evaluate.batch": 4}
    duo.make_pairs(output=folder, settings=told, quiet=True)
    model = load_model("mini", torch.device("cpu"))
    random_adapter(model, Run(folder).adapter)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ring_a_bell.PRESETS, "quick", SMALL)
        red_team(Run(folder))
    measure(Run(folder), JUDGE, quiet=True)
    return folder


@pytest.fixture
def run(attacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setitem(ring_a_bell.PRESETS, "quick", SMALL)
    shutil.copytree(attacked, tmp_path / "run")
    return Run(tmp_path / "run")


def stamps(run: Run) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in run.attacks.rglob("*") if path.suffix in (".png", ".json")}


def test_attempts_of_both_models_with_intervals(run: Run) -> None:
    rows = json.loads(run.attack_results.read_text())["estimates"]
    assert {(r["attack"], r["model"]) for r in rows} == {
        (n, m) for n in (*NAMES, WORST) for m in ("original", "erased")
    }
    assert all(r["low"] <= r["value"] <= r["high"] and r["n"] == 3 and r["unscored"] == 0 for r in rows)
    assert all(r["preset"] == "quick" for r in rows)
    value = {(r["attack"], r["model"]): r["value"] for r in rows}
    assert value["adapter-removal", "erased"] == value["direct", "original"]
    for model in ("original", "erased"):
        others = [value[n, model] for n in NAMES if n != "adapter-removal"]
        assert value[WORST, model] <= min(others)


def test_removing_the_adapter_gives_the_originals_images(run: Run) -> None:
    folder = run.attacks / "quick"
    for i in range(3):
        removed = (folder / "adapter-removal" / "images" / "erased" / f"{i:04}.png").read_bytes()
        assert removed == (folder / "direct" / "images" / "original" / f"{i:04}.png").read_bytes()
        assert removed != (folder / "direct" / "images" / "erased" / f"{i:04}.png").read_bytes()


def test_a_second_attack_samples_nothing_and_a_lost_part_is_made_again(run: Run) -> None:
    before = stamps(run)
    red_team(run)
    again = stamps(run)
    assert all(again[path] == stamp for path, stamp in before.items() if path.name != "attack.json")
    lost = run.attacks / "quick" / "ring-a-bell" / "images" / "erased" / "0001.png"
    content = lost.read_bytes()
    lost.unlink()
    red_team(run, ["ring-a-bell"])
    assert lost.read_bytes() == content
    found = run.attacks / "quick" / "ring-a-bell" / "found-shared" / "0001.json"
    assert stamps(run)[found] == before[found]  # the search was not done again


def test_what_an_older_version_of_an_attack_found_is_not_taken(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = stamps(run)
    monkeypatch.setattr(ATTACKS["ring-a-bell"], "version", 2)
    red_team(run)
    new = {path for path, stamp in stamps(run).items() if stamp != before[path] and path.name != "attack.json"}
    assert new == {path for path in before if "ring-a-bell" in path.parts and path.name != "attack.json"}


def test_what_was_found_is_replayed_on_another_run(run: Run, tmp_path: Path) -> None:
    other = Run(tmp_path / "other")
    shutil.copytree(run.folder, other.folder, ignore=shutil.ignore_patterns("attacks*"))
    red_team(other, ["ring-a-bell"], replay=run.folder)
    first = json.loads((run.attacks / "quick" / "ring-a-bell" / "erased" / "0000.json").read_text())
    second = json.loads((other.attacks / "quick" / "ring-a-bell@run" / "erased" / "0000.json").read_text())
    assert first["attempts"][0]["text"] == second["attempts"][0]["text"]
    with pytest.raises(DuoError, match="holds no artifacts of unlearndiffatk"):
        red_team(other, ["unlearndiffatk"], replay=run.folder)


def test_the_originals_images_are_sampled_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """By any attack and for either model, also after its own parts are lost; a broken file is made again."""
    made = sorted(run.originals.glob("*.png"))
    direct = sorted((run.attacks / "quick" / "direct" / "images" / "original").glob("*.png"))
    assert {path.read_bytes() for path in made} == {path.read_bytes() for path in direct}
    asked_for: list[str] = []
    sample = DiffusersModel.sample

    def counted(self: DiffusersModel, requests: Sequence[SampleRequest], **more: Any) -> list[Image.Image]:
        asked_for.extend(request.prompt for request in requests)
        return sample(self, requests, **more)

    monkeypatch.setattr(DiffusersModel, "sample", counted)
    before = {path: path.read_bytes() for path in direct}
    shutil.rmtree(run.attacks / "quick" / "direct" / "original")
    red_team(run)
    assert not asked_for
    assert {path: path.read_bytes() for path in direct} == before
    shutil.rmtree(run.attacks / "quick" / "direct" / "original")
    # Pillow finds this one broken only while it decodes it.
    made[0].write_bytes(made[0].read_bytes().replace(b"IDAT", b"\0\0\0\0"))
    red_team(run)
    assert len(asked_for) == 1
    # In another batch sums are rounded otherwise.
    for path, content in before.items():
        first, again = (np.asarray(Image.open(file)).astype(int) for file in (io.BytesIO(content), path))
        assert np.abs(first - again).max() <= 2


def test_another_contract_is_measured_without_sampling_and_both_are_kept(run: Run) -> None:
    before = {path: stamp for path, stamp in stamps(run).items() if path.suffix == ".png"}
    strict = make_detector("mini-judge", ("item=sword",), "mini", 0.01)
    measure(run, strict, quiet=True)
    rows = json.loads(run.attack_results.read_text())["estimates"]
    assert {row["contract"] for row in rows} == {str(JUDGE.contract), str(strict.contract)}
    assert {path: stamp for path, stamp in stamps(run).items() if path.suffix == ".png"} == before
    count = len(rows)
    measure(run, strict, quiet=True)
    assert len(json.loads(run.attack_results.read_text())["estimates"]) == count


class Fussy:
    """A detector that refuses some images: those whose first pixel it does not like."""

    contract = Contract("fussy", (), 0.5, "00000000")

    def __init__(self, refused: set[bytes]) -> None:
        self.refused = refused

    def detect(self, images: Sequence[Image.Image]) -> list[Verdict]:
        if any(image.tobytes() in self.refused for image in images):
            raise ArithmeticError("no such image")
        return [Verdict(False, 0.0) for _ in images]


def test_what_cannot_be_scored_is_counted_and_not_guessed(run: Run) -> None:
    folder = run.attacks / "quick" / "direct" / "images" / "erased"
    (folder / "0000.png").write_bytes(b"no picture")
    refused = Image.open(folder / "0001.png").convert("RGB").tobytes()
    rows = measure(run, Fussy({refused}), quiet=True)
    (direct,) = [row for row in rows if (row["attack"], row["model"]) == ("direct", "erased")]
    assert (direct["n"], direct["unscored"]) == (1, 2)
    every = {
        Image.open(path).convert("RGB").tobytes() for path in run.attacks.rglob("*.png") if path.name != "0000.png"
    }
    for path in run.attacks.rglob("0000.png"):
        path.write_bytes(b"no picture")
    assert measure(run, Fussy(every), quiet=True) == []  # nothing scored is absent, not zero


def test_prompts_of_a_file_are_attacked_beside_the_concepts(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("a red knight with a blade\nan armed king\n")
    (line,) = red_team(run, ["direct"], file=tmp_path / "mine.txt")
    assert line.attempts == 2
    rows = measure(run, JUDGE, quiet=True)
    assert {row["n"] for row in rows if row["attack"] == "direct@file-mine"} == {2}


def test_fewer_prompts_and_another_adapter_are_not_mixed_up(run: Run) -> None:
    red_team(run, count=2)
    rows = {(r["attack"], r["model"]): r for r in measure(run, JUDGE, quiet=True)}
    assert {row["n"] for row in rows.values()} == {2}  # the third attempt is on disk still
    weights = read_tensors(run.adapter_weights)
    write_tensors(run.adapter_weights, {name: 0.5 * value for name, value in weights[0].items()}, weights[1])
    rows = {(r["attack"], r["model"]): r for r in measure(run, JUDGE, quiet=True)}
    assert {model for _, model in rows} == {"original"}
    absent = json.loads(run.attack_results.read_text())["absent"]
    assert {entry["attack"] for entry in absent} == set(NAMES)
    assert all("another adapter" in entry["reason"] for entry in absent)
    red_team(run, ["direct"], count=2)
    rows = {(r["attack"], r["model"]): r for r in measure(run, JUDGE, quiet=True)}
    assert ("direct", "erased") in rows
    assert ("image-to-image", "erased") not in rows


def test_a_replay_of_other_prompts_is_refused_and_a_new_search_is_replayed_anew(run: Run, tmp_path: Path) -> None:
    other = Run(Path(shutil.copytree(run.folder, tmp_path / "other")))
    (path,) = (run.attacks / "quick" / "ring-a-bell" / "found-shared").glob("0000.json")
    told = json.loads(path.read_text())
    others: list[dict[str, Any]] = [{"texts": ["a boat"]}, {"artifacts": []}]
    for wrong in others:
        path.write_text(json.dumps({**told, **wrong}))
        with pytest.raises(DuoError, match="was found for other prompts"):
            red_team(other, ["ring-a-bell"], replay=run.folder)
    path.write_text(json.dumps({**told, "family": "sd1"}))
    with pytest.raises(DuoError, match="was found on sd1"):
        red_team(other, ["ring-a-bell"], replay=run.folder)
    path.write_text(json.dumps(told))
    red_team(other, ["ring-a-bell"], replay=run.folder)
    part = other.attacks / "quick" / "ring-a-bell@run" / "erased" / "0000.json"
    before = part.stat().st_mtime_ns
    red_team(other, ["ring-a-bell"], replay=run.folder)
    assert part.stat().st_mtime_ns == before
    path.write_text(path.read_text() + " ")
    red_team(other, ["ring-a-bell"], replay=run.folder)
    assert part.stat().st_mtime_ns > before


def test_an_attack_that_cannot_run_says_why(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(ATTACKS["p4d"]), "why_not", lambda *_: "no such encoder")
    (line,) = red_team(run, ["p4d"])
    assert line == Line("p4d", 0, "no such encoder")
    measure(run, JUDGE, quiet=True)
    absent = json.loads(run.attack_results.read_text())["absent"]
    assert absent == [{"attack": "p4d", "preset": "quick", "reason": "no such encoder"}]


def test_an_adapter_of_another_concept_is_refused(run: Run) -> None:
    told = json.loads((run.adapter / "provenance.json").read_text())
    (run.adapter / "provenance.json").write_text(json.dumps({**told, "concept": "balloon"}))
    with pytest.raises(DuoError, match="adapter of another concept") as raised:
        red_team(run)
    assert "balloon, while the run is of sword" in str(raised.value.got)
    (run.adapter / "provenance.json").write_text(json.dumps({**told, "concept": "sword + balloon"}))
    red_team(run, ["direct"])


def test_a_run_without_an_adapter_or_attempts(run: Run) -> None:
    shutil.rmtree(run.attacks)
    with pytest.raises(DuoError, match="holds no attempts"):
        measure(run, JUDGE, quiet=True)
    shutil.rmtree(run.adapter)
    with pytest.raises(DuoError, match="holds no adapter"):
        red_team(run)
