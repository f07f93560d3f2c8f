"""Which field, adaptation, quantiser and entropy coder go together: the one table, with the config that composes each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Combination:
    """One way through the corridor.

    field, adaptation, quantiser, coder: in the field's own words.   codec: key of `CODECS`.   config: its overrides, nested.
    refused: empty for a valid combination; else the words of the error that refuses it, which say why.
    """

    field: str
    adaptation: str
    quantiser: str
    coder: str
    codec: str
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    refused: str = ""


HISTOGRAM, PRIOR = "histogram of training symbols", "deep factorized prior"
UNIFORM, NOISE = "uniform, mean ± kσ", "noise in training, rounding"
RATE_DISTORTION, CONTEXT = "rate–distortion rounding", "context prior in whole numbers"
FIXED, META_SGD = "MAML, fixed step", "Meta-SGD"
PRUNED = "MAML, magnitude pruning"

VARIATIONAL, CONTEXTUAL = {"kind": "variational"}, {"kind": "contextual"}
_FIXED = {"step_sizes": "fixed"}
_UPDATE = {"field": {"modulation": "weight_update"}}


def _gated(apply: str, **more: Any) -> dict[str, Any]:
    return {"gates": {"apply": apply, **more}}


COMBINATIONS: tuple[Combination, ...] = (
    Combination("principal components", "projection", "uniform with a dead zone", HISTOGRAM, "klt"),
    Combination("SIREN, all weights", "Adam", "float16", "raw", "coin"),
    Combination("linear latent → shifts", FIXED, UNIFORM, HISTOGRAM, "coinpp"),
    Combination("linear latent → shifts", FIXED, NOISE, PRIOR, "coinpp", {"compression": VARIATIONAL}),
    Combination(
        "SIREN, shared", FIXED, UNIFORM, HISTOGRAM, "coinpp", {"field": {"modulation": "none"}}, refused="changes nothing"
    ),
    Combination("linear latent → shifts", META_SGD, UNIFORM, HISTOGRAM, "functa"),
    Combination("linear latent → shifts", META_SGD, NOISE, PRIOR, "functa", {"compression": VARIATIONAL}),
    Combination("low-rank gates", META_SGD, NOISE, PRIOR, "vc_inr"),
    Combination("low-rank gates", META_SGD, UNIFORM, HISTOGRAM, "vc_inr", {"compression": {"kind": "uniform"}}),
    Combination("low-rank gates", FIXED, NOISE, PRIOR, "vc_inr", {"adaptation": _FIXED}),
    Combination("low-rank gates", META_SGD, RATE_DISTORTION, CONTEXT, "vc_inr", {"compression": CONTEXTUAL}),
    Combination("linear head", META_SGD, RATE_DISTORTION, CONTEXT, "contextual_inr"),
    Combination(
        "low-rank gates, linear head",
        META_SGD,
        RATE_DISTORTION,
        CONTEXT,
        "contextual_inr",
        {"field": {"modulation": "low_rank_gates"}},
        refused="the field of contextual_inr is linear",
    ),
    Combination("linear latent → shifts", META_SGD, RATE_DISTORTION, CONTEXT, "functa", {"compression": CONTEXTUAL}),
    Combination(
        "weight update, pruned",
        PRUNED,
        RATE_DISTORTION,
        CONTEXT,
        "meta_sparse_inr",
        {"compression": CONTEXTUAL},
        refused="has no kind 'contextual'",
    ),
    Combination(
        "weight update, pruned", PRUNED, UNIFORM, "one histogram", "meta_sparse_inr", {"compression": {"one_table": True}}
    ),
    Combination("weight update, pruned", PRUNED, NOISE, PRIOR, "meta_sparse_inr", {"compression": VARIATIONAL}),
    Combination("weight update, gated steps", f"{META_SGD}, L0 gates", UNIFORM, HISTOGRAM, "mscn_unstructured"),
    Combination(
        "weight update, gated steps", f"{FIXED}, L0 gates", UNIFORM, HISTOGRAM, "mscn_unstructured", {"adaptation": _FIXED}
    ),
    Combination(
        "weight update, gated steps", f"{META_SGD}, L0 gates", NOISE, PRIOR, "mscn_unstructured", {"compression": VARIATIONAL}
    ),
    Combination("gated weights", f"{META_SGD}, L0 gates", UNIFORM, HISTOGRAM, "mscn_unstructured", _gated("weights")),
    Combination(
        "gated units", f"{META_SGD}, L0 gates", UNIFORM, HISTOGRAM, "mscn_unstructured", _gated("activations", target=0.5)
    ),
    Combination("gated shifts", f"{META_SGD}, L0 gates", UNIFORM, HISTOGRAM, "mscn_structured"),
    Combination("gated shifts", f"{FIXED}, L0 gates", UNIFORM, HISTOGRAM, "mscn_structured", {"adaptation": _FIXED}),
    Combination("gated shifts", f"{META_SGD}, L0 gates", NOISE, PRIOR, "mscn_structured", {"compression": VARIATIONAL}),
    Combination(
        "gated shifts, a pattern per signal",
        f"{META_SGD}, L0 gates adapted",
        UNIFORM,
        "histogram; a bit per gate",
        "mscn_per_signal",
    ),
    Combination(
        "weight update, gated steps, a pattern per signal",
        f"{META_SGD}, L0 gates adapted",
        UNIFORM,
        "histogram; a bit per gate",
        "mscn_per_signal",
        {**_gated("update"), **_UPDATE},
    ),
    Combination(
        "gated shifts, a pattern per signal",
        f"{META_SGD}, L0 gates adapted",
        NOISE,
        PRIOR,
        "mscn_per_signal",
        {"compression": VARIATIONAL},
        refused="mscn_per_signal needs compression.kind",
    ),
    Combination(
        "gated weights, a pattern per signal",
        f"{META_SGD}, L0 gates adapted",
        UNIFORM,
        HISTOGRAM,
        "mscn_per_signal",
        {**_gated("weights"), **_UPDATE},
        refused="mscn_per_signal needs gates.apply",
    ),
    Combination(
        "low-rank gates, gated units",
        f"{META_SGD}, L0 gates",
        UNIFORM,
        HISTOGRAM,
        "mscn_unstructured",
        {**_gated("activations"), "field": {"modulation": "low_rank_gates"}},
        refused="gates on activations",
    ),
    Combination(
        "SIREN, NeRF encoding, all weights", "Adam, L1", "symmetric, AdaRound, QAT", "tables of the file", "strumpler_basic"
    ),
    Combination(
        "ReLU, Gaussian encoding, all weights",
        "Adam, L1",
        "symmetric, AdaRound, QAT",
        "tables of the file",
        "strumpler_basic",
        {"encoding": "gaussian", "activation": "relu"},
    ),
    Combination(
        "weight update, NeRF encoding", "MAML, then Adam, L1", "symmetric, AdaRound, QAT", "tables of the file", "strumpler_meta"
    ),
    Combination(
        "SIREN, geometric encoding, all weights random",
        "posterior by β-ELBO",
        "none: a sample",
        "A* coding",
        "combiner",
        {"field": {"num_layers": 2, "width": 4, "latent_dim": 1, "num_frequencies": 2}},
    ),
    Combination(
        "SIREN, weights A h and positional encoding random",
        "posterior by β-ELBO",
        "none: a sample",
        "A* coding",
        "combiner_plus",
        {
            "field": {"num_layers": 2, "width": 4, "latent_dim": 1, "num_frequencies": 2},
            "positional": {"channels": 2, "stride": 2, "widths": (2,), "outputs": 2},
        },
    ),
    Combination(
        "SIREN, all weights random",
        "posterior by β-ELBO",
        "none: a sample",
        "minimal random coding",
        "combiner",
        {"field": {"encoding": "none", "num_layers": 2, "width": 4}, "coding": {"method": "minimal_random"}},
    ),
    Combination(
        "low-rank gates, all weights random",
        "posterior by β-ELBO",
        "none: a sample",
        "A* coding",
        "combiner",
        {"field": {"modulation": "low_rank_gates"}},
        refused='field.modulation is "none"',
    ),
)
