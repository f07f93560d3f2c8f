"""COIN (Dupont et al. 2021): `--config=configs/coin.py:NAME`, NAME one of demo, cifar10, cifar10_small, kodak.

COIN needs no training: `experiments.train` only writes the model's folder, and `experiments.evaluate` fits every picture.
"""

from ml_collections import ConfigDict

from configs.base import choose, make_config
from configs.kinds import Kind, demos

PAPER = {"num_steps": 50_000, "optimiser": {"lr": 2e-4, "schedule": "constant"}}
"""Fit of one picture, section 4 of the paper."""


def demo() -> ConfigDict:
    """The tiles of `configs/vc_inr.py:demo`, for two CPU cores.

    Commands: `python -m experiments.train --config=configs/coin.py:demo --workdir=runs/coin_demo`, then
    `python -m experiments.evaluate --workdir=runs/coin_demo --out=runs/coin_demo/rd.json`. Results: docs/results.md.
    """
    return make_config(
        "coin",
        {"name": "demo", "test_tiles": 32, "test_limit": 64},
        {"architectures": ((2, 6), (2, 10), (2, 14)), "num_steps": 1500, "optimiser": {"lr": 5e-3, "schedule": "constant"}},
    )


def cifar10() -> ConfigDict:
    """The test pictures of CIFAR-10 at 0.8 to 8 bpp, with as many steps as in the paper. For an accelerator."""
    return make_config("coin", {"name": "cifar10"}, PAPER | {"architectures": CIFAR10, "batch_samples": 2**20})


def cifar10_small() -> ConfigDict:
    """CIFAR-10 pictures of `$VCINR_DATA`, sized for two CPU cores."""
    return make_config("coin", {"name": "cifar10_small"}, {"architectures": CIFAR10})


CIFAR10 = ((1, 8), (2, 6), (2, 10), (2, 14), (3, 14))


def kodak() -> ConfigDict:
    """The paper's five architectures on Kodak, 0.07, 0.15, 0.3, 0.6 and 1.2 bpp, with as many steps as in section 4.

    For a GPU: one step for one picture takes a second or more on two CPU cores.
    """
    architectures = ((5, 20), (5, 30), (10, 28), (10, 40), (13, 49))
    return make_config("coin", {"name": "kodak"}, PAPER | {"architectures": architectures, "chunk": 0})


def of_kind(name: str, kind: Kind) -> ConfigDict:
    """Another kind of signal, sized for two CPU cores: a network per whole signal, so rates depend on how large signals are."""
    values = {"modality": kind.modality or name, "architectures": kind.architectures, "omega_0": round(kind.omega_0)}
    return make_config("coin", {**kind.data, "test_limit": 8}, {**values, "num_steps": 1000})


VARIANTS = {"demo": demo, "cifar10": cifar10, "cifar10_small": cifar10_small, "kodak": kodak, **demos(of_kind)}


def get_config(name: str = "demo") -> ConfigDict:
    """The config of a variant, see its docstring."""
    return choose(VARIANTS, name)
