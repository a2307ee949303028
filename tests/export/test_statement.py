"""The statement and the card of an export: their forms, what they say, and that the hub's own classes read the card."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.schemas import DOCS, text
from huggingface_hub import ModelCard
from PIL import Image
from safetensors import safe_open

from duo_unlearn.edits.files import read_edit
from duo_unlearn.export.attest import measured_of
from duo_unlearn.export.card import metadata, model_card
from duo_unlearn.export.forms import Missing
from duo_unlearn.export.pictures import write_pictures
from duo_unlearn.export.registry import FORMATS
from duo_unlearn.export.statement import STATEMENT, read_evidence, read_statement
from duo_unlearn.families.load import load_model
from duo_unlearn.runs.folder import Run
from duo_unlearn.settings.source import edit_source
from duo_unlearn.storage.files import sha256_of
from duo_unlearn.storage.forms import parse_yaml
from duo_unlearn.storage.pictures import blurred


def test_the_schema_in_the_docs_is_that_of_the_form() -> None:
    name = "erasure-v1.schema.json"
    assert (DOCS / name).read_text(encoding="utf-8") == text(name), "python benchmarks/schemas.py writes it again"


def test_the_statement_is_in_totos_and_says_what_was_measured_and_what_was_not(exported: Path) -> None:
    content = json.loads((exported / STATEMENT).read_text())
    assert content["_type"] == "https://in-toto.io/Statement/v1"
    assert {s["name"]: s["digest"]["sha256"] for s in content["subject"]} == {
        path.name: sha256_of(path) for path in exported.iterdir() if path.name != STATEMENT
    }
    said = read_statement(exported).predicate
    assert (said.base.name, said.concept.name, said.concept.sensitive) == ("mini", "sword", False)
    assert [system.name for system in said.systems] == ["original", "duo"]
    assert {(a.attack, a.preset) for a in said.attacks if a.system == "duo"} == {
        ("direct", None), ("ring-a-bell", "quick"), ("p4d", "quick"),
    }  # fmt: skip
    assert {e.attack for e in said.measured if e.metric == "dsr"} == {None, "ring-a-bell", "p4d", "worst case"}
    assert all(e.low <= e.value <= e.high and e.n > 0 for e in said.measured)
    lacking = {(one.what, one.attack) for one in said.not_measured}
    assert ("dsr", "unlearndiffatk") in lacking
    assert ("dsr", "p4d") not in lacking
    assert any("nobody labelled" in one.reason for one in said.not_measured)
    words = " ".join(path.read_text().lower() for path in (exported / STATEMENT, exported / "README.md"))
    assert "measured" in words
    assert "certif" not in words


def test_the_evidence_has_no_prompts_words(exported: Path) -> None:
    evidence = read_evidence(exported)
    assert all(re.fullmatch("[0-9a-f]{64}", a.prompt) for g in evidence.groups for a in g.attempts)
    assert "prompt 3" not in (exported / "evidence.json").read_text()


def test_the_hubs_own_class_reads_the_card(exported: Path) -> None:
    data = ModelCard.load(exported / "README.md").data  # an invalid model index is a ValueError here
    assert (data.license, data.pipeline_tag, data.library_name) == ("apache-2.0", "text-to-image", "diffusers")
    assert data.base_model is None  # "mini" is no model of the hub
    assert data.eval_results is not None
    said = read_statement(exported).predicate
    own = {(e.metric, e.contract, e.value) for e in said.measured if e.system == "duo" and e.metric == "dsr"}
    told = {(e.metric_type, e.metric_config, e.metric_value) for e in data.eval_results if e.metric_type == "dsr"}
    assert told == own
    assert "prior preservation" in {e.metric_type for e in data.eval_results}
    assert all({"low", "high", "n"} == set(e.metric_args or {}) for e in data.eval_results)


def test_a_base_of_the_hub_is_named_with_its_relation(exported: Path) -> None:
    said = read_statement(exported).predicate
    for removable, relation in ((True, "adapter"), (False, "finetune")):
        other = said.model_copy(
            update={
                "base": said.base.model_copy(update={"name": "owner/model"}),
                "export": said.export.model_copy(update={"removable": removable}),
            }
        )
        data = ModelCard(f"---\n{metadata(other, 'out')}\n---\n").data
        assert (data["base_model"], data["base_model_relation"]) == ("owner/model", relation)


def test_numbers_of_another_strength_are_in_no_model_index(exported: Path) -> None:
    """The hub shows an index without the card's note on it."""
    said = read_statement(exported).predicate
    half = said.model_copy(update={"export": said.export.model_copy(update={"strength": 0.5})})
    data = parse_yaml(metadata(half, "out"), "the metadata")
    assert "model-index" not in data
    assert data["license"] == said.export.license
    assert "Measured at strength 1, not at 0.5." in model_card(half, {}, "out", None)


