"""The loop of one stage: order of resuming, rollbacks, validation, logs."""

import dataclasses
import json
import logging
from pathlib import Path

import fakes
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vcinr.stage import ClosedForm
from vcinr.training.loop import run_stage
from vcinr.training.progress import ProgressBar


class Recorder(fakes.Patches):
    """Patches that remember each batch, and may spoil those of some draws (counted from 1)."""

    def __init__(self, spoil=()):
        super().__init__()
        self.spoil, self.seen = spoil, []

    def batch(self, rng, size):
        batch = super().batch(rng, size)
        self.seen.append(batch["values"].copy())
        if self.draws in self.spoil:
            batch["values"][0, 0] = np.nan
        return batch


class Interrupted(Exception):
    pass


class Interrupting(fakes.Patches):
    """Patches that run out after a number of draws, as a killed run's do."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def batch(self, rng, size):
        if self.draws == self.after:
            raise Interrupted
        return super().batch(rng, size)


def _run(stage, patches, workdir, **kwargs):
    return run_stage(stage, {"kept": np.ones(2)}, patches, seed=3, workdir=workdir, index=1, **kwargs)


def _lines(workdir, name="fit"):
    return [json.loads(line) for line in (workdir / name / "metrics.jsonl").read_text().splitlines()]


def _metrics(workdir):
    """Lines without what the clock says."""
    return [{k: v for k, v in line.items() if k != "examples_per_s"} for line in _lines(workdir)]


def test_training_learns_and_logs(tmp_path):
    stage = fakes.make_stage(config=dataclasses.replace(fakes.CONFIG, num_steps=300, lr=0.3, average_decay=0.9, log_every=50))
    result = _run(stage, fakes.Patches(), tmp_path)
    np.testing.assert_allclose(result["fit"]["w"], np.arange(8.0), atol=0.3)
    np.testing.assert_array_equal(result["kept"], np.ones(2))
    lines = _lines(tmp_path)
    assert [line["step"] for line in lines] == [50, 100, 150, 200, 250, 300]
    assert {"loss", "smoothed_loss", "abs_error", "grad_norm", "lr", "examples_per_s", "attempt"} <= set(lines[0])
    assert lines[-1]["smoothed_loss"] < 0.1 * lines[0]["smoothed_loss"]


def test_interrupted_twice_and_resumed_is_never_interrupted(tmp_path):
    """Bit-identical result and log; a finished stage is not run again."""
    stage = fakes.make_stage()
    whole = _run(stage, fakes.Patches(), tmp_path / "whole")
    for after in (17, 16):  # dies in step 18, goes on from 10, dies in step 27
        with pytest.raises(Interrupted):
            _run(stage, Interrupting(after), tmp_path / "parts")
    rest = fakes.Patches()
    parts = _run(stage, rest, tmp_path / "parts")
    assert rest.draws == 20
    assert whole["fit"]["w"].tobytes() == parts["fit"]["w"].tobytes()
    assert _metrics(tmp_path / "whole") == _metrics(tmp_path / "parts")
    assert [line["step"] for line in _lines(tmp_path / "parts")] == list(range(5, 41, 5))

    again = fakes.Patches()
    _run(stage, again, tmp_path / "parts")
    assert again.draws == 0


def test_a_nan_rolls_back_to_the_last_checkpoint(tmp_path, caplog):
    """A spoiled draw at step 14: back to 10, at half the rate, with other batches, said aloud."""
    patches = Recorder(spoil={14})
    with caplog.at_level(logging.WARNING, "vcinr"):
        _run(fakes.make_stage(), patches, tmp_path)
    lines = _lines(tmp_path)
    (event,) = [line for line in lines if "event" in line]
    assert (event["event"], event["step"], event["attempt"]) == ("rollback", 10, 1)
    assert (event["fault_step"], event["lr_scale"]) == (14, 0.5)
    metrics = [line for line in lines if "event" not in line]
    assert [line["step"] for line in metrics] == list(range(5, 41, 5))
    assert [line["attempt"] for line in metrics] == [0, 0, 1, 1, 1, 1, 1, 1]

    clean = tmp_path / "clean"
    _run(fakes.make_stage(), Recorder(), clean)
    at_20 = {where: next(m for m in _lines(folder) if m["step"] == 20) for where, folder in (("bad", tmp_path), ("ok", clean))}
    assert at_20["bad"]["lr"] == pytest.approx(0.5 * at_20["ok"]["lr"])
    assert not np.array_equal(patches.seen[15], patches.seen[10])  # draw 16 is step 11 of the new attempt
    (record,) = caplog.records
    assert "not finite at step 14" in record.getMessage()


def test_a_rollback_before_the_first_checkpoint_starts_again(tmp_path):
    stage = fakes.make_stage(config=dataclasses.replace(fakes.CONFIG, checkpoint_every=0))
    result = _run(stage, Recorder(spoil={3}), tmp_path)
    assert np.all(np.isfinite(result["fit"]["w"]))
    assert [line["step"] for line in _lines(tmp_path)] == [0, *range(5, 41, 5)]


def test_it_gives_up_after_its_rollbacks_and_names_the_step(tmp_path):
    def loss(trainable, frozen, example, key):
        return jnp.where(jnp.sum(trainable["w"]) > 0.2, jnp.nan, -jnp.sum(trainable["w"]) + 10.0), {}

    stage = fakes.make_stage(loss=loss)
    with pytest.raises(RuntimeError, match=r"'fit': .*not finite at step \d+, with 2 of 2 rollbacks used and lr at 0\.0125"):
        _run(stage, fakes.Patches(), tmp_path)
    events = [line for line in _lines(tmp_path) if "event" in line]
    assert [line["event"] for line in events] == ["rollback", "rollback", "stopped"]
    assert not (tmp_path / "fit" / "finished.safetensors").exists()


def test_without_rollbacks_a_nan_stops_with_its_step(tmp_path):
    stage = fakes.make_stage(config=dataclasses.replace(fakes.CONFIG, max_rollbacks=0))
    with pytest.raises(RuntimeError, match=r"not finite at step 14, with 0 of 0"):
        _run(stage, Recorder(spoil={14}), tmp_path)


def test_a_collapse_rolls_back_and_resumes_alike(tmp_path):
    """The loss jumps by 10 dB at the first attempt's draw 31; killed after the rollback and resumed, it ends in the same bits."""

    class Jumping(fakes.Patches):
        def batch(self, rng, size):
            entropy = list(rng.bit_generator.seed_seq.entropy)
            batch = super().batch(rng, size)
            batch["values"][:, 0] = 10.0 if entropy[2] == 0 and entropy[3] >= 30 else 1.0
            if self.draws == self.after:
                raise Interrupted
            return batch

        after = None

    def loss(trainable, frozen, example, key):
        return example["values"][0] + 0.01 * jnp.sum((trainable["w"] - example["values"]) ** 2), {}

    stage = fakes.make_stage(loss=loss, config=dataclasses.replace(fakes.CONFIG, num_steps=60))
    whole = _run(stage, Jumping(), tmp_path / "whole")
    (event,) = [line for line in _lines(tmp_path / "whole") if "event" in line]
    assert event["step"] == 30
    assert 31 < event["fault_step"] <= 40
    assert "3 dB above its best" in event["reason"]
    patches = Jumping()
    patches.after = event["fault_step"] + 8
    with pytest.raises(Interrupted):
        _run(stage, patches, tmp_path / "parts")
    parts = _run(stage, Jumping(), tmp_path / "parts")
    assert whole["fit"]["w"].tobytes() == parts["fit"]["w"].tobytes()
    assert _metrics(tmp_path / "whole") == _metrics(tmp_path / "parts")


