"""All stages of a codec in one workdir: records of the start, skipping, and a kill at any step."""

import dataclasses
import json
import re
import time

import fakes
import numpy as np
import pytest

from vcinr.training.progress import ProgressBar
from vcinr.training.run import train
from vcinr.trees import load_tree


def test_stages_run_in_order_and_are_recorded(tmp_path, monkeypatch):
    codec, patches = fakes.FakeCodec(dataclasses.replace(fakes.CONFIG, num_steps=6)), fakes.Patches()
    params = train(codec, patches, seed=1, workdir=tmp_path, config_json='{"dataset": {"name": "fake"}}', quiet=True)
    assert sorted(params) == ["first", "maml", "mean", "posteriors", "shared"]
    started = json.loads((tmp_path / "started.json").read_text())
    assert started["run"]["config"] == {"dataset": {"name": "fake"}}
    assert started["run"]["codec_config"] == {"width": 8}
    assert started["run"]["seed"] == 1
    (start,) = started["starts"]
    assert start["environment"]["device_count"] == 1
    assert start["git_revision"] is None or re.fullmatch(r"[0-9a-f]{40}(\+changes)?", start["git_revision"])

    draws = patches.draws
    again = train(codec, patches, seed=1, workdir=tmp_path, config_json='{"dataset": {"name": "fake"}}', quiet=True)
    assert patches.draws == draws
    for stage in ("first", "maml"):
        for name, value in params[stage].items():
            assert value.tobytes() == again[stage][name].tobytes()
    assert len(json.loads((tmp_path / "started.json").read_text())["starts"]) == 2


def test_another_run_in_the_same_workdir_is_refused(tmp_path):
    config = dataclasses.replace(fakes.CONFIG, num_steps=5)
    train(fakes.FakeCodec(config), fakes.Patches(), seed=1, workdir=tmp_path, quiet=True)
    with pytest.raises(ValueError, match=r"another config \(codec_config.width: 8 → 9, seed: 1 → 2\)"):
        train(fakes.FakeCodec(config, width=9), fakes.Patches(), seed=2, workdir=tmp_path, quiet=True)


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="seed must lie in"):
        train(fakes.FakeCodec(), fakes.Patches(), seed=-1, workdir=tmp_path)
    codec = fakes.FakeCodec()
    codec.stages = lambda: (fakes.make_stage(), fakes.make_stage())
    with pytest.raises(ValueError, match="different names"):
        train(codec, fakes.Patches(), seed=1, workdir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_progress_says_a_line_where_there_is_no_terminal(capsys):
    with ProgressBar() as progress:
        progress.start("meta", 0, 10)
        progress.update(5, 0.01)
        progress.update(10, 0.01)
    assert capsys.readouterr().err.split("\n")[0].strip() == "meta 10/10  loss 0.01 (-20.00 dB)  0 s left"


def test_killed_at_random_steps_and_resumed(tmp_path, start_worker, finish):
    """SIGKILL at a random step of each trained stage: in the end the bits of a run never killed, and each step logged once."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    finish(start_worker("train_fake", whole))
    rng = np.random.default_rng()
    logs = [parts / stage / "metrics.jsonl" for stage in ("first", "maml", "posteriors")]
    for low, high in ((0, 20), (20, 40), (40, 50)):  # 20 lines per stage
        lines, patience = int(rng.integers(low, high)), time.monotonic() + 200
        worker = start_worker("train_fake", parts)
        while sum(len(log.read_text().splitlines()) for log in logs if log.exists()) <= lines and worker.poll() is None:
            assert time.monotonic() < patience
            time.sleep(0.002)
        worker.kill()
        assert worker.wait() == -9, worker.log_path.read_text()[-4000:]
    finish(start_worker("train_fake", parts))
    for stage in ("first", "mean", "maml", "posteriors"):
        assert (parts / stage / "finished.safetensors").read_bytes() == (whole / stage / "finished.safetensors").read_bytes()
    assert np.all(np.isfinite(load_tree(parts / "maml" / "finished.safetensors")["maml"]["out"]))
    for log in logs:
        assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == list(range(3, 61, 3))
    assert len(json.loads((parts / "started.json").read_text())["starts"]) == 4
