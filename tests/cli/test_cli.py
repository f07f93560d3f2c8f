"""The command line: what it writes, what it says, and one line for whatever is wrong."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

import vcinr
from tests.conftest import smooth_picture
from tests.tiny import psnr
from vcinr.bitstream import container
from vcinr.cli import main as cli
from vcinr.cli.files import in_groups

SIZES = [(1, 1), (1, 1000), (37, 50), (50, 37), (30, 90)]


@pytest.fixture(autouse=True)
def _no_cache_and_no_bundled_models(monkeypatch, tmp_path):
    monkeypatch.setenv("VCINR_CACHE", "")
    monkeypatch.setattr("vcinr.model.places.BUNDLED", tmp_path / "bundled")


@pytest.fixture(scope="module")
def model(klt_model_dir):
    return vcinr.load(klt_model_dir)


@pytest.fixture
def run(klt_model_dir, tmp_path, monkeypatch, capsys):
    """Runs a command in `tmp_path` and returns the lines of its standard output; `--model` is added where it says MODEL."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        words = [str(klt_model_dir) if word == "MODEL" else str(word) for word in words]
        status = cli.main(words)
        out, err = capsys.readouterr()
        assert (status, err) == (0, "")
        return out.splitlines()

    return run


@pytest.fixture
def fails(klt_model_dir, tmp_path, monkeypatch, capsys):
    """Runs a command that must fail with status 1 and one line on standard error alone, which is returned."""
    monkeypatch.chdir(tmp_path)

    def fails(*words):
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        status = cli.main([str(klt_model_dir) if word == "MODEL" else str(word) for word in words])
        out, err = capsys.readouterr()
        assert (status, out) == (1, "")
        (line,) = err.splitlines()
        assert line.startswith("vcinr: ")
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        return line.removeprefix("vcinr: ")

    return fails


def save(path, picture=None, mode="RGB"):
    Image.fromarray(smooth_picture(20, 30) if picture is None else picture).convert(mode).save(path)


def read(path):
    return np.asarray(Image.open(path))


def test_pictures_of_any_size_go_out_and_come_back(run, model, tmp_path):
    pictures = {f"p{i}": smooth_picture(*size, seed=i) for i, size in enumerate(SIZES)}
    for name, picture in pictures.items():
        save(tmp_path / f"{name}.png", picture)
    lines = run("encode", *[f"{name}.png" for name in pictures], "--out", "files", "--model", "MODEL", "--point", 2, "--verify")
    run("decode", *[f"files/{name}.vcinr" for name in pictures], "--out", "back", "--model", "MODEL")
    assert len(lines) == len(pictures)
    for (name, picture), line in zip(pictures.items(), lines, strict=True):
        data = (tmp_path / "files" / f"{name}.vcinr").read_bytes()
        decoded = read(tmp_path / "back" / f"{name}.png")
        np.testing.assert_array_equal(decoded, model.decode(data))
        bpp = 8 * len(data) / (picture.shape[0] * picture.shape[1])
        said = f"{len(data)} bytes, {bpp:.4f} bpp, symbols equal, {psnr(picture, decoded):.2f} dB"
        assert line == f"{name}.png → files/{name}.vcinr: {said}"


def test_one_picture_goes_from_in_to_out(run, model, picture, tmp_path):
    save(tmp_path / "in.png", picture)
    assert "dB" not in run("encode", "in.png", "new/folder/file", "--model", "MODEL")[0]
    assert run("decode", "new/folder/file", "out.bmp", "--model", "MODEL") == []
    data = (tmp_path / "new" / "folder" / "file").read_bytes()
    assert data == model.encode(picture, 1), "of three points the middle one, where none is asked for"
    np.testing.assert_array_equal(read(tmp_path / "out.bmp"), model.decode(data))
    run("encode", "in.png", "new/folder/file", "--model", "MODEL", "--point", 0)
    assert (tmp_path / "new" / "folder" / "file").read_bytes() == model.encode(picture, 0)


def test_groups_bound_memory_and_lose_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setattr("vcinr.cli.files.GROUP_SAMPLES", 1500)
    for i in range(7):
        save(tmp_path / f"{i}.png", smooth_picture(20, 30 + i, seed=i))
    names = [f"{i}.png" for i in range(7)]
    assert [line.split()[0] for line in run("encode", *names, "--out", "files", "--model", "MODEL")] == names
    run("decode", *[f"files/{i}.vcinr" for i in range(7)], "--out", "back", "--model", "MODEL")
    assert [read(tmp_path / "back" / name).shape for name in names] == [(20, 30 + i, 3) for i in range(7)]


