"""Radiance fields: the rig, what its cameras see of a field, and files that are seen from anywhere."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import smooth_picture
from tests.tiny import hand_made
from vcinr.bitstream.container import BitstreamError
from vcinr.cli.main import main
from vcinr.codecs import make_codec
from vcinr.datasets.sources import PatchSource
from vcinr.evaluation.novel_views import measure_novel_views
from vcinr.modalities import MODALITIES
from vcinr.modalities.files.radiance import write_poses
from vcinr.modalities.radiance_field import MAX_RAYS, Rig, Scene, Views, rays_of
from vcinr.model.model import make_model
from vcinr.signals.signal import Grid
from vcinr.training.run import train

ROW = MODALITIES["radiance_field"]
SHAPE = (3, 8, 8)
SCENES = [np.stack([smooth_picture(8, 8, 3 * seed + view) for view in range(3)]) for seed in range(4)]


def test_cameras_stand_on_the_spiral_that_is_documented_and_look_at_the_origin():
    rig, poses = ROW.rig, ROW.rig.poses(5)
    t = (np.arange(5) + 0.5) / 5
    s, a = 0.9 - t, 2 * np.pi * 6 * (3 - np.sqrt(5)) * t
    across = np.sqrt(1 - s**2)
    position = 2.6 * np.stack([across * np.cos(a), across * np.sin(a), s], axis=-1)
    np.testing.assert_allclose(poses[:, :3, 3], position, atol=1e-12)
    turns = poses[:, :3, :3]
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.tile(np.eye(3), (5, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(turns), 1)
    np.testing.assert_allclose(poses[:, :3, 2], position / rig.radius, atol=1e-12)  # They look along −z, at the origin.
    np.testing.assert_allclose(poses[:, 2, 0], 0, atol=1e-12)  # The horizon is level,
    assert (poses[:, 2, 1] > 0).all()  # and up is up.


def test_coordinates_are_the_rays_of_the_rigs_pixels():
    rays = ROW.coordinates((2, 3, 4))
    assert rays.dtype == np.float32 and rays.shape == (24, 6)
    np.testing.assert_allclose(rays, rays_of(ROW.rig.poses(2), (ROW.rig.tangent,) * 2, (3, 4)), atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(rays[:, 3:], axis=-1), 1, rtol=1e-6)
    np.testing.assert_array_equal(ROW.coordinates((2, 3, 4), 5, 9), rays[5:9])


def test_the_ball_fits_into_every_view():
    edge = ROW.coordinates((6, 64, 64)).reshape(6, 64, 64, 6)
    centre = edge[..., :3] - np.sum(edge[..., :3] * edge[..., 3:], axis=-1, keepdims=True) * edge[..., 3:]
    missed = np.linalg.norm(centre, axis=-1)
    assert missed[:, 0].min() > 1 and missed[:, :, -1].min() > 1
    assert (missed[:, 31:33, 31:33] < 0.05).all()


def test_a_ball_is_seen_where_its_projection_lies():
    centre = np.array([0.3, -0.4, 0.25])

    def field(points):
        inside = jnp.sum(jnp.square(points - centre), axis=-1, keepdims=True) < 0.15**2
        return jnp.concatenate([jnp.zeros_like(points), jnp.where(inside, 10.0, -10.0)], axis=-1)

    size = 48
    dark = 1 - np.asarray(ROW.observe(field, jnp.asarray(ROW.coordinates((4, size, size))))).reshape(4, size, size, 3).mean(
        axis=-1
    )
    assert dark.max() > 0.85  # sigmoid(−2) is what 0 is seen as.
    for pose, shadow in zip(ROW.rig.poses(4), dark, strict=True):
        right, up, back, _ = np.linalg.inv(pose) @ np.append(centre, 1)
        wanted = np.array([-up, right]) / -back / ROW.rig.tangent
        y, x = np.mgrid[:size, :size]
        found = np.array([(shadow * y).sum(), (shadow * x).sum()]) / shadow.sum()
        np.testing.assert_allclose((2 * found + 1) / size - 1, wanted, atol=0.03)


@pytest.mark.parametrize(
    ("wrong", "mend"),
    [
        (np.zeros((4, 4, 3), np.uint8), r"views\[None\]"),
        (np.zeros((2, 4, 4, 4), np.uint8), "over white"),
        (np.zeros((2, 3, 4, 5), np.uint8), "channels last"),
        (np.zeros((2, 4, 4, 1), np.uint8), "four axes"),
        (np.zeros((0, 4, 4, 3), np.uint8), "no views"),
        (np.zeros((2, 4, 4, 3), np.float32), "scale it to 0..255"),
        ([[1]], "np.stack"),
    ],
)
def test_other_arrays_are_refused_with_a_mend(wrong, mend):
    with pytest.raises(ValueError, match=mend):
        ROW.unpack(wrong)


def test_views_from_other_cameras_are_refused_and_those_of_the_rig_pass():
    own = Views(SCENES[0], ROW.rig.poses(3), (ROW.rig.tangent,) * 2)
    np.testing.assert_array_equal(ROW.unpack(own)[0], SCENES[0])
    np.testing.assert_array_equal(ROW.unpack(Scene(SCENES[0], own))[0], SCENES[0])
    for poses, tangents in ((own.poses[::-1], own.tangents), (own.poses, (0.5, 0.6)), (own.poses * np.nan, own.tangents)):
        with pytest.raises(ValueError, match="are seen from the same cameras"):
            ROW.unpack(Views(SCENES[0], poses, tangents))


def test_a_file_cannot_ask_for_more_rays_than_are_rendered_in_a_minute():
    ROW.check_metadata({}, (2, 2048, 2048))
    with pytest.raises(ValueError, match=f"more than {MAX_RAYS}"):
        ROW.check_metadata({}, (3, 2048, 2048))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A latent codec of whole scenes, trained for as long as it takes to have all its parts."""
    field = {"coord_dim": 3, "channels": 4, "num_layers": 2, "width": 8, "latent_dim": 6, "omega_0": 10.0}
    config = {
        "modality": "radiance_field",
        "patch": SHAPE,
        "field": field,
        "adaptation": {"num_steps": 2, "subset": 32, "inner_lr": 1.0},
        "meta": {"num_steps": 4, "batch_size": 2, "warmup_steps": 1},
        "compression": {"bits": (5,), "num_latents": 4},
        "encode_batch": 2,
    }
    codec = make_codec("functa", config)
    params = train(codec, PatchSource(SCENES, SHAPE, ()), seed=0, workdir=tmp_path_factory.mktemp("run"), quiet=True)
    return make_model(codec, params, {})


