"""VC-INR (Schwarz et al. 2023): `--config=configs/vc_inr.py:NAME`, NAME one of `VARIANTS`."""

from ml_collections import ConfigDict

from configs.base import choose, make_config
from configs.kinds import Kind, demos

CAREFUL = {"batch_size": 16, "warmup_steps": 50, "clip_norm": 1.0, "average_decay": 0.999, "collapse_db": 3.0}
"""Training of the trunk: a longer warm-up than by default, gradient clipping, parameter averaging and a check for collapse."""


def demo() -> ConfigDict:
    """32×32 tiles of the colour photographs in scikit-image's wheel, sized for two CPU cores.

    Split by picture: train = astronaut, the motorcycle stereo pair, ihc; validation = rocket; test = coffee, chelsea.
    Command: `make demo` (this and `configs/klt.py:demo`, then the table and the pictures). Four to
    five minutes on two cores. Test tiles: 0.14, 0.22, 0.32 bpp of payload at 28.3, 29.6, 30.7 dB, 0.2 to 0.4 dB above the KLT.
    """
    return make_config(
        "vc_inr",
        {"name": "demo", "test_tiles": 32, "test_limit": 64},
        {
            "field": {
                "num_layers": 3,
                "width": 64,
                "last_width": 128,
                "linear_head": True,
                "latent_dim": 128,
                "hyper_width": 128,
            },
            "adaptation": {"initial_step": 1.0},
            "warm_start": {
                "enabled": True,
                "num_patches": 6000,
                "offsets_per_picture": 4,
                "training": {**CAREFUL, "num_steps": 600, "lr": 1e-3},
            },
            "meta": {"num_steps": 150, "batch_size": 16, "lr": 1e-3, "eval_every": 50, "checkpoint_every": 50},
            "compression": {
                "lambdas": (0.0004, 0.0012, 0.004),
                "width": 128,
                "num_latents": 2000,
                "training": {"num_steps": 250, "batch_size": 32, "lr": 3e-4, "average_decay": 0.99, "eval_every": 100},
            },
        },
    )


def cifar10() -> ConfigDict:
    """CIFAR-10 at the size of the papers: 10 × 512, latent 512, batch 64, 5·10⁵ steps at 3e-6 (COIN++, Functa).

    Command: `python -m experiments.prepare cifar10`, then
    `python -m experiments.train --config=configs/vc_inr.py:cifar10 --workdir=runs/cifar10`. For accelerators: days on one.
    """
    return make_config("vc_inr", {"name": "cifar10"}, PAPER | {"compression": {**BOTTLENECK, "offsets_per_picture": 1}})


def kodak_paper() -> ConfigDict:
    """As `cifar10`, but trained on 32×32 patches of DIV2K and evaluated on the 24 Kodak pictures, whole.

    Command: `python -m experiments.prepare div2k` and `python -m experiments.prepare kodak`, then
    `python -m experiments.train --config=configs/vc_inr.py:kodak_paper --workdir=runs/kodak_paper`. For accelerators: days on
    one.
    """
    return make_config("vc_inr", {"name": "div2k", "test_name": "kodak"}, PAPER | {"compression": BOTTLENECK})


PAPER = {
    "field": {"num_layers": 9, "width": 512, "latent_dim": 512, "hyper_width": 512, "hyper_depth": 4, "rank": 8},
    "meta": {
        "num_steps": 500_000,
        "batch_size": 64,
        "microbatch": 16,
        "lr": 3e-6,
        "warmup_steps": 2000,
        "eval_every": 5000,
        "checkpoint_every": 5000,
        "log_every": 100,
    },
    "encode_batch": 64,
}
"""The field of the papers' size (9 sine layers and the output) and its training, from a plain start."""

