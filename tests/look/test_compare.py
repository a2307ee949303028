"""Comparing on the page: what is refused, one job at a time, stopping it, and the pictures of `duo sample`."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import duo_unlearn as duo
from duo_unlearn.look.app import application
from duo_unlearn.look.jobs import Job, Jobs
from duo_unlearn.look.records import Records
from duo_unlearn.runs.folder import Run
from duo_unlearn.storage.files import write_json

from ..experiments.small_run import edited_run
from ..report.make_run import add_images, add_record
from .browser import BASE, TestClient, door_of, opened
from .test_pairs import HOSTILE

FORM = {"prompt": "a red knight holding a sword", "system": "duo", "seed": "3", "steps": "2"}


@pytest.fixture(scope="module")
def picture_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with images of its systems, which no test changes."""
    run = Run(tmp_path_factory.mktemp("pictures") / "run")
    add_images(run, count=3)
    add_record(run)
    return run


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return edited_run(tmp_path_factory.mktemp("compare")).run


@pytest.fixture
def jobs(edited: Run) -> Iterator[Jobs]:
    found = Jobs(edited.folder)
    yield found
    found.close()


def client_of(run: Run, jobs: Jobs) -> TestClient:
    door = door_of()
    client = TestClient(application(Records(run), door, jobs), base_url=BASE, follow_redirects=False)
    client.get(f"/open?token={door.token}")
    client.headers.update({"Origin": BASE})
    return client


def drawn(jobs: Jobs) -> str:
    """How the newest job ended."""
    end = time.monotonic() + 120
    while jobs.running is not None and time.monotonic() < end:
        time.sleep(0.05)
    return jobs.history[-1].state


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": ""},
        {"prompt": " \n "},
        {"prompt": "x" * 2001},
        {"system": "nothing"},
        {"system": "../../etc"},
        {"system": HOSTILE},
        {"seed": "-1"},
        {"seed": "1.5"},
        {"seed": "nan"},
        {"guidance": "inf"},
        {"guidance": "a lot"},
        {"strength": "9"},
        {"steps": "1"},
        {"steps": "100000"},
    ],
)
def test_what_cannot_be_drawn_is_told_and_no_process_is_started(picture_run: Run, change: dict[str, str]) -> None:
    client = opened(picture_run)
    answer = client.post("/compare", data={**FORM, **change})
    assert answer.status_code == 400
    assert "Try" in answer.text
    assert "<script>" not in answer.text
    assert "Nothing is compared yet" in client.get("/compare").text


def test_a_run_without_a_system_and_prompts_of_its_sets(run: Run) -> None:
    add_record(run)
    client = opened(run)
    assert "no system to compare yet" in client.get("/compare").text
    add_images(run, count=3, prompt=HOSTILE)
    page = client.get("/compare").text
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
    assert client.get("/compare/1/original").status_code == 404


def test_an_edit_on_top_of_another_is_offered_with_it(run: Run) -> None:
    add_record(run)
    write_json(run.edit("uce") / "provenance.json", {"eraser": "uce"})
    write_json(run.edit("robust-duo") / "provenance.json", {"on": [{"name": "uce", "sha256": "0" * 64}]})
    (run.edit("torn") / "provenance.json").parent.mkdir()
    (run.edit("torn") / "provenance.json").write_text("{")
    page = opened(run).get("/compare").text
    offered = re.findall(r'<option value="([^"]*)"', page)
    assert {"uce", "uce+robust-duo", "torn"} <= set(offered)
    assert "robust-duo" not in offered


@pytest.mark.slow
def test_the_pictures_are_those_of_duo_sample(edited: Run, jobs: Jobs, tmp_path: Path) -> None:
    client = client_of(edited, jobs)
    assert client.post("/compare", data=FORM).status_code == 303
    assert client.post("/compare", data=FORM).status_code == 409  # one at a time
    assert drawn(jobs) == "done"
    duo.sample(
        [FORM["prompt"]],
        tmp_path / "sheet.png",
        adapter=edited.folder,
        system="duo",
        compare=True,
        count=1,
        seed=3,
        steps=2,
    )
    with Image.open(tmp_path / "sheet.png") as sheet:
        both = np.asarray(sheet.convert("RGB"))
    answers = [client.get(f"/compare/1/{side}") for side in ("original", "system")]
    sides = [np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")) for answer in answers]
    assert (np.concatenate(sides) == both).all()
    assert (sides[0] != sides[1]).any()
    page = client.get("/compare").text
    assert "data-duel" in page
    assert "seed 3" in page
    assert client.post("/compare", data={**FORM, "next": "seed"}).status_code == 303
    assert drawn(jobs) == "done"
    assert jobs.history[-1].request["seed"] == 4
    assert jobs.history[-1].seconds < jobs.history[0].seconds  # the model was kept
    assert 'href="/compare?job=1"' in client.get("/compare").text


@pytest.mark.slow
def test_a_picture_is_not_kept_since_numbers_begin_again_with_the_page(picture_run: Run) -> None:
    jobs = Jobs(picture_run.folder)
    job = Job(1, {"prompt": "a king", "system": "duo", "seed": 0, "guidance": 5, "strength": 1, "steps": 2})
    job.pictures, job.state = [b"one", b"two"], "done"
    jobs.history = [job]
    answer = client_of(picture_run, jobs).get("/compare/1/system")
    assert (answer.content, answer.headers["cache-control"]) == (b"two", "no-store")


@pytest.mark.slow
def test_a_comparison_can_be_stopped_and_the_next_one_is_drawn(edited: Run, jobs: Jobs) -> None:
    client = client_of(edited, jobs)
    client.post("/compare", data={**FORM, "steps": "200"})
    running = client.get("/compare").text
    assert 'data-key="x"' in running
    assert client.post("/compare/stop").headers["location"] == "/compare"
    assert jobs.history[-1].state == "stopped"
    assert "Stopped" in client.get("/compare").text
    assert client.post("/compare/stop").status_code == 303  # nothing to stop: nothing happens
    client.post("/compare", data={**FORM, "strength": "0"})
    assert drawn(jobs) == "done"
    assert jobs.history[-1].pictures[0] == jobs.history[-1].pictures[1]  # strength 0 is the base exactly


@pytest.mark.slow
def test_a_system_that_cannot_be_made_is_told_on_the_page(picture_run: Run) -> None:
    jobs = Jobs(picture_run.folder)
    client = client_of(picture_run, jobs)
    client.post("/compare", data=FORM)  # attempts of duo are there, its edit is not
    assert drawn(jobs) == "failed"
    page = client.get("/compare").text
    assert 'role="alert"' in page
    assert "Try:" in page
    jobs.close()
