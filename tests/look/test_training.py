"""The curves of a training on the page, and how they come while it goes on in another process."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET

from PIL import Image

from duo_unlearn.erasers.preview_files import PROMPTS, preview_file
from duo_unlearn.runs.folder import Run
from duo_unlearn.storage.files import write_json
from duo_unlearn.storage.pictures import save_png

from ..report.make_run import add_curves, add_record
from .browser import opened


def mark_of(page: str) -> str:
    found = re.search(r'data-mark="([0-9a-f]+)"', page)
    assert found is not None
    return found[1]


def test_curves_come_anew_when_a_line_was_written_and_not_otherwise(run: Run) -> None:
    add_curves(run, steps=40)
    add_record(run)
    client = opened(run)
    page = client.get("/training").text
    assert "step 40" in page
    mark = mark_of(page)
    assert client.get(f"/training/now?mark={mark}").status_code == 204
    with run.metrics("duo").open("a") as handle:  # the training goes on; the torn line of its end stays torn
        handle.write("\n" + json.dumps({"step": 41, "loss": 0.25, "preference": 0.125, "prior": 1e-6}) + "\n")
    answer = client.get(f"/training/now?mark={mark}")
    assert answer.status_code == 200
    assert "step 41" in answer.text
    assert "preference 0.125" in answer.text
    assert "<html" not in answer.text
    assert client.get(f"/training/now?mark={answer.headers['x-mark']}").status_code == 204


def test_a_curve_is_a_picture_of_its_own(run: Run) -> None:
    add_curves(run, steps=12, name="duo")
    add_record(run)
    client = opened(run)
    images = re.findall(r'src="(/training/duo/\d\.svg\?step=\d+)"', client.get("/training").text)
    assert len(images) == 4
    for path in images:
        answer = client.get(path)
        assert answer.headers["content-type"] == "image/svg+xml"
        root = ET.fromstring(answer.text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "<script" not in answer.text
    for path in ("/training/duo/9.svg", "/training/other/0.svg", "/training/..%2f..%2fpairs/0.svg"):
        assert client.get(path).status_code == 404


def test_no_training_yet_and_one_whose_first_line_is_torn(run: Run) -> None:
    add_record(run)
    client = opened(run)
    assert "No training has written a step yet" in client.get("/training").text
    run.metrics("duo").parent.mkdir(parents=True)
    run.metrics("duo").write_text('{"step": 1, "lo')
    assert "No training has written a step yet" in client.get("/training").text


def test_previews_stand_newest_first_under_their_prompts(run: Run) -> None:
    add_curves(run, steps=12)
    add_record(run)
    folder = run.previews("duo")
    for step in (0, 4, 12):
        save_png(Image.new("RGB", (64, 16), (step, 0, 0)), preview_file(folder, step))
    write_json(folder / PROMPTS, {"prompts": ["a <b>knight</b>", "a king"]})
    client = opened(run)
    page = client.get("/training").text
    assert re.findall(r'src="(/training/duo/previews/\d+\.png)"', page) == [
        f"/training/duo/previews/{step}.png" for step in (12, 4, 0)
    ]
    assert "a &lt;b&gt;knight&lt;/b&gt;" in page
    answer = client.get("/training/duo/previews/4.png")
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == preview_file(folder, 4).read_bytes()
    for path in ("/training/duo/previews/5.png", "/training/other/previews/4.png", "/training/..%2f/previews/4.png"):
        assert client.get(path).status_code == 404
    mark = mark_of(page)
    save_png(Image.new("RGB", (64, 16)), preview_file(folder, 8))
    assert "/training/duo/previews/8.png" in client.get(f"/training/now?mark={mark}").text
