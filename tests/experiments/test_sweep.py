"""A sweep over β: what is shared, what is resumed, which β is on the frontier, and which to ship."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import duo_unlearn as duo
from duo_unlearn.errors import DuoError
from duo_unlearn.experiments.sweep import Assault, choose, sweep
from duo_unlearn.families.load import load_model
from duo_unlearn.pairs.manifest import set_keep
from duo_unlearn.report.frontier import Point, _labels, frontier_plot
from duo_unlearn.runs.folder import Run
from duo_unlearn.session import Session
from duo_unlearn.settings.resolve import resolve_settings
from duo_unlearn.storage.files import read_tensors

from ..drawn_pairs import draw_pairs
from ..random_adapter import random_adapter


def point(at: float, kept: float, *dsr: float) -> Point:
    return Point(at, (kept, kept - 0.01, kept + 0.01, 20), {f"a{i}": (d, d / 2, 1.0, 20) for i, d in enumerate(dsr)})


def test_the_frontier_and_what_to_ship() -> None:
    points = [
        point(5, 0.90, 1.0, 0.96),
        point(9, 0.95, 0.99, 0.97),
        point(20, 0.98, 0.9, 1.0),
        point(60, 0.97, 0.8, 1.0),
    ]
    chosen = choose(points, 0.95)
    assert chosen.frontier == [9, 20]  # 5 is beaten by 9 and 60 by 20
    assert chosen.ship == 9
    assert choose(points, 0.9).ship == 20
    assert choose(points, 0.99).ship is None


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_same_points_give_the_same_picture(suffix: str, tmp_path: Path) -> None:
    points = [point(5, 0.90, 1.0, 0.96, 0.5, 0.4), point(9, 0.95, 0.99, 0.97, 0.6, 0.3)]
    for name in ("a", "b"):
        frontier_plot(points, "beta", tmp_path / f"{name}.{suffix}")
    content = (tmp_path / f"a.{suffix}").read_bytes()
    assert content == (tmp_path / f"b.{suffix}").read_bytes()
    assert len(content) > 2000


def test_points_side_by_side_have_one_label() -> None:
    x, y = [0.90, 0.95, 0.99, 0.995, 0.991], [1.0, 0.9, 0.2, 0.1, 0.0]
    found = _labels([9, 100, 500, 1000, 2000], x, y, 0.1)
    assert found == [("9", (0.90, 1.0)), ("100", (0.95, 0.9)), ("500–2000", (0.99, 0.2))]
    assert [text for text, _ in _labels([1, 2], [0.9, 0.91], [0.2, 0.8], 0.1)] == ["1", "2"]


def test_a_sweep_shares_pairs_and_originals_and_resumes(tmp_path: Path) -> None:
    draw_pairs(tmp_path / "mine", 3)
    told = {
        "pairs.folder": str(tmp_path / "mine"), "train.max_train_steps": 2, "train.rank": 2, "evaluate.steps": 2,
        "evaluate.prompts": 2, "evaluate.keep_prompts": 3, "evaluate.neighbour_prompts": 1,
        "evaluate.inversion_prompts": 0,
    }  # fmt: skip
    duo.make_pairs(output=tmp_path / "run", settings=told, quiet=True)

    def once() -> list[Point]:
        session = Session(resolve_settings({"output": str(tmp_path / "run")}), quiet=True)
        return sweep(session, "beta", [30, 10], assaults=[Assault(["image-to-image"], prompts=2)]).points

    points = once()
    assert [p.at for p in points] == [10, 30]
    assert set(points[0].defence) == {"direct", "synonym", "indirect", "image-to-image (quick)"}
    members = [tmp_path / "run" / "sweep" / f"beta-{beta}" for beta in (10, 30)]
    settings = [resolve_settings({"output": str(member)}) for member in members]
    assert [s.train.beta for s in settings] == [10, 30]
    assert {s.train.rank for s in settings} == {2}
    picture = "evaluation/images/direct/original/0000.png"
    first, second = ((member / picture).read_bytes() for member in members)
    assert first == second
    # What is copied cost nothing: its time stays with the member that made it.
    part = "attacks/quick/image-to-image/original/0000.json"
    made, copied = (json.loads((member / part).read_text()) for member in members)
    assert "seconds" in made
    assert copied == {key: value for key, value in made.items() if key != "seconds"}
    stamps = {p: p.stat().st_mtime_ns for m in members for p in m.rglob("*.png")}
    assert once() == points
    assert {p: p.stat().st_mtime_ns for m in members for p in m.rglob("*.png")} == stamps
    written = json.loads((tmp_path / "run" / "sweep" / "beta.json").read_text())
    assert [p["at"] for p in written["points"]] == [10, 30]
    assert (tmp_path / "run" / "sweep" / "beta.svg").exists()
    # A sweep over one more keeps what is known; dropped pairs are dropped in every member.
    manifest = tmp_path / "run" / "pairs" / "manifest.json"
    set_keep(manifest.parent, [json.loads(manifest.read_text())["pairs"][1]["name"]], False, "no hand")
    session = Session(resolve_settings({"output": str(tmp_path / "run")}), quiet=True)
    assert [p.at for p in sweep(session, "beta", [10]).points] == [10, 30]
    assert (members[0] / "pairs" / "manifest.json").read_bytes() == manifest.read_bytes()
    assert len(json.loads((members[0] / "adapter" / "provenance.json").read_text())["pairs"]) == 2


def test_the_worst_is_over_what_all_have_met() -> None:
    weak, strong = point(9, 0.9, 1.0), point(100, 0.95, 0.96)
    weak.defence["p4d"] = (0.2, 0.1, 0.3, 20)
    assert choose([weak, strong], 0.95).ship == 100
    assert choose([weak, strong], 0.95).frontier == [9, 100]


def test_strengths_of_one_adapter_need_no_training(tmp_path: Path) -> None:
    run = run_with_adapter(tmp_path)
    session = Session(resolve_settings({"output": str(run.folder)}), quiet=True)
    points = sweep(session, "strength", [0, 1.5]).points
    assert [p.at for p in points] == [0, 1.5]
    assert points[0].kept[0] == pytest.approx(1.0)  # nothing is changed
    assert points[1].kept[0] < points[0].kept[0]
    assert not (run.sweep / "strength-1.5" / "train").exists()
    original = read_tensors(run.adapter_weights)[0]
    scaled = read_tensors(Run(run.sweep / "strength-1.5").adapter_weights)[0]
    torch.testing.assert_close(scaled, {k: v * (1.5 if "lora_B" in k else 1) for k, v in original.items()})
    shutil.rmtree(run.adapter)
    with pytest.raises(DuoError, match="holds no adapter"):
        sweep(Session(resolve_settings({"output": str(run.folder)}), quiet=True), "strength", [1])


def run_with_adapter(folder: Path) -> Run:
    draw_pairs(folder / "mine", 3)
    counts = {"steps": 2, "prompts": 2, "keep_prompts": 3, "neighbour_prompts": 1, "inversion_prompts": 0}
    told = {"pairs.folder": str(folder / "mine")} | {f"evaluate.{name}": count for name, count in counts.items()}
    duo.make_pairs(output=folder / "run", settings=told, quiet=True)
    model = load_model("mini", torch.device("cpu"))
    random_adapter(model, Run(folder / "run").adapter)
    return Run(folder / "run")


def test_a_sweep_needs_values(tmp_path: Path) -> None:
    with pytest.raises(DuoError, match="needs values of beta"):
        sweep(Session(resolve_settings({"output": str(tmp_path / "run")}), quiet=True), "beta", [])
