"""Adding the edits of runs up, and measuring what they do to one another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from duo_unlearn.arena.stages import evaluate
from duo_unlearn.cli.experiments import _concept_of
from duo_unlearn.cli.main import run_command
from duo_unlearn.edits.files import read_edit, write_changes
from duo_unlearn.edits.weights import LowRank, Replacement
from duo_unlearn.errors import DuoError
from duo_unlearn.experiments.interference import check_runs, compose_runs, measure
from duo_unlearn.runs.folder import Run
from duo_unlearn.session import Session
from duo_unlearn.settings.resolve import resolve_settings
from duo_unlearn.storage.files import read_json, write_json

from ..export.edited_run import run_folder

KEY = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"


def two_runs(folder: Path, *concepts: str) -> list[Path]:
    """Runs whose adapters are small and whose steps are enough for pictures that are not broken."""
    return [
        run_folder("mini", folder / name, rank=2, seed=i, concept=name, size=0.05, steps=6)
        for i, name in enumerate(concepts)
    ]


@pytest.mark.slow
def test_interference_is_measured_on_each_concept(tmp_path: Path) -> None:
    runs = two_runs(tmp_path, "sword", "balloon")
    evaluate(Session(resolve_settings({"output": str(runs[0]), "evaluate": {"inversion_prompts": 0}}), quiet=True))
    check_runs(runs)
    parts = compose_runs(runs, [1.0, 0.5], tmp_path / "both")
    assert [part.rank for part in parts] == [2, 2]
    edit = read_edit(tmp_path / "both" / "edits" / "composed", "composed")
    assert edit.provenance["concept"] == "sword + balloon"
    rows = measure(runs, tmp_path / "both", {"prompts": 2}, quiet=True)
    assert {row["concept"] for row in rows} == {"sword", "balloon"}
    direct = [row for row in rows if row["scenario"] == "direct" and row["metric"] == "dsr"]
    contracts = {row["contract"].partition("[")[0] for row in direct}
    assert contracts == {"mini-judge", "mini-judge-b"}
    asked = [row for row in direct if row["contract"].startswith("mini-judge-b[")]
    assert [row["concept"] for row in asked] == ["sword", "balloon"]
    for row in asked:
        # The run of the balloon was never measured by itself.
        names = ["original", "alone", "composed"] if row["concept"] == "sword" else ["original", "composed"]
        systems = {"original": "original", "alone": "duo", "composed": "composed"}
        assert [(name, row[name]["system"]) for name in systems if name in row] == [(n, systems[n]) for n in names]
        assert all(row[name]["n"] == 2 and row[name]["low"] <= row[name]["value"] for name in names)
    assert json.loads((tmp_path / "both" / "interference.json").read_text())["rows"] == rows
    assert measure(runs, tmp_path / "both", {"prompts": 2}, quiet=True) == rows
    # What a run measured of an adapter that is there no more is not set beside the sum.
    run_folder("mini", runs[0], rank=2, seed=5, concept="sword")
    again = measure(runs, tmp_path / "both", {"prompts": 2}, quiet=True)
    assert not any("alone" in row for row in again)


def test_the_numbers_of_a_sum_go_where_its_weights_change(tmp_path: Path) -> None:
    runs, both = two_runs(tmp_path, "sword", "balloon"), tmp_path / "both"
    compose_runs(runs, [], both)
    write_json(both / "interference.json", {"version": 2, "rows": []})
    compose_runs(runs, [], both)
    assert (both / "interference.json").exists()
    compose_runs(runs, [1.0, 0.5], both)
    assert not (both / "interference.json").exists()


def test_what_composing_refuses(tmp_path: Path) -> None:
    runs = two_runs(tmp_path, "sword", "balloon")
    for sources, said in ((runs[:1], "two adapters or more"), ([runs[0], tmp_path], "there is no edit")):
        with pytest.raises(DuoError, match=said):
            compose_runs(sources, [], tmp_path / "both")
    with pytest.raises(DuoError, match="one weight an adapter"):
        compose_runs(runs, [1.0], tmp_path / "both")
    for odd in (float("nan"), float("-inf")):
        with pytest.raises(DuoError, match="finite number"):
            compose_runs(runs, [1.0, odd], tmp_path / "both")
    provenance = Run(runs[1]).edit("duo") / "provenance.json"
    write_json(provenance, read_json(provenance) | {"base": "0123456789abcdef"})
    with pytest.raises(DuoError, match="different base models"):
        compose_runs(runs, [], tmp_path / "both")
    assert not (tmp_path / "both").exists()


@pytest.mark.slow
def test_the_command_names_the_concepts_of_what_it_added_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(run) for run in two_runs(tmp_path, "sword", "balloon")]
    run_command(["compose", *runs, "-o", str(tmp_path / "both"), "--no-measure"])
    said = capsys.readouterr().err
    assert "duo erase --concept sword --concept balloon" in said
    assert "expect to lose some of what lies near their concepts, most of all wand, " in said
    assert "; pairs of sword keep what balloon erases; pairs of balloon keep what sword erases\n" in said
    unknown = tmp_path / "unknown"
    write_changes(unknown, {f"unet.{KEY}": LowRank(torch.ones(128, 1), torch.ones(1, 128))}, {
        "base": read_edit(Run(Path(runs[0])).edit("duo")).provenance["base"],
    })  # fmt: skip
    run_command(["compose", runs[0], str(unknown), "-o", str(tmp_path / "other"), "--no-measure"])
    said = capsys.readouterr().err
    assert "duo erase" not in said
    assert "expect to lose some of what lies near their concepts\n" in said


def test_which_kinds_can_be_added_up(tmp_path: Path) -> None:
    first, second = two_runs(tmp_path, "sword", "balloon")
    base = read_edit(Run(first).edit("duo")).provenance["base"]
    up, down = torch.ones(128, 1), torch.ones(1, 128)
    folder = tmp_path / "alone"
    write_changes(folder, {f"unet.{KEY}": LowRank(up, down)}, {"base": base, "concept": "hat"})
    assert [part.rank for part in compose_runs([first, folder], [], tmp_path / "both")] == [2, 1]
    with pytest.raises(DuoError, match="is no run folder, so its concept cannot be measured"):
        check_runs([first, folder])
    text = "text_encoder.encoder.layers.0.self_attn.v_proj.weight"
    for changes, kind in (
        ({f"unet.{KEY}": Replacement(up @ down)}, "full change of weights of unet"),
        ({text: LowRank(up, down)}, "low-rank change of weights of text_encoder"),
    ):
        write_changes(folder, changes, {"base": base})
        with pytest.raises(DuoError, match="cannot be added to others exactly") as caught:
            compose_runs([second, folder], [], tmp_path / "other")
        assert kind in str(caught.value.got)
        assert not (tmp_path / "other").exists()


def test_composing_leaves_another_edit_alone(tmp_path: Path) -> None:
    runs = two_runs(tmp_path, "a", "b", "c")
    before = (Run(runs[2]).edit("duo") / "provenance.json").read_bytes()
    for target in (runs[0], runs[2]):
        with pytest.raises(DuoError, match="holds another adapter"):
            compose_runs(runs[:2], [], target)
    assert (Run(runs[2]).edit("duo") / "provenance.json").read_bytes() == before
    compose_runs(runs[:2], [], tmp_path / "both")
    compose_runs(runs[:2], [1.0, 0.5], tmp_path / "both")
    with pytest.raises(DuoError, match="holds another adapter"):
        compose_runs(runs[1:], [], tmp_path / "both")


def test_one_training_is_offered_where_it_can_be_had() -> None:
    assert _concept_of("sword+balloon")
    for names in ("blood+gun", "sword+sword", "sword+?"):
        assert not _concept_of(names)
