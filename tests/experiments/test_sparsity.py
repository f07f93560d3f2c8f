"""The study of sparse fields: its table, its resuming, and codecs of equal steps and equal coded entries."""

import json

import jax
import numpy as np
import pytest

from experiments import sparsity
from vcinr.fields.field import FieldConfig
from vcinr.stage import Stage


@pytest.mark.parametrize("part", sparsity.PARTS.values(), ids=sparsity.PARTS)
@pytest.mark.parametrize("steps", [80, 801])
def test_all_methods_of_a_part_train_for_equal_steps_of_equal_batches(part, steps):
    for size in part.sizes:
        for make, step_sizes in part.methods.values():
            codec = make(size, steps, step_sizes)
            trainings = [stage.training for stage in codec.field_stages() if isinstance(stage, Stage)]
            assert sum(training.num_steps for training in trainings) == steps
            assert {training.batch_size for training in trainings} == {sparsity.BATCH}
            assert codec.config.adaptation.subset == sparsity.COORDINATES


def test_the_table_tells_paired_differences():
    part = sparsity.Part("", (8,), {"one": None, "other": None})
    means = {("one", 8): np.array([20.0, 21.0, 22.0]), ("other", 8): np.array([21.0, 22.5, 22.5])}
    columns, rows = sparsity.summary(part, (8,), means)
    assert columns == ["coded entries", "one", "other", "Δ to one"]
    # Differences 1, 1.5, 0.5: mean 1, standard error 0.5 / √3.
    assert rows == [[8, "21.00 ± 1.00", "22.00 ± 0.87", "+1.00 ± 0.29"]]


def test_a_finished_run_is_not_done_again_and_other_settings_are_told(tmp_path):
    path = tmp_path / "run.json"
    assert sparsity.finished(path, {"steps": 3}, lambda: {"coded": 5})["coded"] == 5
    assert sparsity.finished(path, {"steps": 3}, lambda: pytest.fail("done again"))["coded"] == 5
    with pytest.raises(ValueError, match="workdir of its own"):
        sparsity.finished(path, {"steps": 4}, dict)


def test_an_unknown_data_set_folder_is_one_error(datasets_dir, tmp_path, capsys):
    arguments = ["--part=structured", f"--workdir={tmp_path}", "--steps=10"]
    assert sparsity.main(arguments) == 1
    assert "experiments.prepare faces" in capsys.readouterr().err


@pytest.mark.slow
def test_a_study_of_few_steps_ends_in_a_table(monkeypatch, tmp_path):
    monkeypatch.setattr(sparsity, "PATCH", (8, 8))
    monkeypatch.setattr(sparsity, "COORDINATES", 16)
    monkeypatch.setattr(sparsity, "SHIFTS", FieldConfig(modulation="shifts", num_layers=2, width=12))
    pictures = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    monkeypatch.setattr(sparsity, "load_split", lambda name, split: pictures)
    record = tmp_path / "study.json"
    arguments = ["--part=structured", f"--workdir={tmp_path}", "--steps=10", "--seeds=2", "--sizes", "8", f"--record={record}"]
    cache = jax.config.jax_compilation_cache_dir
    try:
        assert sparsity.main(arguments) == 0
    finally:
        jax.config.update("jax_compilation_cache_dir", cache)
    study = json.loads(record.read_text())
    assert study["columns"] == ["coded entries", "Functa", "MSCN", "Δ to Functa"] and len(study["rows"]) == 1
    rows = [json.loads(path.read_text()) for path in sorted((tmp_path / "structured").glob("*.json"))]
    assert len(rows) == 4 and all(row["coded"] == 8 and len(row["psnr_db"]) == 6 for row in rows)
