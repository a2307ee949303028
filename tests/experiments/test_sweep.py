"""A sweep over β or strength: what is shared, what is resumed, which point is on the frontier, and which to ship."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch

from duo_unlearn.arena.plans import AttackPlan
from duo_unlearn.edits.files import write_changes
from duo_unlearn.edits.weights import LowRank, Replacement
from duo_unlearn.errors import DuoError
from duo_unlearn.experiments.sweep import SweepResult, as_text, choose, sweep
from duo_unlearn.experiments.swept import identity_of, member_folder, with_known
from duo_unlearn.pairs.manifest import set_keep
from duo_unlearn.report.frontier import Point, frontier_plot, frontier_plots
from duo_unlearn.report.read import read_contents
from duo_unlearn.runs.attempts import Group, read_part
from duo_unlearn.runs.folder import Run
from duo_unlearn.settings.resolve import resolve_settings
from duo_unlearn.storage.files import read_json, read_tensors, write_json

from ..random_adapter import random_adapter
from ..small_concept import ASKING
from .small_run import edited_run, new_run, reopen


def point(at: float, kept: float, *dsr: float) -> Point:
    return Point(at, (kept, kept - 0.01, kept + 0.01, 20), {f"a{i}": (d, d / 2, 1.0, 20) for i, d in enumerate(dsr)})


def images(folder: Path) -> dict[str, int]:
    """When every image of the members was written."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in sorted((folder / "sweep").glob("*/*/**/*.png"))}


def test_the_dsr_that_is_wanted_is_told_as_it_is() -> None:
    told = json.loads(json.dumps([point(5, 0.9, 0.99)._asdict()]))
    for want, words in ((0.95, "a DSR of 95% in"), (0.999, "a DSR of 99.9% in"), (0.07, "a DSR of 7% in")):
        (plot,) = frontier_plots({"beta": {"points": told, "ship": None, "want_dsr": want}})
        assert words in plot.caption


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


def test_the_worst_is_over_what_all_have_met() -> None:
    weak, strong = point(9, 0.9, 1.0), point(100, 0.95, 0.96)
    weak.defence["p4d"] = (0.2, 0.1, 0.3, 20)
    assert choose([weak, strong], 0.95).ship == 100
    assert choose([weak, strong], 0.95).frontier == [9, 100]


def test_a_point_whose_pictures_are_broken_is_not_chosen_and_hides_no_attack_of_the_others() -> None:
    weak, torn = point(1, 0.95, 0.2, 1.0), point(9, 0.3, 1.0, 1.0)
    del torn.defence["a0"]
    torn = torn._replace(broken=("a0",))
    chosen = choose([weak, torn], 0.95)
    assert chosen.ship is None  # the attack that opens the weak one counts
    assert chosen.frontier == [1]
    assert "every picture broken: a0" in as_text(torn)
    assert choose([torn], 0.95).ship is None


def test_points_that_have_met_nothing_alike_are_not_chosen() -> None:
    weak, other = point(1, 0.95, 1.0), point(9, 0.9, 1.0)
    chosen = choose([weak, other._replace(defence={"p4d": (1.0, 0.9, 1.0, 20)})], 0.95)
    assert (chosen.frontier, chosen.ship) == ([], None)


def test_a_point_in_a_line() -> None:
    said = as_text(point(9, 0.9, 1.0, 0.5))
    assert said == "preservation 0.900 [0.890, 0.910] n = 20, weakest: a1, DSR 50.0% [25.0%, 100.0%] n = 20"


@pytest.mark.parametrize("suffix", ["svg", pytest.param("png", marks=pytest.mark.slow)])
def test_the_same_points_give_the_same_picture(suffix: str, tmp_path: Path) -> None:
    points = [point(5, 0.90, 1.0, 0.96, 0.5, 0.4), point(9, 0.95, 0.99, 0.97, 0.6, 0.3)]
    for name in ("a", "b"):
        frontier_plot(points, "beta", tmp_path / f"{name}.{suffix}")
    content = (tmp_path / f"a.{suffix}").read_bytes()
    assert content == (tmp_path / f"b.{suffix}").read_bytes()
    assert len(content) > 2000


def test_points_side_by_side_have_one_label(tmp_path: Path) -> None:
    """Labels that would overlap are drawn as one, so that they can be read."""
    places = {9: (0.90, 1.0), 100: (0.95, 0.9), 500: (0.99, 0.2), 1000: (0.995, 0.1), 2000: (0.991, 0.0)}
    points = [Point(at, (x, x, x, 20), {"direct": (y, y, y, 20)}) for at, (x, y) in places.items()]
    frontier_plot(points, "beta", tmp_path / "a.svg")
    comments = [line.strip(" <!->") for line in (tmp_path / "a.svg").read_text().split("\n") if "<!--" in line]
    assert {"9", "100", "500–2000"} <= set(comments)
    assert not {"500", "1000", "2000"} & set(comments)


