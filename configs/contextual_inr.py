"""The codec of the bundled models: `--config=configs/contextual_inr.py:NAME`, NAME one of `VARIANTS`."""

from ml_collections import ConfigDict

from configs.base import choose, make_config

CAREFUL = {"batch_size": 16, "warmup_steps": 50, "clip_norm": 1.0, "average_decay": 0.999, "collapse_db": 3.0}
"""Training of the trunk: a longer warm-up than by default, gradient clipping, parameter averaging and a check for collapse."""


def tiny() -> ConfigDict:
    """Small pictures such as 32×32, in 8×8 patches; trained on 5,000 CIFAR-10 pictures.

    Command: `python -m experiments.prepare cifar10_small`, then
    `python -m experiments.train --config=configs/contextual_inr.py:tiny --workdir=runs/tiny --config.model_precision=float16`.
    Twenty minutes on one core. Test, 517 pictures: 0.41, 0.93, 1.85, 3.22 bpp of payload at 24.6, 28.5, 32.8, 37.6 dB.
    """
    return make_config(
        "contextual_inr",
        {"name": "cifar10_small"},
        {
            "patch": (8, 8),
            "field": {
                "num_layers": 3,
                "width": 32,
                "last_width": 96,
                "latent_dim": 192,
            },
            "warm_start": {"offsets_per_picture": 1, "training": {**CAREFUL, "num_steps": 200, "lr": 3e-3}},
            "meta": {"eval_every": 20, "checkpoint_every": 20},
            "compression": {
                "lambdas": (0.00015, 0.0003, 0.0006, 0.0012, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08),
                "crop": (32, 32),
                "groups": (1, 2, 3, 4, 6, 9, 12, 18, 24, 48, 96, 192),
                "width": 128,
                "synthesis_width": 384,
                "offsets_per_picture": 1,
                "num_latents": 10_000,
                "training": {
                    "num_steps": 5000,
                    "batch_size": 64,
                    "microbatch": 16,
                    "lr": 2e-3,
                    "average_decay": 0.999,
                    "eval_every": 250,
                    "checkpoint_every": 250,
                },
            },
            "encode_batch": 256,
        },
    )


def photo() -> ConfigDict:
    """Pictures of any size, in 16×16 patches; trained on the photographs of `$VCINR_DATA`.

    Command: `python -m experiments.prepare photos` and `python -m experiments.prepare kodak`, then
    `python -m experiments.train --config=configs/contextual_inr.py:photo --workdir=runs/photo --config.model_precision=float16`.
    Half an hour on one core. Kodak, 24 pictures: 0.10, 0.40, 0.93, 1.78 bpp of file at 25.7, 30.0, 34.0, 38.4 dB.
    """
    return make_config(
        "contextual_inr",
        {"name": "photos", "test_name": "kodak"},
        {
            "patch": (16, 16),
            "field": {
                "num_layers": 3,
                "width": 64,
                "last_width": 256,
                "latent_dim": 384,
            },
            "warm_start": {"offsets_per_picture": 1, "training": {**CAREFUL, "num_steps": 1500, "lr": 3e-3}},
            "meta": {"eval_every": 20, "checkpoint_every": 20},
            "compression": {
                "lambdas": (0.0001, 0.0003, 0.0008, 0.002, 0.004, 0.008, 0.016, 0.032, 0.06),
                "crop": (128, 128),
                "groups": (1, 2, 3, 4, 6, 9, 12, 18, 24, 36, 48, 96, 192, 384),
                "width": 128,
                "synthesis_width": 320,
                "offsets_per_picture": 4,
                "num_latents": 4000,
                "num_counted": 200,
                "training": {
                    "num_steps": 8000,
                    "batch_size": 8,
                    "microbatch": 4,
                    "lr": 2e-3,
                    "average_decay": 0.999,
                    "eval_every": 250,
                    "checkpoint_every": 250,
                },
            },
            "encode_batch": 256,
        },
    )


def speech() -> ConfigDict:
    """Speech at 16 kHz, in patches of 8 ms; trained on 103 recordings of `$VCINR_DATA`.

    Command: `python -m experiments.prepare speech`, then
    `python -m experiments.train --config=configs/contextual_inr.py:speech --workdir=runs/speech
    --config.model_precision=float16`.
    """
    return make_config(
        "contextual_inr",
        {"name": "speech"},
        {
            "modality": "sound",
            "patch": (128,),
            "field": {"coord_dim": 1, "channels": 1, "num_layers": 3, "width": 64, "last_width": 256, "latent_dim": 128},
            "warm_start": {"offsets_per_picture": 2, "training": {**CAREFUL, "num_steps": 1500, "lr": 3e-3}},
            "meta": {"eval_every": 20, "checkpoint_every": 20},
            "compression": {
                "lambdas": (0.002, 0.006, 0.02, 0.06, 0.2, 0.6, 2.0),
                "crop": (4096,),
                "groups": (1, 2, 3, 4, 6, 9, 12, 18, 24, 36, 48, 72, 96, 128),
                "width": 96,
                "synthesis_width": 256,
                "offsets_per_picture": 2,
                "num_latents": 4000,
                "training": {
                    "num_steps": 3000,
                    "batch_size": 8,
                    "lr": 2e-3,
                    "average_decay": 0.999,
                    "eval_every": 250,
                    "checkpoint_every": 250,
                },
            },
            "encode_batch": 256,
        },
    )


def temperature() -> ConfigDict:
    """Fields of a region, in patches of 8×8 cells; trained on 340 fields of ERA5 temperature of `$VCINR_DATA`.

    Command: `python -m experiments.prepare era5_region`, then
    `python -m experiments.train --config=configs/contextual_inr.py:temperature --workdir=runs/temperature
    --config.model_precision=float16`.
    """
    return make_config(
        "contextual_inr",
        {"name": "era5_region"},
        {
            "modality": "climate_region",
            "patch": (8, 8),
            "field": {"coord_dim": 2, "channels": 1, "num_layers": 3, "width": 64, "last_width": 128, "latent_dim": 64},
            "warm_start": {"offsets_per_picture": 4, "training": {**CAREFUL, "num_steps": 1000, "lr": 3e-3}},
            "meta": {"eval_every": 20, "checkpoint_every": 20},
            "compression": {
                "lambdas": (0.005, 0.015, 0.05, 0.15, 0.5, 1.5, 5.0),
                "crop": (40, 48),
                "groups": (1, 2, 3, 4, 6, 9, 12, 18, 24, 36, 48, 64),
                "width": 64,
                "synthesis_width": 128,
                "offsets_per_picture": 4,
                "num_latents": 2000,
                "training": {
                    "num_steps": 3000,
                    "batch_size": 16,
                    "lr": 2e-3,
                    "average_decay": 0.999,
                    "eval_every": 250,
                    "checkpoint_every": 250,
                },
            },
            "encode_batch": 256,
        },
    )


VARIANTS = {"tiny": tiny, "photo": photo, "speech": speech, "temperature": temperature}


def get_config(name: str = "tiny") -> ConfigDict:
    """The config of a variant, see its docstring."""
    return choose(VARIANTS, name)
