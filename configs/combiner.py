"""COMBINER (He 2023, chapter 3): `--config=configs/combiner.py:NAME`, NAME one of `VARIANTS`."""

from ml_collections import ConfigDict

from configs.base import choose, make_config

QUICK = {
    "training": {
        "num_steps": 1500,
        "batch_size": 32,
        "warmup_steps": 10,
        "average_decay": 0.0,
        "clip_norm": 0.0,
        "collapse_db": 0.0,
        "checkpoint_every": 500,
    },
    "num_patches": 256,
    "go_on_steps": 400,
    "lr": 5e-3,
    "final_lr_fraction": 0.1,
    "first_update": 100,
    "update_every": 25,
}
"""Priors in minutes on a CPU: larger steps than the thesis's, and each β goes on from the one before."""

CODING = {"num_steps": 600, "fine_tune_steps": 8, "lr": 5e-3, "adjust_every": 5}
"""Fits in seconds: 600 steps where the thesis takes 25,000."""


def demo() -> ConfigDict:
    """32×32 tiles of the pictures of `configs/vc_inr.py:demo`, sized for two CPU cores.

    Command: `python -m experiments.train --config=configs/combiner.py:demo --workdir=runs/combiner_demo`, then
    `python -m experiments.evaluate --workdir=runs/combiner_demo --out=runs/combiner_demo/rd.json`.
    """
    return make_config(
        "combiner",
        {"name": "demo", "test_tiles": 32, "test_limit": 64},
        {
            "betas": (5e-5, 2e-5, 5e-6, 2e-6),
            "prior": {**QUICK, "num_patches": 128, "training": {**QUICK["training"], "num_steps": 500}, "go_on_steps": 150},
            "coding": {**CODING, "num_steps": 300, "fine_tune_steps": 3},
        },
    )


def cifar10_small() -> ConfigDict:
    """5,000 CIFAR-10 pictures of `$VCINR_DATA`: the thesis's network, fewer training pictures and steps.

    Command: `python -m experiments.prepare cifar10_small`, then
    `python -m experiments.train --config=configs/combiner.py:cifar10_small --workdir=runs/combiner_cifar10`.
    """
    return make_config(
        "combiner",
        {"name": "cifar10_small", "test_limit": 64},
        {
            "betas": (2e-5, 5e-6, 2e-6, 1e-6),
            "prior": {
                **QUICK,
                "num_patches": 128,
                "training": {**QUICK["training"], "num_steps": 2500},
                "go_on_steps": 1200,
            },
            "coding": {**CODING, "num_steps": 1500},
        },
    )


def cifar10() -> ConfigDict:
    """CIFAR-10 as in table C.1 of the thesis: 4 × 16, Fourier 32, 2,048 training pictures, 128 epochs. For accelerators.

    Command: `python -m experiments.prepare cifar10`, then
    `python -m experiments.train --config=configs/combiner.py:cifar10 --workdir=runs/combiner`.
    """
    return make_config(
        "combiner",
        {"name": "cifar10", "flips": False},
        {
            "go_on": False,
            "prior": {
                "training": {**QUICK["training"], "num_steps": 128 * 2048 // 32},
                "num_patches": 2048,
                "start_components": 0,
            },
        },
    )


def kodak() -> ConfigDict:
    """Kodak as in table C.1 with the small model: 6 × 48, Fourier 64, whole pictures, 512 crops of DIV2K. For accelerators.

    Pictures are 512 × 768; those of 768 × 512 are to be turned. The thesis crops CLIC.
    """
    return make_config(
        "combiner",
        {"name": "div2k", "test_name": "kodak", "flips": False},
        {
            "patch": (512, 768),
            "field": {"num_layers": 5, "width": 48, "num_frequencies": 16},
            "betas": (4e-7, 1e-7, 1e-8),
            "go_on": False,
            "prior": {
                "training": {**QUICK["training"], "num_steps": 96 * 512 // 4, "batch_size": 4},
                "num_patches": 512,
                "lr": 1e-4,
                "first_update": 500,
                "update_every": 200,
                "start_components": 0,
            },
            "coding": {"lr": 1e-4},
        },
    )


VARIANTS = {"demo": demo, "cifar10_small": cifar10_small, "cifar10": cifar10, "kodak": kodak}


def get_config(name: str = "demo") -> ConfigDict:
    """The config of a variant, see its docstring."""
    return choose(VARIANTS, name)
