"""Latents coded in the context of their neighbours: files that decode elsewhere, alone and together, and nothing else."""

import contextlib
import copy
import dataclasses
import itertools
import subprocess
import sys
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import smooth_picture
from tests.context.test_integer_prior import by_integers
from tests.entropy.test_range_coder import SpecifiedDecoder
from tests.tiny import psnr
from vcinr.adaptation.meta_learning import AdaptationConfig
from vcinr.adaptation.warm_start import WarmStartConfig
from vcinr.bitstream import container
from vcinr.bitstream import payload as payload_coding
from vcinr.bitstream.container import BitstreamError
from vcinr.bitstream.fingerprint import fingerprint
from vcinr.bitstream.limits import Limits
from vcinr.codec import Code, grid_of
from vcinr.codecs.contextual_inr import ContextualINR, ContextualINRConfig
from vcinr.codecs.latent_codec import LatentCodec
from vcinr.context.compression import ContextualCompression, ContextualConfig
from vcinr.context.integer_prior import predict_table
from vcinr.context.order import CodingStep, streams_of, symbols_of
from vcinr.datasets.sources import PatchSource
from vcinr.entropy.range_coder import symbol_bits
from vcinr.fields.field import FieldConfig
from vcinr.model.finding import load
from vcinr.model.model import make_model
from vcinr.stage import TrainingConfig
from vcinr.training.loop import run_stage

CONFIG = ContextualINRConfig(
    patch=(4, 4),
    field=FieldConfig(num_layers=2, width=16, last_width=24, linear_head=True, latent_dim=12, modulation="none"),
    adaptation=AdaptationConfig(initial_step=1.0, num_steps=2),
    warm_start=WarmStartConfig(
        True, offsets_per_picture=1, sketches=8, training=TrainingConfig(2, 4, warmup_steps=1, collapse_db=0.0)
    ),
    meta=TrainingConfig(2, 4, lr=1e-6, warmup_steps=1, collapse_db=0.0),
    compression=ContextualConfig(
        lambdas=(0.003, 0.02), groups=(2, 5, 12), neighbour_dims=4, width=8, synthesis_width=8, crop=(16, 16),
        num_latents=200, num_counted=100, training=TrainingConfig(30, 8, lr=5e-3, warmup_steps=2),
    ),
    encode_batch=16,
)  # fmt: skip
SHAPES = [(3, 4), (4, 26), (29, 4), (23, 31), (31, 23)]
"""One patch, one row, one column, landscape, portrait; the most are no multiples of a patch."""