def test_groups_hold_one_key_each_and_about_so_many_pixels(monkeypatch):
    monkeypatch.setattr("vcinr.cli.files.GROUP_SAMPLES", 10)
    items = [("a", 4, 0), ("b", 10, 1), ("a", 4, 2), ("a", 4, 3), ("b", 9, 4), ("a", 1, 5)]
    assert list(in_groups(items)) == [("b", [1]), ("a", [0, 2, 3]), ("b", [4]), ("a", [5])]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_modes_that_are_converted(run, model, tmp_path, mode):
    save(tmp_path / "in.png", mode=mode)
    assert Image.open(tmp_path / "in.png").mode == mode
    run("encode", "in.png", "file", "--model", "MODEL", "--point", 2, "--verify")
    assert (tmp_path / "file").read_bytes() == model.encode(np.array(Image.open(tmp_path / "in.png").convert("RGB")), 2)


def test_modes_that_need_a_word(run, fails, tmp_path):
    Image.fromarray((np.arange(600, dtype=np.uint16) * 100).reshape(20, 30)).save(tmp_path / "deep.png")
    assert "deep.png" in (line := fails("encode", "deep.png", "file", "--model", "MODEL")) and "--eight-bit" in line
    run("encode", "deep.png", "deep", "--model", "MODEL", "--eight-bit")
    clear = np.zeros((8, 8, 4), np.uint8)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert "clear.png" in (line := fails("encode", "clear.png", "file", "--model", "MODEL")) and "--background" in line
    run("encode", "clear.png", "file", "--model", "MODEL", "--background", "#ffffff", "--point", 2)
    run("decode", "file", "out.png", "--model", "MODEL")
    assert read(tmp_path / "out.png").min() > 200
    assert "'no colour'" in fails("encode", "clear.png", "other", "--model", "MODEL", "--background", "no colour")


def test_a_point_by_rate_or_quality(run, fails, model, picture, tmp_path):
    save(tmp_path / "in.png", picture)
    files = [model.encode(picture, point) for point in range(3)]
    middle = 8 * len(files[1]) / (37 * 50)
    run("encode", "in.png", "file", "--model", "MODEL", "--bpp", middle)
    assert (tmp_path / "file").read_bytes() == files[1]
    run("encode", "in.png", "file", "--model", "MODEL", "--psnr", psnr(picture, model.decode(files[1])) + 0.01)
    assert (tmp_path / "file").read_bytes() == files[2]
    assert "in.png: no operating point fits 0.001 bpp" in fails("encode", "in.png", "file", "--model", "MODEL", "--bpp", 0.001)
    assert "in.png: no operating point reaches 99 dB" in fails("encode", "in.png", "file", "--model", "MODEL", "--psnr", 99)
    assert "points 0 to 2" in fails("encode", "in.png", "file", "--model", "MODEL", "--point", 3)


@pytest.mark.parametrize(
    "words", [["--bpp", "0"], ["--psnr", "nan"], ["--max-pixels", "-1"], ["--bpp", "1", "--psnr", "30"], ["--max-pixels", "x"]]
)
def test_impossible_options_are_told_by_the_parser(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["encode", "in.png", "file", *words])
    assert stopped.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert words[0] in last or words[2] in last


def test_verification_reads_what_is_on_the_disk(run, fails, klt_model_dir, model, tmp_path, monkeypatch, capsys):
    save(tmp_path / "in.png")
    for written, complaint in [
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "file: the checksum does not match"),
        (lambda data: model.encode(smooth_picture(20, 30, seed=5)), "file: it reads back as other symbols"),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr("vcinr.trees.write_atomically", lambda path, data, w=written: (tmp_path / path).write_bytes(w(data)))
            assert cli.main(["encode", "in.png", "file", "--model", str(klt_model_dir), "--verify"]) == 1
        assert capsys.readouterr().err.startswith(f"vcinr: {complaint}")
        (tmp_path / "file").unlink()
    run("encode", "in.png", "file", "--model", "MODEL", "--verify")


# Files that are not what they should be.


def flipped(data, bit):
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


