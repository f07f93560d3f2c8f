"""The command line where models come with the package: which is the default, and how they are listed."""

import shutil

import numpy as np
import pytest
from PIL import Image

import vcinr
from tests.tiny import hand_made
from vcinr.cli import main as cli


@pytest.fixture
def run(klt_model_dir, tmp_path, monkeypatch, capsys):
    """Runs a command where `photo` and `tiny` are bundled and another model is at hand; the lines of its standard output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VCINR_CACHE", "")
    monkeypatch.setattr("vcinr.model.places.BUNDLED", tmp_path / "bundled")
    monkeypatch.setenv("VCINR_MODELS", "own")
    shutil.copytree(klt_model_dir, "bundled/photo")
    (tmp_path / "bundled" / "photo" / "README.md").write_text("# Its card")
    hand_made(step=4 / 255).save("bundled/tiny")
    hand_made().save("own")

    def run(*words):
        status = cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert (status, err) == (0, "")
        return out.splitlines()

    return run


def test_pictures_are_coded_by_the_model_for_photographs_where_none_is_named(run, klt_model_dir, picture, tmp_path):
    model = vcinr.load(klt_model_dir)
    Image.fromarray(picture).save("in.png")
    middle = len(model.points) // 2
    for point in (middle, 1):
        run("encode", "in.png", "file", *([] if point == middle else ["--point", point]))
        assert (tmp_path / "file").read_bytes() == model.encode(picture, point)
    rate = 8 * len(model.encode(picture, 1)) / (37 * 50)
    run("encode", "in.png", "rated", "--bpp", rate)
    assert (tmp_path / "rated").read_bytes() == (tmp_path / "file").read_bytes()
    run("encode", "in.png", "small", "--model", "tiny")
    assert (tmp_path / "small").read_bytes() == vcinr.load("tiny").encode(picture)
    run("decode", "file", "small", "--out", "back")
    np.testing.assert_array_equal(Image.open("back/file.png"), model.decode(model.encode(picture, 1)))
    np.testing.assert_array_equal(Image.open("back/small.png"), vcinr.load("tiny").decode((tmp_path / "small").read_bytes()))


def test_models_at_hand_are_listed_by_the_names_they_are_loaded_by(run):
    """Bundled ones by name, then others by where they are, then what needs no folder, each with its number of points."""
    cells = [[cell.strip() for cell in line.split("│")[1:6]] for line in run("models") if line.startswith("│")]
    first = [row for row in cells if row[0]]
    assert [row[0] for row in first] == ["photo", "tiny", "own", "coin", "strumpler_basic"]
    for name, codec, patch, size, points in first:
        model = vcinr.load(name)
        assert codec == model.codec.name
        assert patch == ("×".join(map(str, model.codec.patch)) or "whole")
        assert size == f"{model.num_bytes / 1e6:.1f}"
        assert points == ("0" if model.codec.needs_model else f"0–{len(model.points) - 1}")
    assert [row[4] for row in cells if row[0] in ("", "photo")] == ["0", "1", "2"]
    assert [line.split("│")[1].strip() for line in run("models", "photo") if line.startswith("│")] == ["photo", "", ""]
