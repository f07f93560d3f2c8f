"""A sample of `python -m benchmarks.fuzz`: hostile files whose checksum is right, of every codec."""

from collections import Counter

import numpy as np
import pytest

from benchmarks import fuzz
from vcinr.bitstream import container
from vcinr.codecs import CODECS

CASES = 400
QUICK = {"coin", "contextual_inr", "functa", "klt", "mscn_per_signal", "strumpler_basic"}


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CODECS])
def test_a_signed_file_is_refused_or_is_written_again_as_it_was(name):
    *_, tally = fuzz.run(name, range(CASES), seed=1)
    assert tally.failed == []
    # Cases of both kinds, or nothing was tested.
    assert min(tally.outcomes[fuzz.REFUSED], tally.outcomes[fuzz.DECODED]) > CASES // 5


@pytest.fixture(scope="module")
def klt():
    model = fuzz.small_model("klt")
    return model, fuzz.valid_files(model)


def test_what_is_signed_is_what_an_encoder_writes(klt):
    model, files = klt
    for valid in files:
        assert fuzz.sign(model, valid.head, valid.payload) == model.write_codes(valid.point, valid.codes, valid.grids)


def test_a_case_depends_on_its_number_alone(klt):
    outcomes = [fuzz.run_case(*klt, (3, 0, number)) for number in range(40)]
    assert outcomes[17:] == [fuzz.run_case(*klt, (3, 0, number)) for number in range(17, 40)]
    assert len({data for _, data in outcomes}) > 25


def broken_decoder(model):
    read = model.read_codes

    def one_symbol_off(*arguments):
        point, codes, grids = read(*arguments)
        codes[0].streams["coefficients"][0] += 1
        return point, codes, grids

    return one_symbol_off


def run_cases(model, files):
    for number in range(100):
        fuzz.run_case(model, files, (0, number))


def test_faults_of_the_decoder_are_found(klt, monkeypatch):
    """Symbols that are not those of the file; an exception that is no BitstreamError; a checksum that nobody looks at."""
    model, files = klt
    with monkeypatch.context() as patch:
        patch.setattr(model, "read_codes", broken_decoder(model))
        with pytest.raises(fuzz.Wrong, match="written as other bytes"):
            run_cases(model, files)
    with monkeypatch.context() as patch:
        patch.setattr(model, "check_size", lambda shapes, max_pixels: np.zeros(shapes[0]).reshape(7, 11))
        with pytest.raises(ValueError, match="reshape"):
            run_cases(model, files)
    with monkeypatch.context() as patch:
        patch.setattr(container, "check", lambda frame, streams: None)
        patch.setattr(model, "fingerprints", dict.fromkeys(model.fingerprints, 0))
        found = Counter()
        for number in range(200):
            try:
                found[fuzz.run_case(model, files, (0, number))[0]] += 1
            except fuzz.Wrong:
                found["wrong"] += 1
        assert found["wrong"] > 0


def test_the_command_prints_outcomes_and_fails_where_a_case_does(capsys, monkeypatch):
    assert fuzz.main(["--cases", "30", "--codec", "klt"]) == 0
    printed = capsys.readouterr().out
    assert "30 cases" in printed
    assert "cases/s" in printed
    assert "GiB" in printed
    monkeypatch.setattr(fuzz, "run_case", lambda model, files, seed: 1 / 0)
    assert fuzz.main(["--cases", "30", "--codec", "klt", "--seed", "5"]) == 1
    assert "--codec klt --first 0 --cases 1 --seed 5: ZeroDivisionError" in capsys.readouterr().out