def test_a_judge_of_several_labels_leaves_the_table_whole(exported: Path) -> None:
    said = read_statement(exported).predicate
    contract = "a-judge[one|two>=0.6]@abc"
    other = said.model_copy(update={"measured": [dataclasses.replace(e, contract=contract) for e in said.measured]})
    rows = [line for line in model_card(other, {}, "out", None).splitlines() if line.startswith("| ")][1:]
    cells = [re.split(r"(?<!\\) \| ", row.strip("| ")) for row in rows]
    assert {len(row) for row in cells} == {8}
    assert {row[-1] for row in cells} == {r"`a-judge[one\|two>=0.6]@abc`"}


def test_pictures_of_a_sensitive_concept_are_blurred(measured: Path, exported: Path, tmp_path: Path) -> None:
    place = edit_source(measured)
    found = measured_of(place, [], read_edit(place.place, place.name))
    assert found is not None
    for blur in (False, True):
        (tmp_path / str(blur)).mkdir()
        assert write_pictures(Run(measured), found.systems, tmp_path / str(blur), blur=blur) is not None
    plain, soft = (np.asarray(Image.open(tmp_path / str(b) / "pictures.png"), dtype=float) for b in (False, True))
    assert plain.shape == soft.shape
    edges = [np.abs(np.diff(image[4:68, 4:68], axis=1)).mean() for image in (plain, soft)]
    assert edges[1] < 0.3 * edges[0]
    assert (exported / "pictures.png").read_bytes() == (tmp_path / "False" / "pictures.png").read_bytes()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    assert np.asarray(blurred(noise), dtype=float).std() < 10


def test_kohyas_file_says_what_it_is(exported: Path) -> None:
    path = exported / "duo-sword.safetensors"
    with safe_open(path, "pt") as handle:
        told = handle.metadata()
    must = {"sai_model_spec", "architecture", "implementation", "title"}
    assert must <= {key.removeprefix("modelspec.") for key in told if key.startswith("modelspec.")}
    assert (told["modelspec.architecture"], told["modelspec.resolution"]) == ("duo-unlearn-mini/lora", "64x64")
    assert (told["modelspec.title"], told["ss_output_name"]) == ("mini without sword (duo)",) * 2
    assert (told["ss_sd_model_name"], told["ss_network_dim"], told["ss_network_alpha"]) == ("mini", "4", "4")
    tensors = hash_of_tensors(path)
    assert (told["modelspec.hash_sha256"], told["sshs_model_hash"]) == (f"0x{tensors}", tensors)


def hash_of_tensors(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()


def test_a_checkpoint_says_what_it_is(measured: Path, tmp_path: Path) -> None:
    edit = read_edit(Run(measured).edit("duo"), "duo", strength=0.5)
    path = FORMATS.get("checkpoint").write(edit, load_model("mini", torch.device("cpu")), tmp_path)
    with safe_open(path, "pt") as handle:
        told = handle.metadata()
    assert told["modelspec.sai_model_spec"] == "1.0.1"
    assert told["modelspec.architecture"] == "duo-unlearn-mini"  # and no /lora
    assert told["modelspec.implementation"] == "https://github.com/Stability-AI/generative-models"
    assert (told["modelspec.title"], told["modelspec.resolution"]) == ("mini without sword (duo)", "64x64")
    assert told["modelspec.prediction_type"] == "epsilon"
    assert "at strength 0.5" in told["modelspec.description"]
    assert told["modelspec.hash_sha256"] == f"0x{hash_of_tensors(path)}"
    assert not any(key.startswith("ss") or key == "modelspec.usage_hint" for key in told)  # those are an adapter's


def test_an_unknown_key_is_a_fault() -> None:
    with pytest.raises(ValueError, match="extra"):
        Missing.model_validate({"what": "x", "reason": "y", "certified": True})
