"""Experiments as command lines: flags that are refused, data that is missing, a floor trained and measured; the demo's checks."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vcinr
from configs import coin
from experiments import demo, evaluate, train
from tests.conftest import smooth_picture
from vcinr.adaptation import long_fit as overfit
from vcinr.datasets.catalogue import prepare
from vcinr.report.records import load_runs

ROOT = Path(__file__).parents[2]
ABOUT = {"codec", "dataset", "split", "num_signals", "point", "model_bytes"}
RATES = {"file_bytes", "payload_bytes", "bpp_file", "bpp_container", "bpp_payload", "bpp_estimated"}
QUALITIES = {"psnr_db", "psnr_of_mean_mse_db"}


def start(experiment, *flags):
    """`python -m experiments.EXPERIMENT FLAGS`, from the checkout."""
    command = [sys.executable, "-m", f"experiments.{experiment}", *map(str, flags)]
    return subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["demo", "--config.meta.num_stepz=3"], "config.meta has no key 'num_stepz'; did you mean 'num_steps'? (valid: "),
        (["demo", "--config.mta.num_steps", "3"], "config has no key 'mta'; did you mean 'meta'? (valid: "),
        (["demo", "--noconfig.data.flip"], "config.data has no key 'flip'; did you mean 'flips'? (valid: "),
        (["demo", "--config.meta.num_steps=2.5"], "flag --config.meta.num_steps=2.5: invalid literal for int()"),
        (["demo", "--config.compression.lambdas=(0.1,'a')"], "--config: vc_inr.compression.lambdas must be float, not 'a'"),
        (["demo", "--config.compression.training.num_steps=9"], "--config: warmup_steps = 50 leaves nothing of num_steps = 9"),
        (
            ["dmo"],
            "ValueError: no config variant 'dmo'; did you mean 'demo'? (valid: demo, cifar10, cifar10_small, ",
        ),
    ],
)
def test_a_flag_that_the_config_does_not_have_is_refused(flags, message, tmp_path):
    variant, *overrides = flags
    done = start("train", f"--config=configs/vc_inr.py:{variant}", f"--workdir={tmp_path / 'run'}", *overrides)
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "run").exists()
    if variant == "demo":
        assert "Traceback" not in done.stderr


def test_a_config_file_that_is_not_there_is_named(tmp_path):
    done = start("train", "--config=configs/vc_imr.py:demo", f"--workdir={tmp_path}")
    assert done.returncode == 1
    assert "configs/vc_imr.py" in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_data_end_in_the_commands_that_mend_it(datasets_dir, tmp_path, klt_model_dir):
    commands = "    pip install 'vcinr[prepare]'\n    python -m experiments.prepare cifar10\n"
    mend = f"dataset 'cifar10': it is not prepared; run\n{commands}"
    done = start("train", "--config=configs/vc_inr.py:cifar10", f"--workdir={tmp_path / 'run'}")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", mend)
    assert not (tmp_path / "run").exists()

    model = vcinr.load(klt_model_dir)
    wanted = {"name": "cifar10", "test_name": "", "test": "test", "data_dir": "", "test_tiles": 0}
    model.info["config"] = {"codec": "klt", "data": wanted}
    model.save(tmp_path / "run" / "model")
    done = start("evaluate", f"--workdir={tmp_path / 'run'}", f"--out={tmp_path / 'rd.json'}")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", mend)


def test_evaluate_names_the_folder_that_holds_no_model(tmp_path, capsys):
    assert evaluate.main([f"--workdir={tmp_path}", f"--out={tmp_path / 'rd.json'}"]) == 1
    assert capsys.readouterr().err == f"no model in {tmp_path / 'model'}: it has no model.json\n"
    assert not (tmp_path / "rd.json").exists()


def test_a_fit_that_fails_is_one_line(tmp_path, capsys, monkeypatch):
    def diverges(*_):
        raise ValueError("the fit of signal 1\nhas diverged")

    monkeypatch.setattr(evaluate, "evaluate", diverges)
    assert evaluate.main([f"--workdir={tmp_path}", f"--out={tmp_path / 'rd.json'}"]) == 1
    assert capsys.readouterr().err == "the fit of signal 1 has diverged\n"
    assert not (tmp_path / "rd.json").exists()


def test_the_floor_is_trained_by_flags_and_measured(datasets_dir, tmp_path):
    prepare("demo")
    flags = ["--config.num_components", "16", "--noconfig.data.flips", "--config.steps=(90.0,30.0)", "--config.data.test_limit=3"]
    done = start("train", "--config=configs/klt.py:demo", f"--workdir={tmp_path}", *flags, "--config.num_patches=300")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == f"model: {tmp_path / 'model'}"
    model = vcinr.load(tmp_path / "model")
    assert model.codec.config.steps == (90.0, 30.0)
    assert (model.codec.config.num_components, model.info["config"]["data"]["flips"]) == (16, False)
    assert model.info["config_name"] == "configs/klt.py:demo"
    assert model.info["command"] == (
        "python -m experiments.train --config=configs/klt.py:demo --config.num_components=16 --config.data.flips=False "
        "'--config.steps=(90.0, 30.0)' --config.data.test_limit=3 --config.num_patches=300 --workdir=DIR"
    )
    assert all({"name", "fingerprint", "bpp", "psnr_db"} <= set(point) for point in model.points)

    record = tmp_path / "results" / "floor.json"
    done = start(
        *("evaluate", f"--workdir={tmp_path}", f"--out={tmp_path / 'rd.json'}"),
        *(f"--record={record}", "--notes=three tiles", "--limit=3"),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads((tmp_path / "rd.json").read_text())
    check_rows(rows, "klt", points=2, num_signals=3)
    run = load_runs(record.parent)["floor"]
    assert (run["points"], run["config"], run["notes"]) == (rows, "configs/klt.py:demo", "three tiles")
    measured = "python -m experiments.evaluate --workdir=DIR --out=DIR/rd.json --limit=3"
    assert run["command"] == f"{model.info['command']}; {measured}"
    assert run["duration_s"] > model.info["duration_s"]
    assert str(tmp_path) not in run["command"]
    files = [path.stat().st_size for path in (tmp_path / "model").iterdir()]
    assert {row["model_bytes"] for row in rows if row["codec"] == "klt"} == {sum(files)}

    done = start("train", "--config=configs/klt.py:demo", f"--workdir={tmp_path}")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "holds a run with another config" in line

    fewer = evaluate.evaluate(tmp_path, classical=False, limit=1)
    assert [(row["codec"], row["num_signals"], row["point"]) for row in fewer] == [("klt", 1, 0), ("klt", 1, 1)]


class Killed(BaseException):
    """What no `except Exception` holds up."""


def test_a_codec_without_training_is_measured_and_goes_on_where_it_was(datasets_dir, tmp_path, monkeypatch):
    config = coin.get_config("demo")
    config.update({"architectures": ((1, 4), (1, 6)), "num_steps": 30, "seed": 5})
    config.data.update({"test_limit": 3})
    # There is nothing to train, so no data are asked for.
    model = train.train(config, tmp_path, options=["--config=configs/coin.py:demo"])
    assert [set(point) for point in model.points] == [{"name", "fingerprint"}] * 2
    assert vcinr.load(tmp_path / "model").codec.config.seed == 5
    assert len(model.info["starts"]) == 1

    prepare("demo")
    with monkeypatch.context() as patch:
        write = overfit.save_tree

        def kill(path, tree):
            write(path, tree)
            if path.name.startswith("1x6"):
                raise Killed

        patch.setattr(overfit, "save_tree", kill)
        with pytest.raises(Killed):
            evaluate.evaluate(tmp_path, classical=False)
    # All is fitted: what is there is read.
    monkeypatch.setattr(overfit, "_compiled", None)
    arguments = [f"--workdir={tmp_path}", f"--out={tmp_path / 'rd.json'}"]
    assert evaluate.main(arguments) == 0
    check_rows(json.loads((tmp_path / "rd.json").read_text()), "coin", points=2, num_signals=3)


def check_rows(rows, codec, points, num_signals):
    """Rows of a codec on the demo's test tiles, then of the classical ones, every codec's in order of rate and quality."""
    assert isinstance(rows, list)
    assert list(dict.fromkeys(row["codec"] for row in rows)) == [codec, "jpeg", "jpeg2000"]
    for name in (codec, "jpeg", "jpeg2000"):
        own = [row for row in rows if row["codec"] == name]
        assert len(own) >= points
        assert [row["point"] for row in own] == list(range(len(own)))
        for row in own:
            assert ABOUT | RATES | QUALITIES <= set(row)
            assert (row["dataset"], row["split"], row["num_signals"]) == ("demo", "test", num_signals)
            assert 0 < row["payload_bytes"] < row["file_bytes"]
            assert 0 < row["bpp_payload"] < row["bpp_file"]
            assert row["bpp_file"] == pytest.approx(8 * row["file_bytes"] / 32**2)
            assert row["psnr_of_mean_mse_db"] <= row["psnr_db"] + 1e-9
            assert (row["model_bytes"] > 0) == (name == codec != "coin")
        rates, qualities = ([row[key] for row in own] for key in ("bpp_file", "psnr_db"))
        assert rates == sorted(rates)
        # On three tiles, other encoders' settings need not rise in quality one by one.
        assert qualities == sorted(qualities) or name != codec
    for row in rows:
        if row["codec"] == codec:
            assert 0 < row["bpp_estimated"] <= row["bpp_payload"] + 8 / 32**2
            assert row["bpp_payload"] < row["bpp_container"] < row["bpp_file"]
        else:
            assert row["bpp_container"] is row["bpp_estimated"] is None


def test_rate_that_does_not_rise_with_lambda_fails_the_demo():
    rows = [{"lambda": 0.02, "bpp_file": 0.9}, {"lambda": 0.005, "bpp_file": 0.3}, {"lambda": 0.01, "bpp_file": 0.5}]
    demo.check_order(rows)
    for rate in (0.3, 0.1):
        rows[2]["bpp_file"] = rate
        with pytest.raises(RuntimeError, match=rf"rate does not rise with λ: 0\.300 bpp at 0\.005, {rate:.3f} at 0\.01$"):
            demo.check_order(rows)


@pytest.fixture
def trained_folder(klt_model_dir, tmp_path):
    shutil.copytree(klt_model_dir, tmp_path / "model")
    return tmp_path


TILES = [smooth_picture(40, 40, seed) for seed in range(3)]


def test_another_process_decodes_what_this_one_writes(trained_folder, capsys):
    demo.check_other_process(vcinr.load(trained_folder / "model"), TILES, trained_folder)
    assert "klt: 9 files decoded in another process" in capsys.readouterr().out
    names = {f"point{point}_tile{tile:03d}" for point in range(3) for tile in range(3)}
    assert {path.stem for path in (trained_folder / "files").iterdir()} == names
    assert {path.name for path in (trained_folder / "decoded").iterdir()} == {f"{name}.png" for name in names}


def test_another_process_that_fails_fails_the_demo(trained_folder):
    model = vcinr.load(trained_folder / "model")
    shutil.rmtree(trained_folder / "model")
    with pytest.raises(RuntimeError, match="another process could not decode the files in"):
        demo.check_other_process(model, TILES, trained_folder)


def test_another_process_that_decodes_otherwise_fails_the_demo(trained_folder, monkeypatch):
    model = vcinr.load(trained_folder / "model")
    decode = model.decode_batch

    def decode_with(difference, values):
        def decoded(files):
            wrong = difference * (np.arange(40 * 40 * 3).reshape(40, 40, 3) < values)
            return [array ^ wrong.astype(np.uint8) for array in decode(files)]

        monkeypatch.setattr(model, "decode_batch", decoded)

    # A few values that round otherwise are what other hardware may do; more of them, or larger ones, are another picture.
    decode_with(difference=1, values=3)
    demo.check_other_process(model, TILES, trained_folder)
    for difference, values in ((2, 1), (1, 100)):
        decode_with(difference, values)
        with pytest.raises(RuntimeError, match="decodes to another picture in another process"):
            demo.check_other_process(model, TILES, trained_folder)


def test_the_demo_says_what_failed_and_keeps_what_is_not_its_own(tmp_path, monkeypatch, capsys):
    """A folder that holds another run's results loses no more than the demo itself writes."""
    for name in ("rd.json", "klt/old", "vc_inr/old", "model/kept"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("[]")

    def fail(name):
        raise RuntimeError(f"no {name} today")

    monkeypatch.setattr(demo, "prepare", fail)
    assert demo.main([f"--out={tmp_path}"]) == 1
    assert capsys.readouterr().err == "demo: no demo today\n"
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "kept"]
