"""The command line as a program: how it starts, what it shows meanwhile, and what it keeps for the next start."""

import os
import subprocess
import sys

from PIL import Image

import vcinr
from vcinr.cli import main as cli


def start(program, *words, **environment):
    command = [sys.executable, "-c", program, *map(str, words)]
    foreign = {"VCINR_CACHE", "VCINR_MODELS", "OPENBLAS_NUM_THREADS"}
    inherited = {name: value for name, value in os.environ.items() if name not in foreign}
    return subprocess.run(command, env=inherited | environment, capture_output=True, text=True, timeout=300)


def test_help_and_info_answer_without_jax(klt_model_dir, picture, tmp_path):
    (tmp_path / "file").write_bytes(vcinr.load(klt_model_dir).encode(picture))
    program = """
import contextlib, sys
import vcinr.cli.main
with contextlib.suppress(SystemExit):
    vcinr.cli.main.main(["--help"])
assert vcinr.cli.main.main(["info", sys.argv[1]]) == 0
assert vcinr.cli.main.main(["info", sys.argv[1], "--max-pixels", "1"]) == 1
assert {"jax", "rich", "PIL"}.isdisjoint(sys.modules), "slow to start"
assert callable(vcinr.load) and "jax" in sys.modules and "load" in dir(vcinr)
try:
    vcinr.lode
except AttributeError as error:
    assert "lode" in str(error)
"""
    done = start(program, tmp_path / "file")
    assert done.returncode == 0, done.stderr
    assert "encode" in done.stdout and "37×50" in done.stdout


HEAVY = {"jax", "flax", "matplotlib", "scipy", "tensorflow_datasets", "rich"}
REFUSED = """
import sys, time
started = time.perf_counter()
import vcinr.cli.main
status = vcinr.cli.main.main(sys.argv[1:])
print(f"{time.perf_counter() - started:.3f}", status, *sys.modules)
"""


def test_input_that_is_no_signal_is_refused_before_anything_heavy_is_imported(klt_model_dir, tmp_path, record_property):
    (tmp_path / "no.png").write_text("no picture")
    (tmp_path / "no.vcinr").write_text("no file of ours")
    model = ["--model", klt_model_dir]
    for words, complaint in [
        (["encode", tmp_path / "no.png", tmp_path / "file", *model], "no.png: not a picture"),
        (["encode", tmp_path / "no.png", tmp_path / "file", "--model", "coin"], "no.png: not a picture"),
        (["encode", tmp_path / "none.png", tmp_path / "file"], "none.png: No such file"),
        (["decode", tmp_path / "no.vcinr", tmp_path / "out.png", *model], "no.vcinr: not a vcinr file"),
        (["decode", tmp_path / "no.vcinr", tmp_path / "out.txt", *model], "no.vcinr: not a vcinr file"),
        (["decode", tmp_path / "none.vcinr", tmp_path / "out"], "none.vcinr: No such file"),
    ]:
        done = start(REFUSED, *words)
        seconds, status, *modules = done.stdout.split()
        assert status == "1" and complaint in done.stderr
        assert HEAVY.isdisjoint(modules)
        record_property(f"seconds until: {complaint}", seconds)
        print(f"{seconds} s until: {complaint}")


def test_a_reader_that_leaves_ends_the_command_quietly(klt_model_dir):
    program = "import sys, vcinr.cli.main; sys.exit(vcinr.cli.main.main(sys.argv[1:]))"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    for words in (["models", klt_model_dir], ["--help"]):
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, "-c", program, *map(str, words)]
        done = subprocess.run(command, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=300)
        os.close(writer)
        assert (done.returncode, done.stderr) == (cli.READER_LEFT, "")


CACHED = """
import sys, jax
import vcinr.cli.main
counts = {"/jax/compilation_cache/cache_hits": 0, "/jax/compilation_cache/cache_misses": 0}
def count(event, **_):
    if event in counts:
        counts[event] += 1
jax.monitoring.register_event_listener(count)
status = vcinr.cli.main.main(sys.argv[1:])
print(status, *counts.values())
"""