COIN = {"modality": "radiance_field", "architectures": ((2, 8),), "num_steps": 20}


def coin():
    codec = make_codec("coin", COIN)
    return make_model(codec, codec.init(), {})


@pytest.mark.parametrize("kind", [pytest.param("latent", marks=pytest.mark.slow), "coin"])
def test_a_file_is_decoded_at_its_own_rays_and_at_others(kind, request):
    model = request.getfixturevalue("model") if kind == "latent" else coin()
    data = model.encode(SCENES[0])
    decoded = model.decode(data)
    assert decoded.shape == (*SHAPE, 3) and decoded.dtype == np.uint8
    again = model.decode_coordinates(data, ROW.coordinates(SHAPE)).reshape(decoded.shape)
    assert np.abs(again.astype(int) - decoded).max() <= 1
    elsewhere = rays_of(Rig(turns=1.0).poses(2), (0.3, 0.4), (5, 7))
    assert model.decode_coordinates(data, elsewhere).shape == (70, 3)
    finer = model.decode_at(data, scale=3)
    assert np.abs(finer[1::3, 1::3, 1::3].astype(int) - decoded).max() <= 1
    for wrong in (elsewhere[:, :3], elsewhere[:0], elsewhere * np.nan):
        with pytest.raises(ValueError, match=r"finite \[n, 6\]"):
            model.decode_coordinates(data, wrong)
    with pytest.raises(ValueError, match="196 coordinates are more than the limit of 195"):
        model.decode_coordinates(data, rays_of(ROW.rig.poses(4), (0.3, 0.4), (7, 7)), max_pixels=195)


