"""COMBINER+ (He 2023, chapter 4): `--config=configs/combiner_plus.py:NAME`, NAME one of `VARIANTS`."""

from ml_collections import ConfigDict

from configs.base import choose, make_config
from configs.combiner import CODING, QUICK
from configs.kinds import KINDS, Kind, demos

SMALL = {
    "field": {"num_layers": 3, "width": 16, "num_frequencies": 4},
    "positional": {"channels": 32, "stride": 8, "widths": (32, 32), "outputs": 16},
}
"""A network for two CPU cores: A has a fourteenth of the thesis's numbers, which grow with the fourth power of the width."""

QUICK_PLUS = {**QUICK, "lr": 1e-2, "training": {**QUICK["training"], "lr": 1e-4, "final_lr_fraction": 0.1}}
CODING_PLUS = {**CODING, "num_samples": 1}


def demo() -> ConfigDict:
    """32×32 tiles of the pictures of `configs/vc_inr.py:demo`, sized for two CPU cores.

    Command: `python -m experiments.train --config=configs/combiner_plus.py:demo --workdir=runs/combiner_plus_demo`, then
    `python -m experiments.evaluate --workdir=runs/combiner_plus_demo --out=runs/combiner_plus_demo/rd.json`.
    """
    return make_config(
        "combiner_plus",
        {"name": "demo", "test_tiles": 32, "test_limit": 64},
        {
            **SMALL,
            "betas": (1e-4, 2e-5, 5e-6, 2e-6),
            "prior": {
                **QUICK_PLUS,
                "num_patches": 128,
                "training": {**QUICK_PLUS["training"], "num_steps": 600},
                "go_on_steps": 150,
            },
            "coding": {**CODING_PLUS, "num_steps": 300, "fine_tune_steps": 3},
        },
    )


def cifar10_small() -> ConfigDict:
    """5,000 CIFAR-10 pictures of `$VCINR_DATA`, sized for one CPU core and half an hour.

    Command: `python -m experiments.prepare cifar10_small`, then
    `python -m experiments.train --config=configs/combiner_plus.py:cifar10_small --workdir=runs/combiner_plus_cifar10`.
    """
    return make_config(
        "combiner_plus",
        {"name": "cifar10_small", "test_limit": 64},
        {
            **SMALL,
            "betas": (5e-5, 1e-5, 3e-6, 1e-6),
            "prior": {
                **QUICK_PLUS,
                "num_patches": 512,
                "training": {**QUICK_PLUS["training"], "num_steps": 6000, "checkpoint_every": 1000},
                "go_on_steps": 4000,
            },
            "coding": {**CODING_PLUS, "num_steps": 1500},
        },
    )


def cifar10() -> ConfigDict:
    """CIFAR-10 at the thesis's size: 4 × 32, D = D₀ = 16, z 128 × 2 × 2, 15,000 pictures. For accelerators.

    Steps, step sizes, β and the convolutions' channels are ours.
    """
    return make_config(
        "combiner_plus",
        {"name": "cifar10", "flips": False},
        {
            "betas": (2e-4, 5e-5, 2e-5, 5e-6, 2e-6, 5e-7),
            "go_on": False,
            "prior": {
                "training": {**QUICK["training"], "num_steps": 60_000, "lr": 2e-5},
                "num_patches": 15_000,
                "start_components": 0,
            },
        },
    )


def kodak() -> ConfigDict:
    """Kodak at the thesis's size: 64 × 64 patches, z 128 × 4 × 4, 8,000 patches of DIV2K. For accelerators."""
    return make_config(
        "combiner_plus",
        {"name": "div2k", "test_name": "kodak", "flips": False},
        {
            "patch": (64, 64),
            "betas": (2e-4, 5e-5, 2e-5, 5e-6, 2e-6),
            "go_on": False,
            "prior": {
                "training": {**QUICK["training"], "num_steps": 60_000, "lr": 2e-5},
                "num_patches": 8000,
                "start_components": 0,
            },
        },
    )


def of_kind(name: str, kind: Kind) -> ConfigDict:
    """COMBINER+ on another kind of signal, sized for two CPU cores; its patches are `Kind.combiner_patch`."""
    field = {**SMALL["field"], **{key: value for key, value in kind.field(name).items() if key != "latent_dim"}}
    positional = {**SMALL["positional"], "stride": kind.combiner_stride}
    prior = {**QUICK_PLUS, "num_patches": 256, "training": {**QUICK_PLUS["training"], "num_steps": 1500}, "go_on_steps": 500}
    return make_config(
        "combiner_plus",
        {**kind.data, "test_limit": 16},
        {
            **kind.values(name),
            "patch": kind.combiner_patch,
            "field": field,
            "positional": positional,
            "betas": kind.betas,
            "prior": prior,
            "coding": {**CODING_PLUS, "num_steps": 600, "fine_tune_steps": 4},
        },
    )


DEMOS = {name: variant for name, variant in demos(of_kind).items() if KINDS[name.removeprefix("demo_")].combiner_patch}

VARIANTS = {"demo": demo, "cifar10_small": cifar10_small, "cifar10": cifar10, "kodak": kodak, **DEMOS}


def get_config(name: str = "demo") -> ConfigDict:
    """The config of a variant, see its docstring."""
    return choose(VARIANTS, name)
