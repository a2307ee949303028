"""Settings: every fault is found, all at once, with what was probably meant."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from duo_unlearn.errors import DuoError
from duo_unlearn.runs.folder import Run
from duo_unlearn.settings.resolve import resolve_settings
from duo_unlearn.settings.tree import (
    Settings,
    as_yaml,
    merge,
    nest,
    parse_assignments,
    read_settings,
    resolve,
    setting_keys,
    write_settings,
)
from duo_unlearn.storage.forms import read_yaml


def fault(*layers: dict[str, Any]) -> str:
    with pytest.raises(DuoError) as caught:
        resolve(*layers)
    message = str(caught.value)
    assert len(message.splitlines()) <= 3
    return message


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"train": {"betta": 1}}, "train.beta"),
        ({"train": {"learnin_rate": 1}}, "train.learning_rate"),
        ({"modle": "mini"}, "model"),
        ({"evaluate": {"promts": 3}}, "evaluate.prompts"),
        ({"beta": 1}, "train.beta"),
    ],
)
def test_an_unknown_key_names_the_nearest(given: dict[str, Any], meant: str) -> None:
    suggested = fault(given).split("did you mean ")[1]
    assert suggested.startswith((f"'{meant}'", f"'{meant.rsplit('.', maxsplit=1)[-1]}'"))


def test_options_of_duo_have_one_place() -> None:
    assert "the options of duo are given as train.beta" in fault({"erasers": {"duo": {"beta": 3}}})


def test_an_unknown_key_like_no_other_has_no_suggestion() -> None:
    message = fault({"zzzzzz": 1})
    assert "unknown key 'zzzzzz'" in message
    assert "did you mean" not in message


@pytest.mark.parametrize(
    ("given", "key", "got"),
    [
        ({"train": {"beta": "many"}}, "train.beta", "'many'"),
        ({"train": {"beta": -1}}, "train.beta", "-1"),
        ({"train": {"max_train_steps": 1.5}}, "train.max_train_steps", "1.5"),
        ({"train": {"sides": "left"}}, "train.sides", "'left'"),
        ({"train": {"mixed_precision": "fp8"}}, "train.mixed_precision", "'fp8'"),
        ({"pairs": {"strength": 1.5}}, "pairs.strength", "1.5"),
        ({"train": 3}, "train", "3"),
        ({"train": {"max_timestep": 5000}}, "train.max_timestep", "5000"),
        ({"pairs": {"scale": float("inf")}}, "pairs.scale", "inf"),
        ({"pairs": {"steps": 501}}, "pairs.steps", "501"),
        ({"evaluate": {"steps": 1000}}, "evaluate.steps", "1000"),
        ({"seed": 1 << 40}, "seed", str(1 << 40)),
        ({"model": ""}, "model", "''"),
        ({"evaluate": {"judges": ["a", "a"]}}, "evaluate.judges", "['a', 'a']"),
    ],
)
def test_a_wrong_value_is_named(given: dict[str, Any], key: str, got: str) -> None:
    message = fault(given)
    assert f"{key}: " in message
    assert f"got {got}" in message


def test_every_fault_is_in_one_error() -> None:
    message = fault({"train": {"betta": 1, "rank": 0, "beta": "x"}, "evaluate": {"steps": 1}, "modle": "mini"})
    for part in ("train.betta", "train.rank", "train.beta: ", "evaluate.steps", "'modle'"):
        assert part in message


def test_a_number_that_yaml_reads_as_a_string(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("train:\n  learning_rate: 1e-4\n")
    read = read_yaml(file, "settings file")
    assert read["train"]["learning_rate"] == "1e-4"  # YAML 1.1 wants a dot; were this to change, the test is moot
    assert resolve(read).train.learning_rate == 1e-4


def test_later_layers_win_key_by_key() -> None:
    settings = resolve({"train": {"beta": 250, "rank": 8}}, {"train": {"beta": 100}}, {"seed": 3})
    assert (settings.train.beta, settings.train.rank, settings.seed) == (100, 8, 3)
    assert settings.train.max_train_steps == Settings().train.max_train_steps


def test_merged_leaves_its_layers_alone() -> None:
    below: dict[str, Any] = {"a": {"b": 1, "c": 2}, "d": 1}
    above: dict[str, Any] = {"a": {"b": 3}, "d": {"e": 4}}
    assert merge(below, above) == {"a": {"b": 3, "c": 2}, "d": {"e": 4}}
    assert below == {"a": {"b": 1, "c": 2}, "d": 1}
    assert above == {"a": {"b": 3}, "d": {"e": 4}}


def test_nested() -> None:
    assert nest({"a.b": 1, "a.c.d": 2, "e": 3}) == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    # A part as a whole and one of its values, in either order.
    for given in (["a.b=1", "a={c: 2}"], ["a={c: 2}", "a.b=1"]):
        assert parse_assignments(given) == {"a": {"b": 1, "c": 2}}


def test_a_key_and_its_branch_cannot_both_be_set() -> None:
    with pytest.raises(DuoError, match=r"train\.beta is set, and so is train"):
        nest({"train": 3, "train.beta": 1})


def test_a_path_that_a_settings_file_cannot_keep() -> None:
    path = os.fsdecode(b"caf\xe9")
    assert "output: a name must be UTF-8, got 'caf\\udce9'" in fault({"output": path}).replace("utf", "UTF")
    assert "pairs.folder: a name must be UTF-8" in fault({"pairs": {"folder": path}}).replace("utf", "UTF")


def test_assignments() -> None:
    given = ["train.beta=250", "train.share_timestep=false", "model=a=b", "pairs.strength=null", "train.rank= 8"]
    assert parse_assignments(given) == {
        "train": {"beta": 250, "share_timestep": False, "rank": 8},
        "model": "a=b",
        "pairs": {"strength": None},
    }


@pytest.mark.parametrize("assignment", ["train.beta", "=3", "train.beta=[1"])
def test_a_malformed_assignment(assignment: str) -> None:
    with pytest.raises(DuoError, match="--set"):
        parse_assignments([assignment])


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"a: [1", "not valid YAML"), (b"- 1\n- 2\n", "must be a mapping"), (b"1: 2\n", "must be"), (b"\xff\xfe", "read")],
)
def test_a_file_that_holds_no_settings(content: bytes, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_bytes(content)
    with pytest.raises(DuoError, match=problem):
        read_yaml(file, "settings file")


def test_a_missing_and_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(DuoError, match="cannot read the settings file"):
        read_yaml(tmp_path / "none.yaml", "settings file")
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "empty.yaml", "settings file") == {}


def test_settings_come_back_from_yaml() -> None:
    settings = resolve(
        {"output": "elsewhere", "train": {"beta": 250, "learning_rate": 1.2e-4}, "pairs": {"folder": "p"}}
    )
    assert resolve(yaml.safe_load(as_yaml(settings))) == settings


def test_every_key_is_documented() -> None:
    keys = setting_keys()
    assert {"model", "train.beta", "pairs.folder", "evaluate.prompts"} <= set(keys)
    assert [key for key, meaning in keys.items() if not meaning] == []


def test_the_defaults_follow_the_authors_rule() -> None:
    """lr = 3e-4 · 100/β and λ = 1e6 · β/100 at β = 500 (method.md §3)."""
    train = Settings().train
    assert train.beta == 500
    assert train.learning_rate == pytest.approx(3e-4 * 100 / train.beta)
    assert train.prior_weight == pytest.approx(1e6 * train.beta / 100)
    assert (train.max_train_steps, train.train_batch_size, train.rank, train.max_timestep) == (1000, 4, 32, 750)


def test_own_pairs_need_no_words_unless_asked_for(tmp_path: Path) -> None:
    own = {"pairs": {"folder": str(tmp_path)}}
    assert resolve_settings().train.captions == "unsafe"
    assert resolve_settings(own).train.captions == "none"
    assert resolve_settings(own | {"train": {"captions": "dual"}}).train.captions == "dual"


@pytest.mark.parametrize(
    "seed", [-1, 1 << 32, 10**30, 1e30, "1e30", True, False, None, 1.5, "seven", float("nan"), [1], 10**5000, ""],
    ids=lambda seed: str(seed)[:9] if not isinstance(seed, int) or seed < 10**40 else "endless",
)  # fmt: skip
def test_an_absurd_seed_is_refused_in_words(seed: Any) -> None:
    message = fault({"seed": seed})
    assert "seed: " in message
    assert len(message) < 400


@pytest.mark.parametrize("key", ["train.rank", "train.beta", "pairs.strength", "evaluate.prompts", "resolution"])
def test_a_truth_value_is_no_number(key: str) -> None:
    assert f"{key}: " in fault(nest({key: True}))
    assert resolve({"train": {"share_timestep": False}}).train.share_timestep is False


@pytest.mark.parametrize("key", ["model", "concept", "output", "pairs.folder", "evaluate.reference"])
@pytest.mark.parametrize("name", ["n" * 256, "folder/" + "ü" * 128, "a\0b", "a/" * 2000])
def test_a_name_that_no_file_can_have(key: str, name: str) -> None:
    message = fault(nest({key: name}))
    assert f"{key}: " in message
    assert message.isprintable() or "\0" not in message
    assert len(message) < 400


def test_a_long_path_of_short_names_is_fine() -> None:
    assert resolve({"output": "/".join(["n" * 200] * 10)}).output.parts[3] == "n" * 200


# --- a run's own settings.yaml ----------------------------------------------------------------------------------------
@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_settings(tmp_path / "settings.yaml", resolve({"train": {"beta": 250}, "seed": 7}))
    return tmp_path / "settings.yaml"


def test_a_runs_settings_come_back(written: Path) -> None:
    settings = resolve(read_settings(written))
    assert (settings.train.beta, settings.seed) == (250, 7)
    assert read_yaml(written, "settings file") == read_settings(written)  # it is plain YAML for `duo erase FILE`, too


def refused(path: Path) -> str:
    with pytest.raises(DuoError) as caught:
        read_settings(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert str(path) in lines[0]
    assert "restore" in lines[2]
    assert "delete" in lines[2]
    return lines[0]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.03, 0.1, 0.5, 0.9, 0.999])
def test_half_of_a_runs_settings_is_noticed(written: Path, share: float) -> None:
    content = written.read_bytes()
    written.write_bytes(content[: int(len(content) * share)])
    assert "not as they were written" in refused(written)
    with pytest.raises(DuoError, match="not as they were written"):
        resolve_settings({"output": str(written.parent)})


def test_a_digit_that_changed_in_a_runs_settings_is_noticed(written: Path) -> None:
    written.write_text(written.read_text().replace("beta: 250.0", "beta: 350.0"))
    refused(written)


def test_settings_that_a_person_wrote_into_a_run_folder_are_read(tmp_path: Path) -> None:
    for text in ("train: {beta: 100}\n", "# mine\ntrain: {beta: 100}\n", "\ntrain: {beta: 100}\n"):
        (tmp_path / "settings.yaml").write_text(text)
        assert resolve_settings({"output": str(tmp_path)}).train.beta == 100


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 5000, "a\0b", "!!int x"])
def test_an_assignment_of_nonsense(value: str) -> None:
    with pytest.raises(DuoError, match="not valid YAML"):
        parse_assignments([f"seed={value}"])


def test_no_is_a_word_where_it_is_a_choice() -> None:
    """YAML reads `no` as a truth value; a setting whose choices include the word takes it."""
    settings = resolve(parse_assignments(["train.mixed_precision=no", "quantize=no"]))
    assert (settings.train.mixed_precision, settings.quantize) == ("no", "no")
    with pytest.raises(DuoError, match="faults"):
        resolve(parse_assignments(["train.mixed_precision=yes"]))


@pytest.mark.parametrize(
    ("model", "scale"), [("runwayml/stable-diffusion-v1-5", 7.5), ("black-forest-labs/FLUX.1-dev", 3.5)]
)
def test_where_no_guidance_is_given_it_is_the_familys(tmp_path: Path, model: str, scale: float) -> None:
    given = {"concept": "nudity", "model": model, "output": str(tmp_path)}
    settings = resolve_settings(given)
    assert (settings.pairs.guidance, settings.evaluate.guidance) == (scale, scale)
    write_settings(Run(tmp_path).settings, settings)
    mine = resolve_settings({**given, "evaluate": {"guidance": 2}})
    assert (mine.pairs.guidance, mine.evaluate.guidance) == (scale, 2)