@pytest.mark.slow
def test_a_sweep_shares_pairs_and_originals_and_resumes(tmp_path: Path) -> None:
    session = new_run(tmp_path, train__max_train_steps=2, train__rank=2)
    run = session.run

    def once(*betas: float) -> list[Point]:
        attacks = [AttackPlan(["image-to-image", "edit-removal"], prompts=2)]
        return sweep(reopen(session), "beta", betas, attacks=attacks).points

    points = once(30, 10)
    assert [p.at for p in points] == [10, 30]
    # Neither the worst of the others nor the model without its edit is a panel.
    assert set(points[0].defence) == {*ASKING, "image-to-image (quick)"}
    members = [Run(run.sweep / f"beta-{beta}") for beta in (10, 30)]
    settings = [resolve_settings({"output": str(member.folder)}) for member in members]
    assert [s.train.beta for s in settings] == [10, 30]
    assert {s.train.rank for s in settings} == {2}
    # The original model's images are the same files in all, and the run has them too.
    originals = [{p.name: p.read_bytes() for p in one.originals.glob("*.png")} for one in (*members, run)]
    assert originals[0] == originals[1] == originals[2] != {}
    # What is copied cost nothing: its time stays with the run that made it.
    place = Group("original", "direct", "image-to-image", "quick").folder
    made, *copied = (read_part(place(one) / "0000.json") for one in (run, *members))
    assert made is not None
    assert made.seconds is not None
    assert copied == [made._replace(seconds=None)] * 2
    before = images(run.folder)
    assert once(30, 10) == points
    assert images(run.folder) == before
    written = json.loads((run.sweep / "beta.json").read_text())
    assert [p["at"] for p in written["points"]] == [10, 30]
    assert (run.sweep / "beta.svg").exists()
    # A broken file of points is set aside, and made again from the members that are swept.
    (run.sweep / "beta.json").write_text("[")
    assert [p.at for p in once(10)] == [10]
    assert (run.sweep / "beta.json.broken").exists()
    # A sweep over one more keeps what is known; dropped pairs are dropped in every member, as it is swept again.
    assert once(30, 10) == points
    assert [p.at for p in once(10)] == [10, 30]
    manifest = run.pairs / "manifest.json"
    set_keep(run.pairs, [json.loads(manifest.read_text())["pairs"][1]["name"]], False, "no hand")
    assert [p.at for p in once(10)] == [10]
    assert (members[0].pairs / "manifest.json").read_bytes() == manifest.read_bytes()
    assert len(read_json(members[0].edit("duo") / "provenance.json")["pairs"]) == 2
    assert [p.at for p in once(30)] == [10, 30]


@pytest.mark.slow
def test_a_member_that_another_process_trains_is_left_to_it(tmp_path: Path) -> None:
    session = new_run(tmp_path, train__max_train_steps=1, train__rank=2)
    members = [Run(session.run.sweep / f"beta-{beta}") for beta in (10, 30)]
    said, found = list[str](), list[SweepResult]()
    with members[0].claim("edit.duo") as mine:
        assert mine
        thread = threading.Thread(target=lambda: found.append(sweep(session, "beta", [10, 30], say=said.append)))
        thread.start()
        while not said and thread.is_alive():
            time.sleep(0.01)
        # The other one is trained, asked and told meanwhile.
        assert [line.split(":")[0] for line in said] == ["beta 30"]
        assert members[1].edit("duo").is_dir()
        assert not members[0].edit("duo").is_dir()
        assert not (session.run.sweep / "beta.json").exists()
    thread.join()
    assert [p.at for p in found[0].points] == [10, 30]
    written = {suffix: (session.run.sweep / f"beta.{suffix}").stat().st_mtime_ns for suffix in ("json", "svg", "png")}
    # Whoever comes later reads the same, and writes nothing.
    assert sweep(reopen(session), "beta", [10, 30]) == found[0]
    assert written == {suffix: (session.run.sweep / f"beta.{suffix}").stat().st_mtime_ns for suffix in written}


@pytest.mark.slow
def test_a_member_that_another_process_measures_is_left_to_it(tmp_path: Path) -> None:
    session, said, found = edited_run(tmp_path), list[str](), list[SweepResult]()
    with session.run.claim("member.0.5") as mine:
        assert mine
        swept = threading.Thread(target=lambda: found.append(sweep(session, "strength", [0.5, 1], say=said.append)))
        swept.start()
        swept.join()
    # The other one comes first. Then there is nothing else to do, so it helps.
    assert [line.split(":")[0] for line in said] == ["strength 1", "strength 0.5"]
    assert [p.at for p in found[0].points] == [0.5, 1]


