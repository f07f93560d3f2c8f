"""Trees of arrays: bit for bit to disk and back, atomic, and clear errors for anything else."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vcinr.trees import load_tree, save_tree, write_atomically

_ARRAYS = hnp.arrays(
    st.sampled_from([np.float64, np.float32, np.float16, np.int64, np.int32, np.uint8, np.uint32, np.bool_]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
_KEYS = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1, max_size=6)
_TREES = st.recursive(_ARRAYS, lambda x: st.dictionaries(_KEYS, x, max_size=3) | st.lists(x, max_size=3), max_leaves=6)


def _assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())


@given(tree=st.dictionaries(_KEYS, _TREES, max_size=3))
def test_round_trip(tmp_path_factory, tree):
    path = tmp_path_factory.mktemp("tree") / "tree.safetensors"
    save_tree(path, tree)
    _assert_same(load_tree(path), tree)


def test_any_memory_order_and_jax_arrays(tmp_path):
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    tree = {"t": matrix.T, "strided": matrix[:, ::2], "big": matrix.astype(">f4")}
    tree |= {"jax": jnp.arange(3), "scalar": np.float64(1.5)}
    save_tree(tmp_path / "t", tree)
    loaded = load_tree(tmp_path / "t")
    for name, value in tree.items():
        np.testing.assert_array_equal(loaded[name], value)
        assert loaded[name].shape == np.shape(value)
    assert loaded["big"].dtype == np.dtype("<f4")


def test_equal_trees_are_equal_files(tmp_path):
    a, b = np.ones(3), np.zeros((2, 2), np.int32)
    save_tree(tmp_path / "1", {"x": {"a": a, "b": b}, "y": [a]})
    save_tree(tmp_path / "2", {"y": [a], "x": {"b": b, "a": a}})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


@pytest.mark.parametrize(
    ("tree", "named"),
    [
        ({"a": {"b": 1.5}}, "'a/b' is float"),
        ({"a": (np.ones(1),)}, "'a' is tuple"),
        ({"a": None}, "'a' is NoneType"),
        ({"a": np.array(["text"])}, "'a' is <U4"),
        ({"a": jax.random.key(0)}, "'a' is key<fry>"),
        ({"a/b": np.ones(1)}, "not 'a/b'"),
        ({1: np.ones(1)}, "not 1"),
        ([np.ones(1)], "must be a dict"),
    ],
)
def test_what_cannot_be_saved_is_named(tmp_path, tree, named):
    with pytest.raises(ValueError, match=re.escape(named)):
        save_tree(tmp_path / "t", tree)
    assert not list(tmp_path.iterdir())


def test_damaged_files_are_one_clear_error(tmp_path):
    path = tmp_path / "t"
    save_tree(path, {"a": np.arange(10), "b": {"c": np.ones(3, np.float32)}})
    data = path.read_bytes()
    damaged = [data[:n] for n in (0, 4, 40, len(data) - 1)] + [b"\xff" * 64, data.replace(b'\\"a\\"', b'\\"z\\"')]
    for bad in damaged:
        assert bad != data
        path.write_bytes(bad)
        with pytest.raises(ValueError, match="damaged"):
            load_tree(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_tree(tmp_path / "absent")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "f"
    write_atomically(path, b"old")
    monkeypatch.setattr("vcinr.trees.os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk is full")))
    with pytest.raises(OSError, match="disk is full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