def test_fields_are_of_whole_scenes(model):
    with pytest.raises(BitstreamError, match="for a radiance_field of 3×8×8 samples, not 2×8×8"):
        model.encode(SCENES[0][:2])
    point, codes, grids = model.read_codes(model.encode(SCENES[0]))
    fake = model.write_codes(point, codes, [type(grids[0])((3, 8, 7), SHAPE)])
    with pytest.raises(BitstreamError, match="not 3×8×7"):
        model.decode(fake)


def test_a_network_of_its_own_learns_a_scene_through_its_rays():
    red = np.full((4, 8, 8, 3), 255, np.uint8)
    red[:, 2:6, 2:6] = (200, 30, 30)
    codec = make_codec("coin", {**COIN, "architectures": ((2, 16),), "num_steps": 150})
    learnt = make_model(codec, codec.init(), {})
    assert ROW.metrics(red, learnt.decode(learnt.encode(red)))["psnr_db"] > 20
    assert ROW.metrics(red, coin().decode(coin().encode(red)))["psnr_db"] < 15


def test_decoding_counts_every_point_of_every_ray():
    codec, meta = make_codec("coin", COIN), {"depth": 2, "width": 8, "omega_0": 30}
    small, large = (codec.decoding_work(Grid((views, 8, 8), (views, 8, 8)), meta) for views in (1, 3))
    # 3·8 + 8 + 8·8 + 8 + 8·4 + 4 weights and 16 sines, which count for 16 multiplications each.
    assert large - small == 2 * 64 * ROW.evaluations * (140 + 16 * 16)


def test_quality_of_held_out_views_is_measured_from_their_own_cameras(model):
    data = model.encode(SCENES[1])
    poses = Rig(turns=2.0).poses(2)
    rays = rays_of(poses, (0.4, 0.4), (6, 6))
    seen = Views(model.decode_coordinates(data, rays).reshape(2, 6, 6, 3), poses, (0.4, 0.4))
    row = measure_novel_views(model, [Scene(SCENES[1], seen)], 0)
    assert row["novel_psnr_db"] > 50 > row["psnr_db"]
    assert row["bpp_file"] == pytest.approx(8 * len(data) / 192)
    with pytest.raises(ValueError, match="needs views from other cameras"):
        measure_novel_views(model, SCENES, 0)


def test_folders_are_encoded_and_decoded_and_seen_from_other_cameras(tmp_path, monkeypatch, capsys, model):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VCINR_CACHE", "")
    model.save("model")
    ROW.write("in.views", SCENES[0])
    assert main(["encode", "in.views", "a.vcinr", "--model", "model", "--verify"]) == 0
    assert "symbols equal" in capsys.readouterr().out
    assert main(["decode", "a.vcinr", "out.views", "--model", "model"]) == 0
    np.testing.assert_array_equal(ROW.read("out.views"), model.decode(model.encode(SCENES[0])))
    write_poses("poses.json", Rig(turns=2.0).poses(2), (0.4, 0.4), (6, 7))
    assert main(["decode", "a.vcinr", "novel.views", "--model", "model", "--poses", "poses.json"]) == 0
    assert sorted(path.name for path in (tmp_path / "novel.views").iterdir()) == ["000000.png", "000001.png", "poses.json"]
    assert main(["encode", "novel.views", "b.vcinr", "--model", "model"]) == 1
    assert "are seen from the same cameras" in capsys.readouterr().err
    assert main(["decode", "a.vcinr", "novel.views", "--model", "model", "--poses", "poses.json"]) == 1
    assert "novel.views is a folder" in capsys.readouterr().err


def test_what_is_seen_by_no_camera_says_so(tmp_path):
    with pytest.raises(ValueError, match="a picture is not seen by cameras: leave --poses out"):
        MODALITIES["picture"].read_coordinates(tmp_path / "poses.json")
    model = hand_made()
    with pytest.raises(ValueError, match="klt has no field"):
        model.decode_coordinates(model.encode(np.zeros((2, 2, 3), np.uint8)), np.zeros((1, 2), np.float32))
