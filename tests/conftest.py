"""What every test stands on: the CPU, checked annotations, repeatable examples, data where there is some, a tiny model."""

import os
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from jaxtyping import install_import_hook

# Before JAX is first imported: tests ask for devices, precision and memory figures that are the CPU's.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Before vcinr is first imported: from here on every annotated shape is checked where it is called.
install_import_hook("vcinr", "beartype.beartype")

hypothesis.settings.register_profile("repeatable", derandomize=True, database=None, deadline=None, max_examples=50)
hypothesis.settings.register_profile("search", deadline=None, max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(scope="session", autouse=True)
def _nothing_of_the_users(tmp_path_factory):
    """Caches are the session's own, neither found nor left in the home folder, and no models of the user's are found."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("VCINR_CACHE", "VCINR_MODELS"):
            patch.delenv(name, raising=False)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def vcinr_data() -> Path:
    """The folder of local data sets, ``$VCINR_DATA``; a test that wants it is skipped where there is none."""
    folder = os.environ.get("VCINR_DATA")
    if not folder:
        pytest.skip("real data: set VCINR_DATA to the folder that holds cifar10_small.npz, faces_celeba64.npz, kodak/, photos/")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"VCINR_DATA={folder} is no folder")
    return path


@pytest.fixture
def datasets_dir(tmp_path, monkeypatch) -> Path:
    """An empty folder that prepared data sets go to, for this test and the programs it starts."""
    folder = tmp_path / "datasets"
    folder.mkdir()
    monkeypatch.setenv("VCINR_DATASETS_DIR", str(folder))
    return folder


def smooth_picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A colour picture uint8 [height, width, 3] of a few low-frequency waves."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 16.0
    planes = []
    for _ in range(3):
        fy, fx, phase = rng.uniform(-1.5, 1.5, 4), rng.uniform(-1.5, 1.5, 4), rng.uniform(0, 2 * np.pi, 4)
        planes.append(sum(np.sin(fy[i] * y + fx[i] * x + phase[i]) for i in range(4)))
    return np.clip(127.5 + 30 * np.stack(planes, -1), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    """A smooth colour picture, uint8 [37, 50, 3]: no multiple of any patch."""
    return smooth_picture(37, 50, seed=7)


@pytest.fixture(scope="session")
def klt_model_dir(tmp_path_factory) -> Path:
    """The folder of a trained ``klt`` model: patches of 8×8, three operating points from coarse to fine."""
    from vcinr.codecs.klt import KLT, KLTConfig
    from vcinr.datasets.sources import PatchSource
    from vcinr.model.model import make_model
    from vcinr.training.run import train

    folder = tmp_path_factory.mktemp("klt")
    codec = KLT(KLTConfig(patch=(8, 8), num_components=64, steps=(60.0, 25.0, 8.0), num_patches=2000))
    patches = PatchSource([smooth_picture(96, 128, seed) for seed in range(4)], (8, 8))
    params = train(codec, patches, seed=0, workdir=folder / "run", quiet=True)
    points = [{"name": f"step {step:g}"} for step in codec.config.steps]
    make_model(codec, params, {"about": "klt of synthetic waves"}, points).save(folder / "model")
    return folder / "model"
