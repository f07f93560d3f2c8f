"""The commit that numbers come from: of the checkout that the code lies in, changes told, results no change."""

import subprocess

from vcinr import provenance


def test_changes_count_and_results_do_not(tmp_path, monkeypatch):
    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True, text=True).stdout

    package = tmp_path / "vcinr"
    package.mkdir()
    (package / "provenance.py").write_text("1")
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    assert provenance.git_revision() is None
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message=one")
    commit = git("rev-parse", "HEAD").strip()
    assert provenance.git_revision() == commit
    (tmp_path / "docs" / "results").mkdir(parents=True)
    (tmp_path / "docs" / "results" / "a.json").write_text("{}")
    (tmp_path / "docs" / "results.md").write_text("a page")
    assert provenance.git_revision() == provenance.provenance()["commit"] == commit
    (package / "provenance.py").write_text("2")
    assert provenance.git_revision() == f"{commit}+changes"
