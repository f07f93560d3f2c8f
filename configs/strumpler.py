"""Strümpler et al. 2022, basic and meta-learned: `--config=configs/strumpler.py:NAME`.

NAME is one of basic_demo, basic_kodak, basic_celeba, basic_kodak_gaussian, basic_kodak_relu, meta_demo, meta_kodak, meta_celeba.

Basic: `experiments.train` only writes the model's folder, `experiments.evaluate` fits each test picture. Meta-learned:
`experiments.train` learns the initial weights, `experiments.evaluate` fits each test picture from there.
"""

from ml_collections import ConfigDict

from configs.base import choose, make_config

FITTING = {
    "num_steps": 25_000,
    "optimiser": {"lr": 5e-4, "schedule": "constant"},
    "coding": {"adaround": {"num_steps": 1000}, "retraining": {"num_steps": 300}},
}
"""The paper's fit of one picture, its rounding and its retraining."""

PAPER_BASIC = {**FITTING, "num_layers": 4}

PAPER_META = {
    **FITTING,
    "adaptation": {"chunk": 2**14},
    "l1": (2.5e-6, 2.5e-6),
    "bits": (7, 8),
}

OUTER = {
    "batch_size": 1,
    "lr": 5e-5,
    "warmup_steps": 0,
    "final_lr_fraction": 1.0,
    "clip_norm": 0.0,
    "average_decay": 0.0,
    "collapse_db": 0.0,
    "eval_every": 500,
    "checkpoint_every": 500,
}
"""Outer loop: Adam at a constant rate, with no collapse watched for: with one picture per step, even the smoothed loss varies by
the 3 dB that would count as one."""


def basic_demo() -> ConfigDict:
    """The tiles of `configs/vc_inr.py:demo`, a tiny network each, for two CPU cores.

    Commands: `python -m experiments.train --config=configs/strumpler.py:basic_demo --workdir=runs/strumpler_basic_demo`, then
    `python -m experiments.evaluate --workdir=runs/strumpler_basic_demo --out=runs/strumpler_basic_demo/rd.json`. A minute and a
    half on two shared cores. 64 test tiles: 1.85, 3.45, 6.65 bpp of payload at 32.7, 36.7, 40.5 dB: one network per tile costs
    many bits per pixel on tiles this small.
    """
    return make_config(
        "strumpler_basic",
        {"name": "demo", "test_tiles": 32, "test_limit": 64},
        {
            "widths": (6, 10, 16),
            "num_frequencies": 4,
            "num_steps": 600,
            "optimiser": {"lr": 4e-3, "schedule": "cosine", "final_fraction": 0.02},
            "coding": {"adaround": {"num_steps": 150, "lr": 5e-2, "batch": 256}, "retraining": {"num_steps": 150}},
        },
    )


def basic_kodak() -> ConfigDict:
    """The paper's Kodak setting: 16 frequencies of scale 1.4, five widths, 25,000 steps of Adam at 5e-4, 8 bits.

    The authors' three hidden layers follow a first layer of the same width, so there are four sine layers. For accelerators.
    """
    return make_config("strumpler_basic", {"name": "kodak"}, PAPER_BASIC)


def basic_celeba() -> ConfigDict:
    """The paper's setting for faces, here 64×64: 12 frequencies, four widths."""
    return make_config("strumpler_basic", {"name": "faces"}, {**PAPER_BASIC, "widths": (24, 32, 48, 64), "num_frequencies": 12})


def basic_kodak_gaussian() -> ConfigDict:
    """The paper's ablation with Gaussian encoding: as many frequencies as hidden units in the paper, 64 for all widths here.

    The paper's ablations use λ = 1e-6 on values in [-1, 1], a tenth of its usual λ.
    """
    return make_config(
        "strumpler_basic",
        {"name": "kodak"},
        {**PAPER_BASIC, "l1": 2.5e-7, "encoding": "gaussian", "num_frequencies": 64, "encoding_scale": 4.0},
    )


def basic_kodak_relu() -> ConfigDict:
    """The paper's ablation with rectifiers instead of sines; λ as in `basic_kodak_gaussian`."""
    return make_config("strumpler_basic", {"name": "kodak"}, {**PAPER_BASIC, "l1": 2.5e-7, "activation": "relu"})


def meta_demo() -> ConfigDict:
    """The tiles of `configs/vc_inr.py:demo`, one tiny network for all, for two CPU cores.

    Commands: `python -m experiments.train --config=configs/strumpler.py:meta_demo --workdir=runs/strumpler_meta_demo`, then
    `python -m experiments.evaluate --workdir=runs/strumpler_meta_demo --out=runs/strumpler_meta_demo/rd.json`. Two minutes on two
    shared cores. 64 test tiles: 0.96, 1.19, 1.78, 2.52 bpp of payload at 32.2, 33.9, 36.0, 37.2 dB.
    """
    return make_config(
        "strumpler_meta",
        {"name": "demo", "test_tiles": 32, "test_limit": 64},
        {
            "field": _network(num_layers=3, width=10, num_frequencies=4),
            "meta": {"num_steps": 800, "batch_size": 16, "lr": 2e-3, "eval_every": 200, "checkpoint_every": 200},
            "num_steps": 300,
            "optimiser": {"lr": 2e-3, "schedule": "cosine", "final_fraction": 0.02},
            "l1": (1e-3, 3e-4, 1e-4, 1e-5),
            "bits": (4, 4, 5, 6),
            "coding": {"adaround": {"num_steps": 150, "lr": 5e-2, "batch": 256}, "retraining": {"num_steps": 150}},
        },
    )


def meta_kodak() -> ConfigDict:
    """The paper's Kodak setting with width 64, one of its 32 … 128, meta-trained on DIV2K. For accelerators.

    Three inner steps, whose step sizes start at 1e-5; outer Adam for them and θ₀ at a constant 5e-5, one picture per step,
    without warm-up, clipping or parameter average. The paper goes 30 times through DIV2K's 800 pictures at full size; here they
    are cropped to 256×256. The authors' three hidden layers follow a first layer of the same width, so there are four sine
    layers.
    """
    return make_config(
        "strumpler_meta",
        {"name": "div2k", "test_name": "kodak"},
        {
            **PAPER_META,
            "crop": (256, 256),
            "field": _network(),
            "meta": {**OUTER, "num_steps": 24_000},
        },
    )


def meta_celeba() -> ConfigDict:
    """The paper's setting for faces, here 64×64, with width 48, one of its 24 … 64; trained as `meta_kodak`. For accelerators."""
    return make_config(
        "strumpler_meta",
        {"name": "faces"},
        {
            **PAPER_META,
            "crop": (64, 64),
            "field": _network(width=48, num_frequencies=12),
            "meta": {**OUTER, "num_steps": 160_000},
        },
    )


def _network(**changes) -> dict:
    """The paper's network."""
    return {
        "num_layers": 4,
        "width": 64,
        "modulation": "weight_update",
        "encoding": "nerf",
        "num_frequencies": 16,
        "encoding_scale": 1.4,
        "omega_0": 30.0,
        **changes,
    }


VARIANTS = {
    "basic_demo": basic_demo,
    "basic_kodak": basic_kodak,
    "basic_celeba": basic_celeba,
    "basic_kodak_gaussian": basic_kodak_gaussian,
    "basic_kodak_relu": basic_kodak_relu,
    "meta_demo": meta_demo,
    "meta_kodak": meta_kodak,
    "meta_celeba": meta_celeba,
}


def get_config(name: str = "basic_demo") -> ConfigDict:
    """The config of a variant, see its docstring."""
    return choose(VARIANTS, name)