def test_a_loss_without_decibels_is_an_error(tmp_path):
    def loss(trainable, frozen, example, key):
        return -1.0 + jnp.sum(trainable["w"] ** 2), {}

    with pytest.raises(ValueError, match="set its collapse_db to 0"):
        _run(fakes.make_stage(loss=loss), fakes.Patches(), tmp_path)


def test_validation_is_logged_with_the_average(tmp_path):
    def loss(trainable, frozen, example, key):
        return jnp.sum((trainable["w"] - frozen["target"]) ** 2) + 1.0, {}

    config = dataclasses.replace(fakes.CONFIG, eval_every=20, log_every=0, average_decay=0.5)
    result = _run(fakes.make_stage(loss=loss, config=config), fakes.Patches(), tmp_path, validation=fakes.Patches())
    lines = _lines(tmp_path)
    assert [line["step"] for line in lines] == [20, 40]
    expected = np.sum((result["fit"]["w"] - np.arange(8.0)) ** 2) + 1
    assert lines[-1]["validation_loss"] == pytest.approx(expected, rel=1e-5)


def test_a_stage_in_closed_form_just_finishes(tmp_path):
    result = _run(fakes.mean_stage(), fakes.Patches(), tmp_path)
    expected = fakes.Patches().batch(np.random.default_rng(0), 32)["values"].mean(0)
    np.testing.assert_array_equal(result["mean"], expected)
    np.testing.assert_array_equal(result["kept"], np.ones(2))
    assert isinstance(result["mean"], np.ndarray)


def test_a_closed_form_finds_what_it_wrote_before_it_was_interrupted(tmp_path, capsys):
    """Its workdir is a folder of its own that stays; its progress is shown; a finished one is not solved again."""
    calls = []

    def solve(key, params, source, workplace):
        calls.append(Path(workplace.workdir))
        part = calls[-1] / "part.npy"
        workplace.progress("halving", 3, 6)
        if not part.exists():
            np.save(part, jax.random.normal(key, (4,)))
            raise Interrupted
        workplace.progress("halving", 6, 6)
        return {"part": np.load(part), "draw": jax.random.normal(key, (4,))}

    stage = ClosedForm("halves", lambda params, patches: patches, solve)
    with pytest.raises(Interrupted):
        _run(stage, fakes.Patches(), tmp_path)
    assert not (tmp_path / "halves" / "finished.safetensors").exists()
    with ProgressBar() as progress:
        result = _run(stage, fakes.Patches(), tmp_path, progress=progress)
    np.testing.assert_array_equal(result["part"], result["draw"])
    _run(stage, fakes.Patches(), tmp_path)
    assert calls == [tmp_path / "halves"] * 2
    assert "halves 6/6" in capsys.readouterr().err


def test_stages_and_seeds_draw_other_batches(tmp_path):
    firsts = []
    for seed, index in ((3, 0), (3, 1), (4, 0)):
        patches = Recorder()
        stage = fakes.make_stage(config=dataclasses.replace(fakes.CONFIG, num_steps=5))
        run_stage(stage, {}, patches, seed=seed, workdir=tmp_path / f"{seed}-{index}", index=index)
        firsts.append(patches.seen[0])
        drawn = np.random.default_rng([seed, index, 0, 0]).normal(size=(8, 8)).astype(np.float32)
        np.testing.assert_array_equal(patches.seen[0], drawn)
    assert not np.array_equal(firsts[0], firsts[1])
    assert not np.array_equal(firsts[0], firsts[2])
    assert jax.device_count() == 1
