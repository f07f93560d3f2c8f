"""Studies: written with their provenance, read back, rendered; what is no study is named."""

import json

import pytest

from vcinr.report.studies import KEYS, load_studies, save_study, study_section, study_table


def saved(folder, **about):
    given = {
        "title": "Does it help?",
        "about": "Asked of three seeds.",
        "columns": ["size", "PSNR dB", "steps"],
        "rows": [["small", 21.254, 100], ["large", None, 200]],
        "command": "python -m experiments.nothing --out=DIR",
        "duration_s": 12.34,
        "figures": ["help.png"],
    }
    return save_study(folder / "help.json", **{**given, **about})


def test_what_is_saved_is_what_is_loaded(tmp_path):
    written = saved(tmp_path, notes="It does not.")
    assert load_studies(tmp_path) == [written]
    assert set(written) == set(KEYS)
    assert len(written["date"]) == 10 and written["versions"]["jax"]


def test_the_section_shows_every_cell_and_where_it_comes_from(tmp_path):
    study = saved(tmp_path, notes="It does not.")
    assert study_table(study).splitlines() == [
        "| size | PSNR dB | steps |",
        "|---|--:|--:|",
        "| small | 21.25 | 100 |",
        "| large | – | 200 |",
    ]
    section = study_section(study, "results/studies")
    for text in (
        "## Does it help?",
        "Asked of three seeds.",
        "It does not.",
        study["commit"],
        "![Does it help?](results/studies/help.png)",
    ):
        assert text in section


def test_a_row_that_does_not_fit_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="2 cells for 3 columns"):
        saved(tmp_path, rows=[["small", 1.0]])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["{", json.dumps({"title": "x"})])
def test_another_file_is_named(tmp_path, text):
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(ValueError, match=r"other\.json"):
        load_studies(tmp_path)


def test_no_folder_holds_no_studies(tmp_path):
    assert load_studies(tmp_path / "nowhere") == []