BOTTLENECK = {
    "lambdas": (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    "width": 1024,
    "num_latents": 50_000,
    "training": {
        "num_steps": 50_000,
        "batch_size": 256,
        "lr": 1e-4,
        "average_decay": 0.999,
        "eval_every": 5000,
        "checkpoint_every": 5000,
    },
}
"""The bottleneck at that size."""


def cifar10_small() -> ConfigDict:
    """5,000 CIFAR-10 pictures from `$VCINR_DATA`, warm-started, sized for two CPU cores and an hour.

    Command: `python -m experiments.prepare cifar10_small`, then
    `python -m experiments.train --config=configs/vc_inr.py:cifar10_small --workdir=runs/cifar10_small`. About an hour on two
    shared cores. Test, 517 pictures: 0.84, 1.07, 1.32, 1.57, 1.83, 2.08 bpp of payload at 26.8, 28.1, 29.0, 29.7, 30.1, 30.3 dB.
    """
    return make_config(
        "vc_inr",
        {"name": "cifar10_small"},
        {
            "field": {
                "num_layers": 3,
                "width": 128,
                "last_width": 512,
                "linear_head": True,
                "latent_dim": 512,
                "hyper_width": 256,
            },
            "adaptation": {"initial_step": 1.0},
            "warm_start": {"enabled": True, "offsets_per_picture": 1, "training": {**CAREFUL, "num_steps": 2000, "lr": 3e-3}},
            "meta": {
                "num_steps": 240,
                "batch_size": 16,
                "microbatch": 4,
                "lr": 5e-4,
                "final_lr_fraction": 0.05,
                "eval_every": 60,
                "checkpoint_every": 60,
            },
            "compression": {
                "lambdas": (0.0015, 0.003, 0.006, 0.012, 0.025, 0.05),
                "width": 256,
                "num_latents": 9000,
                "offsets_per_picture": 1,
                "training": {
                    "num_steps": 400,
                    "batch_size": 32,
                    "lr": 3e-4,
                    "average_decay": 0.999,
                    "eval_every": 100,
                    "checkpoint_every": 200,
                },
            },
        },
    )


def kodak() -> ConfigDict:
    """32×32 patches: trained on the photographs of `$VCINR_DATA`, evaluated on the 24 Kodak pictures, whole.

    Command: `python -m experiments.prepare photos` and `python -m experiments.prepare kodak`, then
    `python -m experiments.train --config=configs/vc_inr.py:kodak --workdir=runs/kodak`. Not measured yet.
    """
    return make_config(
        "vc_inr",
        {"name": "photos", "test_name": "kodak"},
        {
            "field": {
                "num_layers": 3,
                "width": 64,
                "last_width": 256,
                "linear_head": True,
                "latent_dim": 256,
                "hyper_width": 128,
            },
            "adaptation": {"initial_step": 1.0},
            "warm_start": {"enabled": True, "offsets_per_picture": 1, "training": {**CAREFUL, "num_steps": 1500, "lr": 3e-3}},
            "meta": {"num_steps": 300, "batch_size": 16, "lr": 5e-4, "eval_every": 100, "checkpoint_every": 100},
            "compression": {
                "lambdas": (0.0005, 0.0015, 0.005, 0.015),
                "width": 256,
                "num_latents": 10_000,
                "offsets_per_picture": 1,
                "training": {
                    "num_steps": 500,
                    "batch_size": 32,
                    "lr": 3e-4,
                    "average_decay": 0.999,
                    "eval_every": 100,
                    "checkpoint_every": 250,
                },
            },
            "encode_batch": 64,
        },
    )


GATES = {
    "field": {"num_layers": 5, "width": 64, "rank": 4, "latent_dim": 64, "hyper_width": 128, "hyper_depth": 2},
    "adaptation": {"num_steps": 3, "initial_step": 0.5, "subset": 256, "step_rate": 10.0},
    "meta": {
        "num_steps": 12_000,
        "batch_size": 16,
        "lr": 1e-3,
        "warmup_steps": 500,
        "final_lr_fraction": 0.01,
        "eval_every": 1000,
        "checkpoint_every": 1000,
        "log_every": 100,
    },
    "encode_batch": 64,
}
"""The published form at a size for two CPU cores: a plain start, gates on all sine layers, no linear head."""


def demo_gates() -> ConfigDict:
    """The published form of VC-INR on the tiles of `demo`, for `python -m experiments.peers`."""
    return make_config(
        "vc_inr",
        {"name": "demo", "test_tiles": 32, "test_limit": 64},
        {
            **GATES,
            "compression": {
                "lambdas": (0.0004, 0.0012, 0.004, 0.012),
                "width": 128,
                "num_latents": 2000,
                "training": {"num_steps": 250, "batch_size": 32, "lr": 3e-4, "average_decay": 0.99},
            },
        },
    )


def cifar10_gates() -> ConfigDict:
    """The published form of VC-INR on 5,000 CIFAR-10 pictures: one latent of 64 numbers per picture.

    Command: `python -m experiments.prepare cifar10_small`, then
    `python -m experiments.train --config=configs/vc_inr.py:cifar10_gates --workdir=runs/cifar10_gates`. About half an hour
    for the stage `meta` on one free core (16 steps per second); not measured to its end yet.
    """
    return make_config(
        "vc_inr",
        {"name": "cifar10_small"},
        {
            **GATES,
            "compression": {
                "lambdas": (0.0002, 0.0008, 0.003, 0.01),
                "width": 256,
                "num_latents": 9000,
                "offsets_per_picture": 1,
                "training": {
                    "num_steps": 1000,
                    "batch_size": 32,
                    "lr": 3e-4,
                    "average_decay": 0.999,
                    "eval_every": 250,
                    "checkpoint_every": 250,
                },
            },
        },
    )


def kodak_gates() -> ConfigDict:
    """The published form of VC-INR on photographs, evaluated on the 24 Kodak pictures: 64 numbers per 32×32 patch.

    Command: `python -m experiments.prepare photos` and `python -m experiments.prepare kodak`, then
    `python -m experiments.train --config=configs/vc_inr.py:kodak_gates --workdir=runs/kodak_gates`. About half an hour for
    the stage `meta` on one free core; `docs/results/vc_inr_kodak_gates.json` has a sixth of it.
    """
    return make_config(
        "vc_inr",
        {"name": "photos", "test_name": "kodak"},
        {
            **GATES,
            "compression": {
                "lambdas": (0.0002, 0.0008, 0.003, 0.01),
                "width": 256,
                "num_latents": 9000,
                "offsets_per_picture": 1,
                "training": {
                    "num_steps": 1000,
                    "batch_size": 32,
                    "lr": 3e-4,
                    "average_decay": 0.999,
                    "eval_every": 250,
                    "checkpoint_every": 250,
                },
            },
        },
    )


AMORTISED = {
    **GATES,
    "adaptation": {**GATES["adaptation"], "projection_steps": 8},
    "amortised": {"enabled": True},
    "meta": {**GATES["meta"], "num_steps": 48_000, "eval_every": 4000, "checkpoint_every": 4000},
}
"""The same field behind an affine analysis instead of the inner loop, and Gauss–Newton steps in encoding: not the paper's way."""


def cifar10_amortised() -> ConfigDict:
    """`cifar10_gates` with an affine analysis in place of the inner loop, and eight Gauss–Newton steps in encoding.

    Command: `python -m experiments.prepare cifar10_small`, then
    `python -m experiments.train --config=configs/vc_inr.py:cifar10_amortised --workdir=runs/cifar10_amortised`. Six minutes
    for the stage `amortised` on one free core (140 steps per second).
    """
    return _with_compression_of(cifar10_gates(), {"name": "cifar10_small"})


def kodak_amortised() -> ConfigDict:
    """`kodak_gates` with an affine analysis in place of the inner loop, and eight Gauss–Newton steps in encoding.

    Command: `python -m experiments.prepare photos` and `python -m experiments.prepare kodak`, then
    `python -m experiments.train --config=configs/vc_inr.py:kodak_amortised --workdir=runs/kodak_amortised`.
    """
    return _with_compression_of(kodak_gates(), {"name": "photos", "test_name": "kodak"})


def kodak_amortised_16() -> ConfigDict:
    """`kodak_amortised` with 64 numbers per 16×16 patch, four times as many per picture, two Gauss–Newton steps and other λ.

    Command: as for `kodak_amortised`, with this name.
    """
    config = kodak_amortised().unlock()
    config.patch = (16, 16)
    config.adaptation.projection_steps = 2
    config.compression.lambdas = (0.00005, 0.0002, 0.0008, 0.003)
    return config.lock()


def _with_compression_of(config: ConfigDict, data: dict) -> ConfigDict:
    """`AMORTISED` with the compression of another config, on fewer latents, for projection takes its time."""
    return make_config("vc_inr", data, {**AMORTISED, "compression": {**config.compression.to_dict(), "num_latents": 4000}})


def of_kind(name: str, kind: Kind) -> ConfigDict:
    """VC-INR on another kind of signal, sized for five minutes on two CPU cores: gates behind an analysis.

    Commands: `python -m experiments.prepare SET` for the sets of `configs/kinds.py`, then
    `python -m experiments.train --config=configs/vc_inr.py:demo_sound --workdir=runs/sound` and
    `python -m experiments.evaluate --workdir=runs/sound --out=runs/sound/rd.json`. Results: docs/modalities.md.
    """
    return make_config(
        "vc_inr",
        kind.data,
        {
            **kind.values(name),
            "field": {"num_layers": 4, "width": 48, "rank": 4, "hyper_width": 128, "hyper_depth": 2, **kind.field(name)},
            "adaptation": {"initial_step": 0.5, "subset": 256, "step_rate": 10.0, "projection_steps": 2},
            "amortised": {"enabled": True},
            # Signals of one set differ by tens of decibels, and so do the errors of healthy batches.
            "meta": {
                **GATES["meta"],
                "num_steps": kind.num_steps,
                "eval_every": 2000,
                "checkpoint_every": 2000,
                "collapse_db": 0.0,
            },
            "compression": {
                "lambdas": kind.lambdas,
                "width": 128,
                "num_latents": kind.num_latents,
                "offsets_per_picture": 1,
                "training": {
                    "num_steps": kind.bottleneck_steps,
                    "batch_size": 16,
                    "lr": 1e-3,
                    "average_decay": 0.99,
                    "eval_every": 200,
                    "checkpoint_every": 200,
                },
            },
            "encode_batch": 64,
            **kind.vc_inr,
        },
    )


VARIANTS = {
    "demo": demo,
    "cifar10": cifar10,
    "cifar10_small": cifar10_small,
    "cifar10_gates": cifar10_gates,
    "kodak": kodak,
    "kodak_gates": kodak_gates,
    "cifar10_amortised": cifar10_amortised,
    "kodak_amortised": kodak_amortised,
    "kodak_amortised_16": kodak_amortised_16,
    "kodak_paper": kodak_paper,
    "demo_gates": demo_gates,
    **demos(of_kind),
}


def get_config(name: str = "demo") -> ConfigDict:
    """The config of a variant, see its docstring."""
    return choose(VARIANTS, name)
