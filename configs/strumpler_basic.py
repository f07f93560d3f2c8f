"""Strümpler et al. 2022, basic: `--config=configs/strumpler_basic.py:NAME`, NAME one of demo, kodak, celeba, kodak_gaussian,
kodak_relu. Nothing is trained: `experiments.train` writes the model down, `experiments.evaluate` fits each test picture."""

from ml_collections import ConfigDict

from configs.base import choose, make_config

PAPER = {
    "num_layers": 4,
    "num_steps": 25_000,
    "optimiser": {"lr": 5e-4, "schedule": "constant"},
    "coding": {"adaround": {"num_steps": 1000}, "retraining": {"num_steps": 300}},
}


def demo() -> ConfigDict:
    """The tiles of `configs/vc_inr.py:demo`, a tiny network each, for two CPU cores.

    Commands: `python -m experiments.train --config=configs/strumpler_basic.py:demo --workdir=runs/strumpler_basic_demo`, then
    `python -m experiments.evaluate --workdir=runs/strumpler_basic_demo --out=runs/strumpler_basic_demo/rd.json`. A minute and a
    half on two shared cores. 64 test tiles: 1.85, 3.45, 6.65 bpp of payload at 32.7, 36.7, 40.5 dB: on so few pixels a network
    of its own is dear.
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


def kodak() -> ConfigDict:
    """The paper's: 16 frequencies of scale 1.4, five widths, 25,000 steps of Adam at 5e-4, 8 bits, AdaRound, retraining.

    The authors' three hidden layers come after a first one of the same width, so four layers have sines. For accelerators.
    """
    return make_config("strumpler_basic", {"name": "kodak"}, PAPER)


def celeba() -> ConfigDict:
    """The paper's for faces: 12 frequencies, four widths; here of 64×64 pictures."""
    return make_config("strumpler_basic", {"name": "faces"}, {**PAPER, "widths": (24, 32, 48, 64), "num_frequencies": 12})


def kodak_gaussian() -> ConfigDict:
    """The paper's ablation: Gaussian encoding. It takes as many frequencies as hidden units; here all widths have 64.

    Its ablations have a λ of 1e-6 where values lie in [-1, 1], a tenth of the codec's own.
    """
    return make_config(
        "strumpler_basic",
        {"name": "kodak"},
        {**PAPER, "l1": 2.5e-7, "encoding": "gaussian", "num_frequencies": 64, "encoding_scale": 4.0},
    )


def kodak_relu() -> ConfigDict:
    """The paper's ablation: rectifiers in place of sines; λ as in `kodak_gaussian`."""
    return make_config("strumpler_basic", {"name": "kodak"}, {**PAPER, "l1": 2.5e-7, "activation": "relu"})


VARIANTS = {"demo": demo, "kodak": kodak, "celeba": celeba, "kodak_gaussian": kodak_gaussian, "kodak_relu": kodak_relu}


def get_config(name: str = "demo") -> ConfigDict:
    """The config of a variant, see its docstring."""
    return choose(VARIANTS, name)
