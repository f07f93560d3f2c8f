"""KLT, the linear baseline: `--config=configs/klt.py:NAME`, NAME one of demo, cifar10, cifar10_small, kodak."""

from ml_collections import ConfigDict

from configs.base import choose, make_config
from configs.kinds import Kind, demos


def demo() -> ConfigDict:
    """The tiles of `configs/vc_inr.py:demo`; part of `make demo`. Takes some seconds."""
    return make_config(
        "klt",
        {"name": "demo", "test_tiles": 32, "test_limit": 64},
        {"num_components": 256, "steps": (160.0, 100.0, 64.0, 40.0, 24.0), "num_patches": 6000, "offsets_per_picture": 4},
    )


def cifar10() -> ConfigDict:
    """All of CIFAR-10.

    Command: `python -m experiments.train --config=configs/klt.py:cifar10 --workdir=runs/klt_cifar10`. A minute.
    """
    return make_config("klt", {"name": "cifar10"}, {"num_patches": 100_000, "offsets_per_picture": 1})


def cifar10_small() -> ConfigDict:
    """5,000 CIFAR-10 pictures of `$VCINR_DATA`.

    Command: `python -m experiments.train --config=configs/klt.py:cifar10_small --workdir=runs/klt_cifar10_small`. Under a minute
    on two cores.
    """
    return make_config("klt", {"name": "cifar10_small"}, {"offsets_per_picture": 1})


def kodak() -> ConfigDict:
    """16×16 patches, trained on `photos`, evaluated on Kodak.

    Command: `python -m experiments.train --config=configs/klt.py:kodak --workdir=runs/klt_kodak`. Under a minute on two cores.
    """
    return make_config(
        "klt",
        {"name": "photos", "test_name": "kodak"},
        {"patch": (16, 16), "num_components": 768, "num_patches": 200_000, "offsets_per_picture": 2},
    )


def of_kind(name: str, kind: Kind) -> ConfigDict:
    """The floor of another kind of signal, on the patches of `configs/vc_inr.py:demo_KIND`. Seconds to a minute."""
    values = {"num_components": kind.klt_components, "steps": kind.klt_steps, "num_patches": 20_000}
    own = {"patch": kind.klt_patch} if kind.klt_patch else {}
    return make_config("klt", kind.data, {**kind.values(name), **own, **values})


VARIANTS = {"demo": demo, "cifar10": cifar10, "cifar10_small": cifar10_small, "kodak": kodak, **demos(of_kind)}


def get_config(name: str = "demo") -> ConfigDict:
    """The config of a variant, see its docstring."""
    return choose(VARIANTS, name)