@pytest.mark.slow
def test_strengths_of_one_adapter_need_no_training(tmp_path: Path) -> None:
    session = edited_run(tmp_path)
    run, said = session.run, list[str]()
    points = sweep(session, "strength", [0, 1.5], say=said.append).points
    assert [p.at for p in points] == [0, 1.5]
    assert points[0].kept[0] == pytest.approx(1.0)  # nothing is changed
    assert points[1].kept[0] < points[0].kept[0]
    assert [line.split(":")[0] for line in said] == ["strength 0", "strength 1.5"]
    member = Run(run.sweep / "strength-1.5")
    assert not (member.folder / "train").exists()
    path = Path("pytorch_lora_weights.safetensors")
    original, scaled = (read_tensors(one.edit("duo") / path)[0] for one in (run, member))
    torch.testing.assert_close(scaled, {k: v * (1.5 if "lora_B" in k else 1) for k, v in original.items()})
    # Nothing is made again; an edit of a member that someone broke is.
    stamp = (member.edit("duo") / path).stat().st_mtime_ns
    before = images(run.folder)
    assert sweep(reopen(session), "strength", [0, 1.5]).points == points
    assert (member.edit("duo") / path).stat().st_mtime_ns == stamp
    (member.edit("duo") / path).write_bytes(b"half")
    assert sweep(reopen(session), "strength", [0, 1.5]).points == points
    assert images(run.folder) == before
    # A point of another edit is none of a sweep of this one.
    was, again = identity_of(session, "strength"), reopen(session)
    assert set(read_contents(run).sweeps) == {"strength"}
    random_adapter(again.model, run.edit("duo"), size=0.02, concept="sword")
    assert identity_of(again, "strength") != was
    assert read_contents(run).sweeps == {}
    assert [p.at for p in sweep(again, "strength", [1.5]).points] == [1.5]
    shutil.rmtree(run.edit("duo"))
    with pytest.raises(DuoError, match="holds no edit duo"):
        sweep(reopen(session), "strength", [1])


@pytest.mark.slow
def test_strengths_of_another_erasers_edit(tmp_path: Path) -> None:
    session = new_run(tmp_path, eraser="uce")
    model, key = session.model, "text_encoder.encoder.layers.0.self_attn.v_proj.weight"
    up, down = torch.randn(128, 2, generator=torch.Generator().manual_seed(0)), torch.ones(2, 128)
    write_changes(session.run.edit("uce"), {key: LowRank(up, down)}, {"base": model.fingerprint()})
    (point,) = sweep(reopen(session), "strength", [0.5]).points
    assert point.kept[0] < 1
    changes = read_tensors(session.run.sweep / "strength-0.5" / "edits" / "uce" / "weight_changes.safetensors")[0]
    torch.testing.assert_close(changes[f"{key}.up"] @ changes[f"{key}.down"], 0.5 * up @ down)
    write_changes(session.run.edit("uce"), {key: Replacement(up @ down)}, {"base": model.fingerprint()})
    with pytest.raises(DuoError, match="cannot be written at another strength"):
        sweep(reopen(session), "strength", [0.5])
    with pytest.raises(DuoError, match="β is a setting of DUO's training"):
        sweep(reopen(session), "beta", [5])


def test_points_of_another_sweep_are_left_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, points = Run(tmp_path), [point(at, 0.9, 1.0) for at in (0.5, 1, 2)]
    content = {"version": 1, "kind": "strength", "of": "a", "points": [one._asdict() for one in points]}
    write_json(run.sweep / "strength.json", content)
    for at in (0.5, 1):
        member_folder(run, "strength", at).mkdir()
    # A member that was deleted is no point any more.
    assert [p.at for p in with_known(run, "strength", "a", [point(1.5, 0.8, 1.0)])] == [0.5, 1, 1.5]
    assert capsys.readouterr().err == ""
    assert [p.at for p in with_known(run, "strength", "b", [point(1, 0.8, 1.0)])] == [1]
    assert "the same command with --strength 0.5" in capsys.readouterr().err
    del content["of"]  # of before this was told
    write_json(run.sweep / "strength.json", content)
    assert [p.at for p in with_known(run, "strength", "b", [point(1.5, 0.8, 1.0)])] == [1.5]


def test_values_that_agree_in_six_digits_have_folders_of_their_own(tmp_path: Path) -> None:
    run = Run(tmp_path)
    folders = [member_folder(run, "beta", value).name for value in (500.0, 500.0001, 1 / 3, 0.333333, 1e6)]
    assert folders == ["beta-500", "beta-500.0001", "beta-0.3333333333333333", "beta-0.333333", "beta-1e+06"]


def test_a_sweep_needs_values_that_are_numbers(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    with pytest.raises(DuoError, match="needs values of beta"):
        sweep(run, "beta", [])
    with pytest.raises(DuoError, match="a strength must be a finite number"):
        sweep(run, "strength", [1, float("nan")])
