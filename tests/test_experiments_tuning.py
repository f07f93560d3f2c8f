"""What tuning end to end buys: arms go on from one point and change what they say; missing runs are told."""

import jax
import numpy as np
import pytest

from experiments import parts, tuning
from tests.codecs.test_contextual import folder, model, pictures, training_pictures  # noqa: F401
from vcinr.codecs.codec import TrainingConfig
from vcinr.trees import load_tree

TRAINING = TrainingConfig(3, 4, lr=1e-3, warmup_steps=1, collapse_db=0.0)


@pytest.mark.slow
def test_arms_change_what_they_say(folder, model, pictures, tmp_path):  # noqa: F811
    context = load_tree(folder.parent / "context" / "finished.safetensors")
    assert list(tuning.ARMS.values()) == ["nothing", "steps", "field"]
    found = {
        tuned: tuning.tuned_model(model, tuned, TRAINING, context, training_pictures(), tmp_path / tuned)
        for tuned in tuning.ARMS.values()
    }

    def changed(tuned, *path):
        ours, theirs = found[tuned].params, model.params
        for key in path:
            ours, theirs = ours[key], theirs[key]
        return not np.allclose(ours, theirs, rtol=1e-6)

    assert [changed(tuned, "points", "0", "step") for tuned in found] == [False, True, True]
    assert [changed(tuned, "shared", "head_kernel") for tuned in found] == [False, False, True]
    assert all(changed(tuned, "synthesis", "out") for tuned in found)
    some = pictures[-2:]
    curve, seconds = parts.curve_of(found["field"], parts.Arm("all"), np.zeros(0), parts.latents(found["field"], some), some)
    assert len(curve) == 2 and curve[1][0] > curve[0][0] and curve[1][1] > curve[0][1]
    assert seconds > 0


def test_a_missing_run_is_told(tmp_path, capsys):
    cache = jax.config.jax_compilation_cache_dir
    try:
        assert tuning.main([f"--workdir={tmp_path}", f"--floor={tmp_path}"]) == 1
    finally:
        jax.config.update("jax_compilation_cache_dir", cache)
    assert str(tmp_path) in capsys.readouterr().err
