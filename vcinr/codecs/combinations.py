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

_FIXED = {"step_sizes": "fixed"}
_PER_SIGNAL = {"adapt_gates": True}


def _gated(apply: str, **more: Any) -> dict[str, Any]:
    return {"gates": {"apply": apply, **more}}


COMBINATIONS: tuple[Combination, ...] = (
    Combination("principal components", "projection", "uniform with a dead zone", HISTOGRAM, "klt"),
    Combination("SIREN, all weights", "Adam", "float16", "raw", "coin"),
    Combination("linear latent → shifts", FIXED, UNIFORM, HISTOGRAM, "coinpp"),
    Combination("linear latent → shifts", FIXED, NOISE, PRIOR, "coinpp", {"compression": "variational"}),
    Combination(
        "SIREN, shared", FIXED, UNIFORM, HISTOGRAM, "coinpp", {"field": {"modulation": "none"}}, refused="change nothing"
    ),
    Combination("linear latent → shifts", META_SGD, UNIFORM, HISTOGRAM, "functa"),
    Combination("linear latent → shifts", META_SGD, NOISE, PRIOR, "functa", {"compression": "variational"}),
    Combination("low-rank gates", META_SGD, NOISE, PRIOR, "vc_inr"),
    Combination("low-rank gates", META_SGD, UNIFORM, HISTOGRAM, "vc_inr", {"compression": "uniform"}),
    Combination("low-rank gates", FIXED, NOISE, PRIOR, "vc_inr", {"adaptation": _FIXED}),
    Combination("low-rank gates", META_SGD, RATE_DISTORTION, CONTEXT, "vc_inr", {"compression": "contextual"}),
    Combination(
        "linear head",
        META_SGD,
        RATE_DISTORTION,
        CONTEXT,
        "vc_inr",
        {"compression": "contextual", "field": {"modulation": "none", "linear_head": True}},
    ),
    Combination("linear latent → shifts", META_SGD, RATE_DISTORTION, CONTEXT, "functa", {"compression": "contextual"}),
    Combination(
        "weight update, pruned",
        PRUNED,
        RATE_DISTORTION,
        CONTEXT,
        "meta_sparse_inr",
        {"compression": "contextual", "contextual": {"groups": (1, 81)}},
        refused="some are left out",
    ),
    Combination("weight update, pruned", PRUNED, UNIFORM, "one histogram", "meta_sparse_inr", {"uniform": {"one_table": True}}),
    Combination("weight update, pruned", PRUNED, NOISE, PRIOR, "meta_sparse_inr", {"compression": "variational"}),
    Combination("weight update, gated steps", f"{META_SGD}, L0 gates", UNIFORM, HISTOGRAM, "mscn_unstructured"),
    Combination(
        "weight update, gated steps", f"{FIXED}, L0 gates", UNIFORM, HISTOGRAM, "mscn_unstructured", {"adaptation": _FIXED}
    ),
    Combination(
        "weight update, gated steps", f"{META_SGD}, L0 gates", NOISE, PRIOR, "mscn_unstructured", {"compression": "variational"}
    ),
    Combination("gated weights", f"{META_SGD}, L0 gates", UNIFORM, HISTOGRAM, "mscn_unstructured", _gated("weights")),
    Combination(
        "gated units", f"{META_SGD}, L0 gates", UNIFORM, HISTOGRAM, "mscn_unstructured", _gated("activations", target=0.5)
    ),
    Combination("gated shifts", f"{META_SGD}, L0 gates", UNIFORM, HISTOGRAM, "mscn_structured"),
    Combination("gated shifts", f"{FIXED}, L0 gates", UNIFORM, HISTOGRAM, "mscn_structured", {"adaptation": _FIXED}),
    Combination("gated shifts", f"{META_SGD}, L0 gates", NOISE, PRIOR, "mscn_structured", {"compression": "variational"}),
    Combination(
        "gated shifts, a pattern a signal",
        f"{META_SGD}, L0 gates adapted",
        UNIFORM,
        "histogram; a bit a gate",
        "mscn_structured",
        _gated("modulation", **_PER_SIGNAL),
    ),
    Combination(
        "weight update, gated steps, a pattern a signal",
        f"{META_SGD}, L0 gates adapted",
        UNIFORM,
        "histogram; a bit a gate",
        "mscn_unstructured",
        _gated("update", **_PER_SIGNAL),
    ),
    Combination(
        "gated shifts, a pattern a signal",
        f"{META_SGD}, L0 gates adapted",
        NOISE,
        PRIOR,
        "mscn_structured",
        {**_gated("modulation", **_PER_SIGNAL), "compression": "variational"},
        refused="adapt_gates",
    ),
    Combination(
        "gated weights, a pattern a signal",
        f"{META_SGD}, L0 gates adapted",
        UNIFORM,
        HISTOGRAM,
        "mscn_unstructured",
        _gated("weights", **_PER_SIGNAL),
        refused="adapt_gates",
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
)