def test_a_second_process_finds_compiled_programs(klt_model_dir, picture, tmp_path):
    Image.fromarray(picture).save(tmp_path / "in.png")
    words = ["encode", tmp_path / "in.png", tmp_path / "file", "--model", klt_model_dir, "--verify"]
    home, moved = tmp_path / "home", tmp_path / "moved"
    said = [start(CACHED, *words, XDG_CACHE_HOME=str(home)) for _ in range(2)]
    assert [done.stderr for done in said] == ["", ""]
    assert [done.stdout.splitlines()[-1] for done in said] == ["0 0 2", "0 2 0"]
    assert said[0].stdout.splitlines()[:-1] == said[1].stdout.splitlines()[:-1]
    assert any((home / "vcinr" / "jax").iterdir())
    done = start(CACHED, *words, XDG_CACHE_HOME=str(tmp_path / "not"), VCINR_CACHE=str(moved))
    assert (done.stdout.splitlines()[-1], done.stderr) == ("0 0 2", "")
    assert any(moved.iterdir()) and not (tmp_path / "not").exists()
    done = start(CACHED, *words, XDG_CACHE_HOME=str(tmp_path / "not"), VCINR_CACHE="")
    assert done.stdout.startswith(str(tmp_path)) and done.returncode == 0
    assert not (tmp_path / "not").exists()


def test_a_picture_is_encoded_by_a_bundled_model_with_few_imports_and_no_program(picture, tmp_path):
    Image.fromarray(picture).save(tmp_path / "in.png")
    program = """
import os, sys
import vcinr.cli
assert "numpy" not in sys.modules, "OpenBLAS has chosen its threads before the command line could"
import jax, vcinr.cli.main
compiled = []
def count(event, seconds, **_):
    if "backend_compile" in event:
        compiled.append(event)
jax.monitoring.register_event_duration_secs_listener(count)
assert vcinr.cli.main.main(["encode", *sys.argv[1:], "--model", "tiny"]) == 0
heavy = {"scipy", "matplotlib", "orbax", "tensorflow"}
print(os.environ["OPENBLAS_NUM_THREADS"], len(compiled), sorted(heavy & set(sys.modules)))
print(sorted(name for name in sys.modules if name.startswith("vcinr.codecs.")))
print(vcinr.cli.main.main(["decode", sys.argv[2], sys.argv[1]]), len(compiled) > 0)
"""
    done = start(program, tmp_path / "in.png", tmp_path / "file", VCINR_CACHE="")
    assert (done.returncode, done.stderr) == (0, "")
    _, imported, codecs, decoded = done.stdout.splitlines()
    assert imported == "1 0 []"
    assert codecs == str([f"vcinr.codecs.{name}" for name in ("contextual_inr", "latent_codec", "linear_start")])
    assert decoded == "0 True"


def test_progress_is_shown_where_someone_looks(klt_model_dir, picture, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VCINR_CACHE", "")
    monkeypatch.setattr("vcinr.cli.files.GROUP_SAMPLES", picture.size // 3)
    for name in "abc":
        Image.fromarray(picture).save(f"{name}.png")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert cli.main(["encode", "a.png", "b.png", "c.png", "--out", "files", "--model", str(klt_model_dir)]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["a.png", "b.png", "c.png"]
    assert "encoding" in err and "100%" in err


def test_the_module_runs_as_a_program_and_reports_its_status(tmp_path):
    (tmp_path / "foreign").write_text("no file of ours")
    command = [sys.executable, "-m", "vcinr", "info", str(tmp_path / "foreign")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"vcinr: {tmp_path / 'foreign'}: not a vcinr file: it does not begin with the magic number\n"
    version = subprocess.run([*command[:3], "--version"], capture_output=True, text=True, timeout=300)
    assert version.stdout == f"vcinr {vcinr.__version__}\n"
