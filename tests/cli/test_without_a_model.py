"""The command line with codecs whose files need no model: both ways, in processes that have none."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import vcinr
from tests.conftest import smooth_picture
from tests.tiny import psnr
from vcinr.cli import main as cli
from vcinr.codec import Code
from vcinr.codecs.coin import Coin, CoinConfig
from vcinr.model.model import make_model
from vcinr.signals.signal import Grid


@pytest.fixture(autouse=True)
def _no_cache_and_no_bundled_models(monkeypatch, tmp_path):
    monkeypatch.setenv("VCINR_CACHE", "")
    monkeypatch.setattr("vcinr.model.places.BUNDLED", tmp_path / "bundled")
    monkeypatch.chdir(tmp_path)


def test_a_picture_goes_out_and_comes_back_by_rate_alone(tmp_path):
    picture = smooth_picture(16, 24)
    Image.fromarray(picture).save("in.png")
    environment = {name: value for name, value in os.environ.items() if name != "VCINR_MODELS"}
    # Only the smallest network fits, so that nothing is searched.
    for words in (["encode", "in.png", "file", "--model", "coin", "--bpp", "4.0"], ["decode", "file", "out.png"]):
        command = [sys.executable, "-m", "vcinr", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert (done.returncode, done.stderr) == (0, "")
    # 8 bytes of magic, version, fingerprint and flags; two varints each of shape and meta, one of ω₀; weights; the checksum.
    assert 8 + 2 + 3 + 2 * 81 + 4 - 2 <= (tmp_path / "file").stat().st_size <= 4.0 * 16 * 24 / 8
    decoded = np.asarray(Image.open("out.png"))
    assert decoded.shape == picture.shape
    assert psnr(picture, decoded) > 28


def test_a_file_that_asks_for_much_work_is_refused_unless_it_is_trusted(tmp_path, capsys):
    model = vcinr.load("coin")
    # (2 + 1)·1 + (1 + 1)·3 weights.
    code = Code({"weights": np.zeros(9, np.int32)}, {"depth": 1, "width": 1, "omega_0": 30})
    data = model.write_codes(0, [code], [Grid((4, 6), (4, 6))])
    (tmp_path / "file").write_bytes(data)
    work = model.codec.decoding_work(Grid((4, 6), (4, 6)), code.meta)
    assert cli.main(["decode", "file", "out.png", "--max-work", str(work - 1)]) == 1
    assert re.search(rf"^vcinr: file: .* {work} multiplications; the limit is {work - 1}: .*--max-work", capsys.readouterr().err)
    assert not (tmp_path / "out.png").exists()
    assert cli.main(["decode", "file", "out.png", "--max-work", str(work)]) == 0
    assert np.asarray(Image.open("out.png")).shape == (4, 6, 3)


def test_a_long_encoding_keeps_what_it_has_and_shows_how_far_it_is(tmp_path, monkeypatch, capsys):
    codec = Coin(CoinConfig(architectures=((1, 4),), num_steps=20))
    make_model(codec, codec.init(), {}).save("small")
    for name in "ab":
        Image.fromarray(smooth_picture(6, 8, seed=ord(name))).save(f"{name}.png")
    told = []
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("rich.progress.Progress.update", lambda self, task, **fields: told.append(fields))
    words = ["encode", "a.png", "b.png", "--out", "files", "--model", "small", "--workdir", "kept", "--effort", "1"]
    assert cli.main(words) == 0
    assert [(fields["description"], fields["completed"], fields["total"]) for fields in told] == [
        ("fitting", 0, 40),
        ("fitting", 40, 40),
    ] * 2
    kept, _ = (tmp_path / "kept").iterdir()
    first = {path.name: path.read_bytes() for path in (tmp_path / "files").iterdir()}
    assert cli.main(words) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "files").iterdir()} == first
    kept.write_bytes(kept.read_bytes()[:-1])
    capsys.readouterr()
    assert cli.main(words) == 1
    assert re.search(r"vcinr: [ab]\.png: kept/1x4_40_6x8_\w+\.safetensors is damaged", capsys.readouterr().err)


def test_each_file_is_written_when_its_fit_is_done_and_holds_the_fit_that_was_measured(tmp_path, capsys):
    codec = Coin(CoinConfig(architectures=((1, 4), (2, 8)), num_steps=30))
    model = make_model(codec, codec.init(), {})
    model.save("small")
    pictures = {name: smooth_picture(6, 8, seed=ord(name)) for name in "ab"}
    for name, picture in pictures.items():
        Image.fromarray(picture).save(f"{name}.png")
    best = {name: model.encode(picture, 1) for name, picture in pictures.items()}
    wanted = min(psnr(picture, model.decode(best[name])) for name, picture in pictures.items()) - 1e-6
    cheap = max(psnr(picture, model.decode(model.encode(picture, 0))) for picture in pictures.values())
    assert wanted > cheap
    assert cli.main(["encode", "a.png", "b.png", "--out", "by", "--model", "small", "--psnr", str(wanted)]) == 0
    assert {name: (tmp_path / "by" / f"{name}.vcinr").read_bytes() for name in "ab"} == best
    capsys.readouterr()
    # The second picture is one bit too deep.
    Image.fromarray(np.zeros((6, 8), np.uint16)).save("b.png")
    assert cli.main(["encode", "a.png", "b.png", "--out", "point", "--model", "small", "--point", "1"]) == 1
    assert (tmp_path / "point" / "a.vcinr").read_bytes() == best["a"]
    assert capsys.readouterr().err.startswith("vcinr: b.png: ")


def test_a_network_is_not_chosen_for_who_does_not(capsys):
    Image.fromarray(smooth_picture(6, 8)).save("in.png")
    assert cli.main(["encode", "in.png", "file", "--model", "coin"]) == 1
    count = len(CoinConfig().points)
    message = f"vcinr: which of {count} networks? give --bpp, --psnr or --point (see vcinr models NAME)\n"
    assert capsys.readouterr().err == message


def test_models_names_what_needs_no_folder_and_lists_its_points(klt_model_dir, monkeypatch, capsys):
    assert cli.main(["models"]) == 0
    assert "No trained model is at hand: name a folder, or set VCINR_MODELS" in capsys.readouterr().out
    monkeypatch.setenv("VCINR_MODELS", str(klt_model_dir))
    assert cli.main(["models"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("coin") and "built in" in last
    assert cli.main(["models", "coin"]) == 0
    out = capsys.readouterr().out
    fingerprint = vcinr.load("coin").points[0]["fingerprint"]
    rows = [line for line in out.splitlines() if fingerprint in line]
    assert len(rows) == len(CoinConfig().points)
    assert "2x6" in rows[0] and "13x128" in rows[-1]


def test_a_rate_that_nothing_fits_is_one_line(capsys):
    Image.fromarray(smooth_picture(16, 24)).save("in.png")
    assert cli.main(["encode", "in.png", "file", "--model", "coin", "--bpp", "1.0"]) == 1
    assert capsys.readouterr().err.startswith("vcinr: in.png: no operating point fits 1 bpp; the cheapest takes 3.9")
    assert cli.main(["encode", "in.png", "file", "--model", "coin", "--point", "0", "--effort", "-1"]) == 1
    assert "effort lies in 0 to 16" in capsys.readouterr().err