def training_pictures():
    return PatchSource([smooth_picture(48, 64, seed) for seed in range(3)], ContextualINR(CONFIG).training_patch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a model: its field as the warm start begins it (which is exact with so many features), the rest trained."""
    folder, codec, crops = tmp_path_factory.mktemp("contextual"), ContextualINR(CONFIG), training_pictures()
    params, source = jax.device_get(codec.init(jax.random.key(0))), None
    for index, stage in enumerate(codec.stages()):
        source = source if stage.examples is None else stage.examples(params, crops)
        if stage.name in ("warm_start", "meta"):
            start = jax.tree.map(jnp.asarray, stage.init(jax.random.key(index), params, source))
            params = jax.device_get(stage.finish(params, start))
        else:
            params = run_stage(stage, params, crops, seed=0, workdir=folder, index=index, make_examples=lambda *_: source)  # noqa: B023
    make_model(codec, params, {}).save(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def model(folder):
    return load(folder)


@pytest.fixture(scope="module")
def pictures():
    return [smooth_picture(*shape, seed=20 + i) for i, shape in enumerate(SHAPES)]


@pytest.fixture(scope="module")
def files(model, pictures):
    """One file per picture and point."""
    return [model.encode_batch(pictures, point) for point in range(2)]


def symbols_in(model, data):
    """Symbols [*counts, k] of each signal of a file."""
    _, codes, grids = model.read_codes(data)
    order = model.codec.config.compression.order
    return [symbols_of(order, grid.counts, code.streams) for code, grid in zip(codes, grids, strict=True)]


def rounded_otherwise(model, rounding):
    config = dataclasses.replace(CONFIG, compression=dataclasses.replace(CONFIG.compression, rounding=rounding))
    return make_model(ContextualINR(config), model.params, {})


def test_a_trained_model_keeps_nothing_that_only_training_needs(model):
    assert set(model.params) == {"shared", "latent_init", "step_sizes", "latent_mean", "synthesis", "network", "points"}
    assert set(model.params["points"]["0"]) == {"step", "weight", "lambda", "tables"}
    assert {array.dtype.name for array in jax.tree.leaves(model.params["network"])} == {"int16", "int32"}
    assert isinstance(model.codec.compression, ContextualCompression)
    first = ("first", "even_0_2", "odd_0_2", "even_0_1", "odd_0_1")
    assert model.codec.streams == (*first, "even_1", "odd_1", "even_2", "odd_2")


def test_pictures_of_any_shape_come_back_better_at_the_point_of_more_bits(model, pictures, files):
    quality = [[psnr(p, d) for p, d in zip(pictures, model.decode_batch(of_point), strict=True)] for of_point in files]
    sizes = [[len(data) for data in of_point] for of_point in files]
    for decoded, picture in zip(model.decode_batch(files[1]), pictures, strict=True):
        assert decoded.shape == picture.shape
    assert min(quality[1]) > 25
    assert np.mean(quality[1]) > np.mean(quality[0]) + 1
    assert sum(sizes[1]) > sum(sizes[0])


def test_another_process_decodes_equal_symbols(model, folder, pictures, files, tmp_path):
    together = model.encode_together(pictures, 1)
    (tmp_path / "x.vcinr").write_bytes(together)
    script = (
        "import sys, numpy as np, vcinr; m = vcinr.load(sys.argv[1]); data = open(sys.argv[2], 'rb').read();"
        "p, codes, grids = m.read_codes(data); values = m.decode_together(data);"
        "np.savez(sys.argv[3], *[s for c in codes for s in c.streams.values()], *values)"
    )
    subprocess.run([sys.executable, "-c", script, folder, tmp_path / "x.vcinr", tmp_path / "y.npz"], check=True)
    other = list(np.load(tmp_path / "y.npz").values())
    codes, _ = model.make_codes(pictures, 1)
    streams = [stream for code in codes for stream in code.streams.values()]
    assert len(other) == len(streams) + len(pictures)
    for ours, theirs in zip(streams, other[: len(streams)], strict=True):
        np.testing.assert_array_equal(theirs, ours)
    for ours, theirs in zip(model.decode_together(together), other[len(streams) :], strict=True):
        assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_signals_of_different_shapes_share_a_container(model, pictures, files):
    for point in range(2):
        joined = model.join(files[point])
        assert joined == model.encode_together(pictures, point)
        assert len(joined) < sum(map(len, files[point]))
        for one, alone in zip(model.decode_together(joined), model.decode_batch(files[point]), strict=True):
            np.testing.assert_array_equal(one, alone)


def test_a_picture_alone_is_coded_as_in_company_but_for_edges_of_rounding(model, pictures, files):
    for picture, data in zip(pictures, files[1], strict=True):
        (one,), (other,) = symbols_in(model, model.encode(picture, 1)), symbols_in(model, data)
        assert np.mean(one != other) < 0.01


def test_a_file_is_as_large_as_its_estimate(model, pictures):
    large = [smooth_picture(64, 96, seed) for seed in range(30, 33)]
    for point, some in ((0, large), (1, large), (1, pictures[:1])):
        data = model.encode_together(some, point)
        estimate = model.estimated_bits(data)
        assert -2 < 8 * model.payload_bytes(data) - estimate < 24 + 0.005 * estimate


def test_the_estimate_is_the_sum_of_what_each_symbol_costs(model, files):
    data = files[1][3]
    _, (code,), (grid,) = model.read_codes(data)
    before, total = {}, 0.0
    for name in model.codec.streams:
        part = symbol_bits(model.codec.symbol_model(model.params, 1, grid, {}, before, name), code.streams[name])
        before[name], total = code.streams[name], total + part.sum()
    assert total == pytest.approx(model.estimated_bits(data))


def test_symbols_cost_less_in_context_than_without(model, pictures):
    """What the network says of real symbols is worth something: with all of it 0, they cost more."""
    silent = copy.deepcopy(model.params["network"])
    for group in (1, 2):
        silent[f"group_{group}"] = jax.tree.map(np.zeros_like, silent[f"group_{group}"])
    large = [smooth_picture(64, 96, seed) for seed in range(30, 33)]
    codes, grids = model.make_codes(large, 1)

    def bits(network):
        params = {**model.params, "network": network}
        return sum(payload_coding.estimated_bits(model.codec, params, 1, g, c) for g, c in zip(grids, codes, strict=True))

    told, untold = bits(model.params["network"]), bits(silent)
    assert told < 0.97 * untold


def latents_of(monkeypatch, model, picture, point):
    """z [*counts, k], what is rounded, and the grid."""
    found = []

    code = ContextualCompression.code

    def spy(self, params, point, rows, grids, *more):
        found.append(rows[0].reshape(*grids[0].counts, -1))
        return code(self, params, point, rows, grids, *more)

    with monkeypatch.context() as patch:
        patch.setattr(ContextualCompression, "code", spy)
        _, (grid,) = model.make_codes([picture], point)
    return found[0], grid


@pytest.mark.parametrize("point", [0, 1])
def test_rounding_by_cost_costs_less_than_the_nearest(monkeypatch, model, point):
    picture, order = smooth_picture(64, 96, 33), CONFIG.compression.order
    z, grid = latents_of(monkeypatch, model, picture, point)
    nearest_model = rounded_otherwise(model, "nearest")
    costs, found = {}, {}
    for name, one in (("rate_distortion", model), ("nearest", nearest_model)):
        (code,), _ = one.make_codes([picture], point)
        symbols = symbols_of(order, grid.counts, code.streams)
        weight = model.params["points"][str(point)]["weight"]
        error = np.sum(weight * np.square(z - symbols))
        costs[name] = error + payload_coding.estimated_bits(one.codec, one.params, point, grid, code)
        found[name] = symbols
    np.testing.assert_array_equal(found["nearest"], np.rint(z))
    assert costs["rate_distortion"] < costs["nearest"]
    coarsest = ~order.predicted(grid.counts)
    np.testing.assert_array_equal(found["rate_distortion"][coarsest], found["nearest"][coarsest])
    # The format is one: what either encoder wrote, either model reads.
    data = nearest_model.encode(picture, point)
    np.testing.assert_array_equal(model.decode(data), nearest_model.decode(data))


def test_wild_symbols_survive_where_they_fit(model):
    grid = grid_of(model.codec, (8, 12))
    wild = np.random.default_rng(0).choice([0, 1, 300, -70000, 2**31 - 2**18, -(2**31) + 2**18], (*grid.counts, 12))
    wild[..., :2] //= 4
    code = Code(streams_of(CONFIG.compression.order, wild))
    np.testing.assert_array_equal(symbols_in(model, model.write_codes(0, [code], [grid]))[0], wild)


def test_a_first_group_that_does_not_add_up_is_refused(model):
    grid = grid_of(model.codec, (4, 48))
    streams = streams_of(CONFIG.compression.order, np.zeros((*grid.counts, 12), int))
    assert streams["first"].size == 6, "three patches of the coarsest lattice"
    streams["first"] = np.full(6, 2**30, np.int32)
    with pytest.raises(ValueError, match="do not fit 32 bits"):
        model.write_codes(0, [Code(streams)], [grid])
    # Nor can a file say so: its first stream alone is enough for the decoder to stop.
    encoder = payload_coding.Encoder()
    encoder.encode(streams["first"], model.codec.symbol_model(model.params, 0, grid, {}, {}, "first"))
    with pytest.raises(BitstreamError, match="do not fit 32 bits"):
        payload_coding.decode_payload(model.codec, model.params, 0, [grid], [{}], encoder.finish())


def test_the_fingerprint_covers_everything_that_decoding_uses(model):
    def of(params, codec=model.codec, point=1):
        return fingerprint(codec, params, point)

    original = of(model.params)
    assert original != of(model.params, point=0)
    arrays = model.codec.decoder_arrays(model.params, 1)
    assert {name.split("/")[0] for name in arrays} == {"shared", "mean", "step", "synthesis", "tables", "coder"}
    read = {"shared", "latent_mean", "synthesis", "network", "points/1/step", "points/1/tables"}
    changes = 0
    leaves = [(path, leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(model.params) if path[-1].key != "tables"]
    for path, leaf in leaves:
        name = "/".join(str(key.key) for key in path)
        changed = plain(model.params)
        at = changed
        for key in path[:-1]:
            at = at[key.key]
        at[path[-1].key] = np.array(leaf)
        # The last row: of what points have each their own, that of point 1.
        at[path[-1].key][(-1,) * leaf.ndim] += 1
        covered = any(name.startswith(prefix) for prefix in read)
        assert (of(changed) != original) == covered, name
        changes += covered
    assert changes > 15
    own = model.params["points"]
    points = {**own, "1": {**own["1"], "tables": own["0"]["tables"]}}
    assert of({**model.params, "points": points}) != original
    for change in ({"groups": (2, 6, 12)}, {"neighbour_dims": 3}, {"octaves": 1}):
        other = dataclasses.replace(CONFIG, compression=dataclasses.replace(CONFIG.compression, **change))
        assert of(model.params, ContextualINR(other)) != original
    for change in ({"rounding": "nearest"}, {"num_counted": 3}, {"lambdas": (0.1, 0.2)}):
        other = dataclasses.replace(CONFIG, compression=dataclasses.replace(CONFIG.compression, **change))
        assert of(model.params, ContextualINR(other)) == original


def plain(params):
    """A copy that may be written to, its tables aside."""
    return {key: plain(value) if isinstance(value, dict) else copy.copy(value) for key, value in params.items()}


def test_the_point_among_biases_is_in_the_fingerprint(model):
    """Two points of equal step and tables still decode otherwise: their biases differ."""
    params = {**model.params, "points": {"0": model.params["points"]["0"], "1": model.params["points"]["0"]}}
    assert fingerprint(model.codec, params, 0) != fingerprint(model.codec, params, 1)


@settings(max_examples=100)
@given(data=st.data())
def test_damaged_files_are_refused(model, files, data):
    original = data.draw(st.sampled_from([files[0][0], files[1][1], files[1][3]]))
    at = data.draw(st.integers(0, len(original) - 1))
    junk = data.draw(st.binary(min_size=1, max_size=4))
    damaged = data.draw(
        st.sampled_from([original[:at], original[:at] + junk + original[at:], original[:at] + junk + original[at + len(junk) :]])
    )
    if damaged != original:
        with pytest.raises(BitstreamError):
            model.decode(damaged, 5000)


@settings(max_examples=25)
@given(
    st.integers(0, 1),
    st.lists(st.tuples(st.integers(1, 14), st.integers(1, 14)), min_size=1, max_size=3),
    st.binary(max_size=60),
)
def test_a_forged_checksum_gets_pictures_or_an_error(model, point, shapes, payload):
    head = container.head_bytes(bytes.fromhex(model.points[point]["fingerprint"]), shapes, [{}] * len(shapes), {})
    grids = [grid_of(model.codec, shape) for shape in shapes]
    try:
        codes = payload_coding.decode_payload(model.codec, model.params, point, grids, [{}] * len(shapes), payload)
    except BitstreamError:
        return
    data = container.write(head, payload, container.checksum(head, payload_coding.ordered_streams(model.codec, codes)))
    assert [picture.shape for picture in model.decode_together(data)] == [(*shape, 3) for shape in shapes]
    assert model.write_codes(point, codes, grids) == data


def test_an_empty_payload_for_a_large_signal_takes_memory_in_proportion_to_it(model):
    """A file of 20 bytes may ask for many symbols, but for no more than a small multiple of them."""
    grid = grid_of(model.codec, (400, 400))
    tracemalloc.start()
    with contextlib.suppress(BitstreamError):
        payload_coding.decode_payload(model.codec, model.params, 0, [grid], [{}], b"")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 16 * 4 * 12 * grid.num_patches + 2**23


def test_more_symbols_than_a_signal_may_have_are_refused_before_any_work(model):
    for shape in ((2**16, 2**16), (1, 2**31 - 1)):
        with pytest.raises(BitstreamError, match="are coded: cut it up"):
            payload_coding.decode_payload(model.codec, model.params, 0, [grid_of(model.codec, shape)], [{}], b"", Limits(2**41))


@pytest.mark.parametrize("effort", [0, 1])
def test_the_encoder_hands_on_the_models_that_the_decoder_will_find(model, pictures, monkeypatch, effort):
    """Each step is predicted once in encoding; with effort, symbols are chosen among passes, and the models are found again."""
    asked = []

    def counted(order, network, point, symbols, step):
        asked.append((step.stream, symbols.shape))
        return predict_table(order, network, point, symbols, step)

    monkeypatch.setattr("vcinr.context.compression.predict_table", counted)
    alike = [pictures[3], pictures[3][::-1]]
    codes, grids = model.make_codes(alike if effort else [*alike, pictures[1]], 1, effort)
    data = model.write_codes(1, codes, grids)
    assert effort or len(asked) == len(set(asked)) == 2 * len(model.codec.streams[1:])
    for code, grid in zip(codes, grids, strict=True):
        assert tuple(code.known_models()) == (() if effort else model.codec.streams[1:])
        for name, found in code.known_models().items():
            before = dict(itertools.takewhile(lambda item: item[0] != name, code.streams.items()))  # noqa: B023
            expected = model.codec.symbol_model(model.params, 1, grid, {}, before, name)
            assert found.tables is expected.tables
            np.testing.assert_array_equal(found.index, expected.index)
            np.testing.assert_array_equal(found.offset, expected.offset)
    assert model.write_codes(1, [dataclasses.replace(code, found=None) for code in codes], grids) == data


def test_models_that_the_encoder_found_hold_for_its_own_streams_alone(model, pictures):
    (code,), grids = model.make_codes([pictures[1]], 1)
    with pytest.raises(ValueError, match="read-only"):
        next(iter(code.streams.values()))[:] = 0
    other = dataclasses.replace(code, streams={name: np.zeros_like(stream) for name, stream in code.streams.items()})
    assert code.known_models() and not other.known_models()
    _, (read,), _ = model.read_codes(model.write_codes(1, [other], grids))
    for name, stream in other.streams.items():
        np.testing.assert_array_equal(read.streams[name], stream)


def test_latents_of_patches_over_the_edge_are_those_of_every_latent_codec(model, pictures):
    """The field is linear, and the codec encodes it without a program; the general path of its base class finds the same."""
    for picture in pictures:
        signal = model.signal(picture)
        patches = signal.values, np.ones_like(signal.weight)
        found, expected = (
            analyse(model.codec, model.params, 1, *patches) for analyse in (ContextualINR.analyse_all, LatentCodec.analyse_all)
        )
        np.testing.assert_allclose(found, expected, atol=1e-3)
        assert np.abs(expected).max() > 1


# What a payload means, by docs/bitstream.md, section "Symbols in context", sharing no code with the library.


def documented_symbols(model, point, counts, payload):
    c, tables = CONFIG.compression, model.params["points"][str(point)]["tables"]
    arrays = [array.tolist() for array in (tables.first, tables.sizes, tables.frequencies)]
    reader, (rows, columns) = SpecifiedDecoder(payload), counts
    places = [(y, x) for y in range(rows) for x in range(columns)]
    symbols = np.zeros((rows, columns, c.groups[-1]), int)
    coarse = [(y, x) for y, x in places if y % 4 == x % 4 == 0]
    first = iter(reader.table(*arrays, [384 + i for _ in coarse for i in range(c.groups[0])]))
    for y, x in coarse:
        before = [symbols[y - 4, x]] * (y > 0) + [symbols[y, x - 4]] * (x > 0)
        for i in range(c.groups[0]):
            symbols[y, x, i] = next(first) + (sum(int(q[i]) for q in before) // len(before) if before else 0)
    lattices = [CodingStep("", 0, odd, stride) for stride in (2, 1) for odd in (False, True)]
    for step in (*lattices, *(CodingStep("", group, odd) for group in range(1, len(c.groups)) for odd in (False, True))):
        start, stop = c.groups[step.group - 1] if step.group else 0, c.groups[step.group]
        tables, whole = by_integers(c.order, model.params["network"], point, symbols, step)
        left = iter(reader.table(*arrays, [i for own in tables.values() for i in own]))
        for place, predicted in whole.items():
            symbols[place][start:stop] = [m + next(left) for m in predicted]
    return symbols


@pytest.mark.parametrize("point", [0, 1])
def test_a_file_means_what_the_page_says(model, files, point):
    data = files[point][3]
    payload = container.read(data, {}).payload
    (expected,) = symbols_in(model, data)
    np.testing.assert_array_equal(documented_symbols(model, point, expected.shape[:2], payload), expected)
    assert (expected != 0).mean() > 0.1


def test_a_model_of_half_precision_is_as_good_and_decodes_from_its_folder(model, pictures, tmp_path):
    half = make_model(model.codec, model.params, {}, precision="float16")
    half.save(tmp_path / "half")
    again = load(tmp_path / "half")
    data = half.encode(pictures[3], 1)
    np.testing.assert_array_equal(again.decode(data), half.decode(data))
    assert abs(psnr(again.decode(data), pictures[3]) - psnr(model.decode(model.encode(pictures[3], 1)), pictures[3])) < 0.5
    with pytest.raises(BitstreamError, match="another model"):
        model.decode(data)


def test_tables_are_counted_on_symbols_that_the_encoder_makes(model):
    """On pictures of the training set, which the tables know, symbols of the second group cost no more than their spread says."""
    _, (code,), (grid,) = model.read_codes(model.encode(smooth_picture(48, 64, 0), 1))
    order = CONFIG.compression.order
    step = next(step for step in order.steps if step.stream == "even_1")
    decoded = dict(itertools.takewhile(lambda item: item[0] != "even_1", code.streams.items()))
    own = model.codec.symbol_model(model.params, 1, grid, {}, decoded, "even_1")
    symbols = symbols_of(order, grid.counts, code.streams)
    table, whole = predict_table(order, model.params["network"], 1, symbols[None], step)
    np.testing.assert_array_equal(own.index, table.ravel())
    np.testing.assert_array_equal(own.offset, whole.ravel())
    bits = symbol_bits(own, code.streams["even_1"])
    histogram = np.unique(code.streams["even_1"], return_counts=True)[1] / code.streams["even_1"].size
    assert bits.mean() < 1.1 * -np.sum(histogram * np.log2(histogram)) + 0.1
