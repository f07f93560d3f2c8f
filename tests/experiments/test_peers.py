"""Peers on equal terms: whatever its stages are, every codec sees as many examples in batches of one size."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.base import codec_of
from experiments import peers
from tests.conftest import smooth_picture
from vcinr.codecs.functa import Functa, FunctaConfig
from vcinr.fields.field import FieldConfig
from vcinr.stage import Stage
from vcinr.training.optimisers import make_schedule

INNER_STEPS = {"COIN++": 3, "Functa": 3, "MSCN, structured": 3, "MSCN, unstructured": 2, "MetaSparseINR": 2}
"""Of the papers; all others take three."""


@pytest.mark.parametrize("name", peers.PEERS)
@pytest.mark.parametrize("examples", [144, 24_048])
def test_every_codec_sees_as_many_examples_with_its_papers_inner_steps(name, examples):
    codec = codec_of(peers.peer(name, examples))
    trainings = [stage.training for stage in codec.field_stages() if isinstance(stage, Stage)]
    assert peers.field_examples(codec) == sum(t.num_steps * t.batch_size for t in trainings) == examples
    assert {t.batch_size for t in trainings} == {peers.BATCH}
    for training in trainings:
        make_schedule(training)
    assert codec.config.adaptation.num_steps == INNER_STEPS.get(name, 3)
    assert codec.config.adaptation.subset == peers.COORDINATES


def test_the_published_form_has_gates_and_a_plain_start():
    codec = codec_of(peers.peer("VC-INR, published form", 144))
    assert codec.config.field.modulation == "low_rank_gates" and not codec.config.field.linear_head
    assert [stage.name for stage in codec.field_stages()] == ["meta"]


@pytest.mark.parametrize("examples", [0, 100, 16 * 10])
def test_examples_that_stages_cannot_share_are_refused(examples):
    with pytest.raises(ValueError, match="no multiple of 144"):
        peers.peer("COIN++", examples)


def test_quality_before_quantisation_is_that_of_the_adapted_field():
    codec = Functa(FunctaConfig(patch=(8, 8), field=FieldConfig(num_layers=2, width=8, latent_dim=4, modulation="latent_shifts")))
    params = codec.init(jax.random.key(0))
    tiles = [smooth_picture(8, 8, seed) for seed in range(3)]
    found = peers.adapted_psnr_db(SimpleNamespace(codec=codec, params=params), tiles)
    each = []
    for tile in tiles:
        values = (tile / np.float32(255)).reshape(-1, 3)
        decoded = codec.values(params, codec.adapt(params, jnp.asarray(values)))
        each.append(-10 * np.log10(np.mean((np.asarray(decoded) - values) ** 2)))
    assert found == pytest.approx(np.mean(each), abs=1e-4)


def test_a_codec_that_is_no_latent_one_has_its_points_alone():
    row = peers.row_of("KLT", None, {"points": [[0.1, 25.0], [0.2, 27.5]], "cpu_s": 3.2})
    assert len(row) == len(peers.COLUMNS)
    assert [cell for cell in row if cell is not None] == ["KLT", "0.100, 0.200", "25.00, 27.50", 3]