DAMAGE = {
    "truncated": (lambda data: data[:-3], "payload|checksum"),
    "a stump": (lambda data: data[:5], "ends inside its header"),
    "empty": (lambda data: b"", "not a vcinr file"),
    "foreign": (lambda data: b"\x89PNG\r\n\x1a\n" + data, "not a vcinr file"),
    "a flipped version": (lambda data: flipped(data, 17), "format version 3"),
    "a flipped fingerprint": (lambda data: flipped(data, 33), "another model"),
    "flipped flags": (lambda data: flipped(data, 8 * 7 + 6), "flags"),
    "a flipped shape": (lambda data: flipped(data, 8 * 8), "payload|checksum"),
    "a flipped payload": (lambda data: flipped(data, 8 * 12 + 3), "payload|checksum"),
    "a flipped checksum": (lambda data: flipped(data, 8 * len(data) - 1), "checksum"),
    "bytes after the end": (lambda data: data + b"\0", "payload|checksum"),
    "billions of pixels": (lambda data: data[:8] + b"\x80\x80\x04\x80\x80\x04" + data[10:], "asks for 4294967296 samples"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_broken_file_is_one_line(fails, model, picture, tmp_path, what):
    damage, complaint = DAMAGE[what]
    (tmp_path / "good.vcinr").write_bytes(model.encode(picture))
    (tmp_path / "bad.vcinr").write_bytes(damage(model.encode(picture)))
    (tmp_path / "out.png").write_bytes(b"what stood here before")
    line = fails("decode", "bad.vcinr", "out.png", "--model", "MODEL")
    assert line.startswith("bad.vcinr: ")
    assert any(part in line for part in complaint.split("|")), line
    # Among good ones too.
    assert fails("decode", "good.vcinr", "bad.vcinr", "--out", "new", "--model", "MODEL").startswith("bad.vcinr: ")


@pytest.mark.parametrize("what", ["a stump", "empty", "foreign", "a flipped version", "billions of pixels"])
def test_a_broken_header_has_no_information(fails, model, picture, tmp_path, what):
    (tmp_path / "bad").write_bytes(DAMAGE[what][0](model.encode(picture)))
    assert fails("info", "bad").startswith("bad: ")


def test_symbols_that_decode_to_nothing_finite_are_one_line(fails, model, picture, tmp_path, monkeypatch):
    """An error that shows only when a whole group is decoded names its file all the same."""
    (tmp_path / "good.vcinr").write_bytes(model.encode(picture))
    (tmp_path / "bad.vcinr").write_bytes(model.encode(picture[:20]))
    synthesise = type(model.codec).synthesise_pieces

    def diverging(self, params, point, codes, grids):
        for piece in synthesise(self, params, point, codes, grids):
            yield piece._replace(values=piece.values * np.float32(np.nan if grids[piece.signal].shape == (20, 50) else 1))

    monkeypatch.setattr(type(model.codec), "synthesise_pieces", diverging)
    line = fails("decode", "good.vcinr", "bad.vcinr", "--out", "back", "--model", "MODEL")
    assert line.startswith("bad.vcinr: ") and "not finite" in line


def test_too_many_pixels_are_refused_both_ways(run, fails, tmp_path):
    save(tmp_path / "in.png", smooth_picture(1, 1000))
    assert "in.png" in (line := fails("encode", "in.png", "file", "--model", "MODEL", "--max-pixels", 999)) and "limit" in line
    assert "in.png" in (line := fails("encode", "in.png", "file", "--model", "MODEL", "--max-pixels", 7999)) and "limit" in line
    run("encode", "in.png", "file", "--model", "MODEL", "--max-pixels", 8000)
    for limit, complaint in [(999, "the header asks for 1000"), (7999, "its patches of 8×8 hold 8000")]:
        assert fails("decode", "file", "out.png", "--model", "MODEL", "--max-pixels", limit).startswith(f"file: {complaint}")
    run("decode", "file", "out.png", "--model", "MODEL", "--max-pixels", 8000)
    assert fails("info", "file", "--max-pixels", 999).startswith("file: the header asks for 1000")


def test_a_container_is_left_to_python(fails, model, picture, tmp_path):
    (tmp_path / "many").write_bytes(model.encode_together([picture, picture]))
    assert fails("decode", "many", "out.png", "--model", "MODEL") == "many: the file holds 2 signals: use Model.decode_together"


def test_inputs_that_are_not_there_or_no_pictures(fails, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    save(tmp_path / "in.png")
    assert fails("encode", "none.png", "file", "--model", "MODEL") == "none.png: No such file or directory"
    assert fails("decode", "none", "out.png", "--model", "MODEL") == "none: No such file or directory"
    assert fails("info", "none") == "none: No such file or directory"
    assert fails("info", ".").startswith(".: ")
    assert fails("encode", "text.png", "file", "--model", "MODEL").startswith("text.png: not a picture")
    assert fails("encode", "in.png", "text.png", "--out", "files", "--model", "MODEL").startswith("text.png: not a picture")


def test_models_that_are_not_there_or_damaged(fails, klt_model_dir, tmp_path):
    save(tmp_path / "in.png")
    line = "which model? 'photo', the default, is not installed (none is at hand, and VCINR_MODELS names none): install a vcinr "
    line += "that bundles it, give --model DIR, or one that needs no folder: coin"
    assert fails("encode", "in.png", "file").startswith(line)
    assert fails("encode", "in.png", "file", "--model", "none").startswith("no model in none: it has no model.json")
    shutil.copytree(klt_model_dir, tmp_path / "broken")
    with open(tmp_path / "broken" / "point_1.safetensors", "ab") as file:
        file.write(b"!")
    for words in (["encode", "in.png", "file", "--model", "broken"], ["models", "broken"], ["models", "."]):
        assert fails(*words).startswith("broken/point_1.safetensors is damaged")
    assert fails("models", "none").startswith("no model in none")


def test_an_allocation_that_fails_is_one_line(fails, model, picture, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(model.encode(picture))

    def greedy(*_):
        np.empty(2**62, np.uint8)

    monkeypatch.setattr(type(model.codec), "symbol_model", greedy)
    assert fails("decode", "file", "out.png", "--model", "MODEL") == "file: not enough memory for a signal of this size"


# Where results go.


def test_no_output_falls_onto_an_input(fails, model, picture, tmp_path):
    save(tmp_path / "in.png")
    os.symlink("in.png", tmp_path / "link")
    os.link(tmp_path / "in.png", tmp_path / "same")
    for out in ("in.png", "./in.png", "link", "same"):
        line = fails("encode", "in.png", out, "--model", "MODEL")
        assert line == f"{out} would overwrite the input in.png: choose another output"
    (tmp_path / "file.png").write_bytes(model.encode(picture))
    assert "would overwrite the input" in fails("decode", "file.png", "--out", ".", "--model", "MODEL")
    (tmp_path / "a.vcinr").write_bytes(model.encode(picture))
    assert "would overwrite the input" in fails("encode", "in.png", "a.vcinr", "--out", ".", "--model", "MODEL")


def test_two_inputs_never_share_an_output(fails, tmp_path):
    (tmp_path / "other").mkdir()
    save(tmp_path / "in.png")
    save(tmp_path / "other" / "in.jpg")
    line = fails("encode", "in.png", "other/in.jpg", "--out", "files", "--model", "MODEL")
    assert line == "in.png and other/in.jpg would both be written to files/in.vcinr: use different folders"
    assert "would both be written" in fails("encode", "in.png", "in.png", "--out", "files", "--model", "MODEL")


def test_what_is_no_encoded_file_is_not_replaced_by_one(run, fails, tmp_path):
    """`vcinr encode *.png` without --out, where there are two."""
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    assert fails("encode", "a.png", "b.png", "--model", "MODEL").startswith("b.png exists and is no vcinr file")
    assert fails("encode", "a.png", "b.png", "a.png", "--model", "MODEL").startswith("give IN OUT, or FILES… --out DIR")
    (tmp_path / "empty").touch()
    run("encode", "a.png", "empty", "--model", "MODEL")


def test_outputs_that_cannot_be(run, fails, tmp_path):
    save(tmp_path / "in.png")
    (tmp_path / "folder").mkdir()
    (tmp_path / "files" / "in.vcinr").mkdir(parents=True)
    assert fails("encode", "in.png", "folder", "--model", "MODEL") == "folder is a folder: use --out folder"
    assert fails("encode", "in.png", "--out", "in.png", "--model", "MODEL").startswith("--out in.png is a file")
    assert fails("encode", "in.png", "--out", "files", "--model", "MODEL").startswith("files/in.vcinr is no plain file")
    assert fails("encode", "in.png", os.devnull, "--model", "MODEL").startswith(f"{os.devnull} is no plain file")
    assert fails("encode", "in.png", "in.png/file", "--model", "MODEL").startswith("in.png")
    run("encode", "in.png", "file", "--model", "MODEL")
    assert fails("decode", "file", "out.jpg", "--model", "MODEL").startswith("out.jpg: pictures are written as one of .png")


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_a_disk_that_is_full_leaves_the_old_output_whole(fails, model, picture, tmp_path, monkeypatch, command):
    old = model.encode(picture[:5])
    (tmp_path / "in.vcinr").write_bytes(model.encode(picture))
    save(tmp_path / "in.png", picture)
    (tmp_path / "out.vcinr").write_bytes(old)
    save(tmp_path / "out.png", picture[:5])

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    suffixes = (".png", ".vcinr") if command == "encode" else (".vcinr", ".png")
    # `fails` compares every file with what stood there before, half-written ones included.
    assert "No space left" in fails(command, "in" + suffixes[0], "out" + suffixes[1], "--model", "MODEL")


# What it says.


def test_info_needs_no_model(run, model, picture, tmp_path):
    data = model.encode(picture, 1)
    (tmp_path / "one").write_bytes(data)
    (tmp_path / "many").write_bytes(model.encode_together([picture[: 1 + i] for i in range(6)]))
    assert run("info", "one") == [
        "format version 1",
        f"fingerprint    {model.points[1]['fingerprint']}",
        "signals        1 (37×50)",
        f"size           {len(data)} bytes, {8 * len(data) / 1850:.4f} bpp",
    ]
    assert run("info", "many")[2] == "signals        6 (1×50, 2×50, 3×50, 4×50, …)"


def test_models_lists_points(run, model, klt_model_dir, tmp_path, monkeypatch):
    text = "\n".join(run("models", "MODEL"))
    for word in ("klt", "8×8", "step 25", f"{model.num_bytes / 1e6:.1f}", *[point["fingerprint"] for point in model.points]):
        assert word in text
    points = [{**point, "lambda": 0.5, "bpp": 1.25, "psnr_db": 33.333} for point in model.points]
    vcinr.Model(model.codec, model.params, points, {}).save(tmp_path / "all" / "measured")
    shutil.copytree(klt_model_dir, tmp_path / "all" / "[bold]")
    monkeypatch.setenv("VCINR_MODELS", "all")
    for words in (["models", "all"], ["models"]):
        text = "\n".join(run(*words))
        for word in ("all/[bold]", "all/measured", "0.5", "1.250", "33.33"):
            assert word in text


def test_models_at_hand_need_not_be_named(run, fails, klt_model_dir, picture, tmp_path, monkeypatch):
    save(tmp_path / "in.png", picture)
    run("encode", "in.png", "file", "--model", "MODEL", "--point", 1)
    fingerprint = container.peek((tmp_path / "file").read_bytes()).fingerprint.hex()
    line = fails("decode", "file", "out.png")
    assert line.startswith(f"file: no model at hand has the fingerprint {fingerprint}")
    monkeypatch.setenv("VCINR_MODELS", str(klt_model_dir))
    run("decode", "file", "out.png")
    run("encode", "in.png", "again", "--point", 1)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "file").read_bytes()
    run("encode", "in.png", "coarse.vcinr")
    run("decode", "again", "coarse.vcinr", "--out", "back")
    assert read(tmp_path / "back" / "again.png").shape == read(tmp_path / "back" / "coarse.png").shape == (37, 50, 3)
    monkeypatch.setenv("VCINR_MODELS", f"{klt_model_dir}{os.pathsep}{klt_model_dir}")
    assert "not installed (at hand: " in fails("encode", "in.png", "other")


def test_a_cache_that_cannot_be_written_to(fails, run, tmp_path, monkeypatch):
    save(tmp_path / "in.png")
    (tmp_path / "taken").touch()
    monkeypatch.setenv("VCINR_CACHE", "taken/cache")
    assert fails("encode", "in.png", "file", "--model", "MODEL").startswith("VCINR_CACHE=taken/cache cannot be written to")
    monkeypatch.delenv("VCINR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "taken")
    run("encode", "in.png", "file", "--model", "MODEL")
