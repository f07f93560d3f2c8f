"""Batches depend on the generator alone and hold nothing but crops of the pictures."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from vcinr.datasets.sources import ArraySource, PatchSource


def picture(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def generator(seed=0):
    return np.random.default_rng(seed)


class Counted(Sequence):
    """A lazy sequence that counts how often a picture is read."""

    def __init__(self, pictures):
        self.pictures, self.reads = pictures, 0

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, index):
        self.reads += 1
        return self.pictures[index]


def test_one_picture_of_the_patch_size_gives_it_and_its_mirror():
    only = picture((32, 32))
    batch = PatchSource([only], (32, 32)).batch(generator(), 64)["values"]
    mirrored = [np.array_equal(crop, only[:, ::-1]) for crop in batch]
    assert all(m or np.array_equal(crop, only) for m, crop in zip(mirrored, batch, strict=True))
    assert 16 < sum(mirrored) < 48
    plain = PatchSource([only], (32, 32), flips=False).batch(generator(), 8)["values"]
    assert (plain == only).all()


def test_a_batch_depends_on_the_generator_alone():
    pictures = [picture((20, 30)), picture((25, 16), 1)]
    source, fresh = PatchSource(pictures, (8, 8)), PatchSource(pictures, (8, 8))
    source.batch(generator(5), 7)
    np.testing.assert_array_equal(source.batch(generator(3), 9)["values"], fresh.batch(generator(3), 9)["values"])
    assert not np.array_equal(source.batch(generator(3), 9)["values"], source.batch(generator(4), 9)["values"])


def test_crops_reach_every_offset_and_nothing_else():
    base = np.arange(5 * 6, dtype=np.uint8).reshape(5, 6, 1)
    crops = PatchSource([base], (3, 3), flips=False).batch(generator(), 600)["values"]
    assert {int(crop[0, 0, 0]) for crop in crops} == {6 * y + x for y in range(3) for x in range(4)}
    np.testing.assert_array_equal(crops[:, 1, 2, 0], crops[:, 0, 0, 0] + 8)


def test_a_picture_is_drawn_in_proportion_to_its_area():
    pictures = [np.full((8, 8, 1), 0, np.uint8), np.full((24, 8, 1), 1, np.uint8)]
    drawn = PatchSource(pictures, (8, 8)).batch(generator(), 4000)["values"][:, 0, 0, 0]
    assert abs(drawn.mean() - 0.75) < 0.03


def test_all_patches_tile_every_picture_and_each_mirror_follows():
    base = picture((8, 12))
    patches = PatchSource([base], (4, 4)).all_patches(generator())
    np.testing.assert_array_equal(patches[1::2], patches[::2, :, ::-1])
    rows = [base[y : y + 4, x : x + 4] for y in range(5) for x in range(9)]
    assert all(any(np.array_equal(patch, row) for row in rows) for patch in patches[::2])


def test_all_patches_of_patch_sized_pictures_are_the_pictures():
    stack = np.stack([picture((6, 6), seed) for seed in range(5)])
    np.testing.assert_array_equal(PatchSource(stack, (6, 6), flips=False).all_patches(generator(), offsets_per_picture=3), stack)


def test_offsets_differ_and_all_of_them_give_every_crop():
    base = np.arange(7 * 9, dtype=np.uint8).reshape(7, 9, 1)
    source = PatchSource([base], (3, 3), flips=False)
    corners = [int(patch[0, 0, 0]) for patch in source.all_patches(generator(), offsets_per_picture=9)]
    assert sorted(corners) == sorted(9 * y + x for y, x in itertools.product(range(5), range(7)))


def test_crops_are_mirrored_along_each_axis_that_may_be():
    base = picture((5, 4, 6))
    images = {axes: np.flip(base, axes) for axes in ((), (0,), (2,), (0, 2))}
    source = PatchSource([base], (5, 4, 6), flips=(0, 2))
    for crops in (source.batch(generator(), 64)["values"], source.all_patches(generator())):
        seen = [next(axes for axes, image in images.items() if np.array_equal(crop, image)) for crop in crops]
        assert set(seen) == set(images)
    assert len(crops) == 4
    with pytest.raises(ValueError, match="from 0 to 2"):
        PatchSource([base], (5, 4, 6), flips=(3,))


def test_limit_is_a_choice_without_repetition():
    base = np.arange(15 * 16, dtype=np.uint8).reshape(15, 16, 1)
    source = PatchSource([base], (1, 1), flips=False)
    some = source.all_patches(generator(), limit=40).ravel()
    assert len(some) == 40 == len(set(some.tolist()))
    assert len(source.all_patches(generator(), limit=10**6)) == base.size
    assert source.all_patches(generator(), limit=0).shape == (0, 1, 1, 1)


def test_pictures_beyond_the_memory_limit_are_read_again_and_give_the_same_batches():
    pictures = [picture((16, 16), seed) for seed in range(4)]
    lazy = Counted(pictures)
    kept, unkept = PatchSource(pictures, (8, 8)), PatchSource(lazy, (8, 8), max_bytes=0)
    before = lazy.reads
    np.testing.assert_array_equal(kept.batch(generator(1), 20)["values"], unkept.batch(generator(1), 20)["values"])
    assert lazy.reads > before
    before = lazy.reads
    np.testing.assert_array_equal(kept.all_patches(generator(1)), unkept.all_patches(generator(1)))
    assert lazy.reads == before + 4


def test_other_crops_of_the_same_pictures_are_those_of_a_source_of_their_own():
    pictures = [picture((16, 20), seed) for seed in range(3)]
    for flips in (True, False):
        source = PatchSource(pictures, (16, 16), flips).with_patch((4, 6))
        fresh = PatchSource(pictures, (4, 6), flips)
        assert (source.patch, source.flips, len(source)) == ((4, 6), (1,) if flips else (), 3)
        np.testing.assert_array_equal(source.batch(generator(2), 30)["values"], fresh.batch(generator(2), 30)["values"])
    with pytest.raises(ValueError, match="smaller than the patch"):
        source.with_patch((17, 4))


def test_pictures_kept_in_memory_are_not_read_again_for_other_crops():
    lazy = Counted([picture((16, 16), seed) for seed in range(3)])
    source = PatchSource(lazy, (16, 16))
    before = lazy.reads
    assert source.with_patch((8, 8)).batch(generator(), 5)["values"].shape == (5, 8, 8, 3)
    assert lazy.reads == before
    # And those that are not kept are kept by neither.
    unkept = PatchSource(lazy, (16, 16), max_bytes=0).with_patch((8, 8))
    before = lazy.reads
    batch = unkept.batch(generator(), 20)["values"]
    assert lazy.reads > before
    np.testing.assert_array_equal(batch, source.with_patch((8, 8)).batch(generator(), 20)["values"])


def test_other_ranks_and_dtypes_work_alike():
    sound = np.arange(-30000, -29950, dtype=np.int16).reshape(50, 1)
    crops = PatchSource([sound], (10,), flips=False).batch(generator(), 5)["values"]
    assert crops.shape == (5, 10, 1)
    assert crops.dtype == np.int16
    assert crops.min() >= -30000
    assert crops.max() < -29950
    assert (np.diff(crops[..., 0], axis=1) == 1).all()


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ([], "at least one picture"),
        ([picture((8, 8)), picture((8, 7)), picture((4, 9))], r"2 of 3 .* picture 1 is \(8, 7\); drop them, .* at most \(4, 7\)"),
        ([picture((8, 8)), picture((8, 8)).astype(np.int16)], "picture 1 is int16 and picture 0 is uint8"),
        ([picture((8, 8))[..., 0]], "channels last"),
        ([picture((8, 8)), picture((8, 8))[..., :1]], "picture 1 has 1 channels"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(pictures, message):
    with pytest.raises(ValueError, match=message):
        PatchSource(pictures, (8, 8))


def test_array_rows_stay_together():
    source = ArraySource({"a": np.arange(10), "b": np.arange(10)[:, None] * 2.0})
    batch = source.batch(generator(), 200)
    assert len(source) == 10
    assert batch["a"].shape == (200,)
    assert batch["b"].shape == (200, 1)
    np.testing.assert_array_equal(batch["b"][:, 0], 2.0 * batch["a"])
    assert set(batch["a"].tolist()) == set(range(10))
    np.testing.assert_array_equal(batch["a"], source.batch(generator(), 200)["a"])


@pytest.mark.parametrize("arrays", [{}, {"a": np.zeros(0)}, {"a": np.zeros(2), "b": np.zeros(3)}])
def test_arrays_of_no_or_different_lengths_are_refused(arrays):
    with pytest.raises(ValueError, match="one length"):
        ArraySource(arrays)
