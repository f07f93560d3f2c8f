"""The demo's VC-INR, small: trained by flags, measured, and killed twice on the way without a trace in the model."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import vcinr
from tests.experiments.test_experiments import check_rows, start
from vcinr.datasets.catalogue import prepare
from vcinr.trees import load_tree

ROOT = Path(__file__).parents[2]
FLAGS = [
    "--config=configs/vc_inr.py:demo",
    "--config.patch=(16,16)",
    "--config.field.latent_dim=24",
    "--config.field.width=32",
    "--config.field.last_width=48",
    "--config.field.hyper_width=32",
    "--config.warm_start.num_patches=2000",
    "--config.warm_start.training.num_steps=60",
    "--config.meta.num_steps=60",
    "--config.meta.log_every=3",
    "--config.meta.eval_every=25",
    "--config.meta.checkpoint_every=7",
    "--config.compression.lambdas=(0.0004,0.004)",
    "--config.compression.width=32",
    "--config.compression.num_latents=400",
    "--config.compression.training.num_steps=60",
    "--config.compression.training.log_every=3",
    "--config.compression.training.eval_every=0",
    "--config.compression.training.checkpoint_every=7",
    "--config.data.test_limit=6",
]
LOGGED = {
    "warm_start": {20, 40, 60},
    "meta": {*range(3, 61, 3), 25, 50},
    "quantise_0": set(range(3, 61, 3)),
    "quantise_1": set(range(3, 61, 3)),
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that was never killed; data sets lie beside it, for all of this module's programs."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VCINR_DATASETS_DIR", str(folder / "datasets"))
        prepare("demo")
        done = start("train", *FLAGS, f"--workdir={folder / 'whole'}")
        assert done.returncode == 0, done.stderr[-4000:]
        yield folder / "whole"


def test_a_vc_inr_is_trained_by_flags_and_measured(whole):
    model = vcinr.load(whole / "model")
    assert model.codec.config.field.latent_dim == 24
    assert [point["lambda"] for point in model.points] == [0.0004, 0.004]
    done = start("evaluate", f"--workdir={whole}", f"--out={whole / 'rd.json'}")
    assert done.returncode == 0, done.stderr[-4000:]
    rows = json.loads((whole / "rd.json").read_text())
    check_rows(rows, "vc_inr", points=2, num_signals=6)
    own = rows[:2]
    assert [row["lambda"] for row in own] == [0.0004, 0.004]
    assert [row["fingerprint"] for row in own] == [point["fingerprint"] for point in model.points]
    assert own[1]["psnr_db"] > own[0]["psnr_db"] + 1 > 15


def test_a_run_killed_twice_ends_in_the_model_of_one_never_killed(whole):
    """SIGKILL in `meta`, then in a later stage, each after a random number of logged lines; the third start ends as `whole`."""
    parts, rng = whole.parent / "parts", np.random.default_rng()
    kills = [("meta", int(rng.integers(0, 19))), (f"quantise_{rng.integers(2)}", int(rng.integers(0, 19)))]
    for stage, lines in kills:
        kill_after(parts, stage, lines)
        assert not (parts / stage / "finished.safetensors").exists(), kills
    done = start("train", *FLAGS, f"--workdir={parts}")
    assert done.returncode == 0, done.stderr[-4000:]
    assert "another environment" not in done.stderr
    assert len(json.loads((parts / "started.json").read_text())["starts"]) == 3

    names = {path.name for path in (whole / "model").glob("*.safetensors")}
    assert names == {"shared.safetensors", "point_0.safetensors", "point_1.safetensors"}
    for name in names:
        assert (parts / "model" / name).read_bytes() == (whole / "model" / name).read_bytes(), (name, kills)
    assert fingerprints(parts) == fingerprints(whole)
    for stage, steps in LOGGED.items():
        assert metrics(parts, stage) == metrics(whole, stage), kills
        assert [line["step"] for line in metrics(parts, stage)] == sorted(steps)
        assert list((parts / stage / "tensorboard").glob("events.out.tfevents.*"))
    assert not np.array_equal(*(load_tree(parts / s / "finished.safetensors")["latent_init"] for s in ("warm_start", "meta")))


def kill_after(workdir, stage, lines):
    """Starts a run and kills it once a stage's log has more than so many lines."""
    log, patience = workdir / stage / "metrics.jsonl", time.monotonic() + 300
    command = [sys.executable, "-m", "experiments.train", *FLAGS, f"--workdir={workdir}"]
    with open(workdir.with_suffix(".log"), "w") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ, stdout=output, stderr=output)
        try:
            while not log.exists() or len(log.read_text().splitlines()) <= lines:
                assert process.poll() is None, workdir.with_suffix(".log").read_text()[-4000:]
                assert time.monotonic() < patience
                time.sleep(0.002)
        finally:
            process.kill()
            code = process.wait()
    assert code == -9


def metrics(workdir, stage):
    """A stage's log without what the clock says."""
    lines = map(json.loads, (workdir / stage / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key != "examples_per_s"} for line in lines]


def fingerprints(workdir):
    return [point["fingerprint"] for point in vcinr.load(workdir / "model").points]
