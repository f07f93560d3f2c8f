"""What is declared is what is needed, and what is built works where there is no checkout."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import wave
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

from tests.tiny import hand_made

ROOT = Path(__file__).parent.parent


def declared():
    """setup.py's literals: its lists of requirements and its version."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    values = {node.targets[0].id: ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)}
    call = next(node.value for node in tree.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))
    values["version"] = next(ast.literal_eval(item.value) for item in call.keywords if item.arg == "version")
    return values


def pins():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def imported(path):
    """Top-level names of the modules that a file imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


def test_every_requirement_is_pinned_within_its_range():
    pinned = {canonicalize_name(pin.name): str(pin.specifier) for pin in pins()}
    groups = declared()
    for text in sum(groups["EXTRAS"].values(), groups["REQUIRES"]):
        requirement = Requirement(text)
        if requirement.name == "vcinr":
            assert requirement.extras <= set(groups["EXTRAS"])
            continue
        version = pinned.get(canonicalize_name(requirement.name), "")
        assert re.fullmatch(r"==[^*]+", version), f"constraints.txt does not pin {requirement.name}"
        assert requirement.specifier.contains(version[2:]), f"{text} excludes the pinned {version}"
        assert not requirement.specifier.contains("0.0"), f"{text} has no lower bound"


def test_every_pin_is_exact_and_given_once():
    assert [str(pin) for pin in pins() if not re.fullmatch(r"==[^*]+", str(pin.specifier))] == []
    names = [canonicalize_name(pin.name) for pin in pins()]
    assert sorted(set(names)) == sorted(names)


def test_every_import_is_declared():
    """Nothing works only because something else happens to install it."""
    groups = declared()
    allowed = {canonicalize_name(Requirement(text).name) for text in groups["REQUIRES"]}
    own = set(sys.stdlib_module_names) | {"vcinr", "experiments", "configs", "benchmarks", "__future__"}
    providers = packages_distributions()
    for room in ("vcinr", "experiments", "configs", "benchmarks"):
        optional = {"tensorflow"} if room == "experiments" else set()
        if room == "vcinr":
            extras = ("sound", "video", "climate", "scanner", "compare")
            names = {canonicalize_name(Requirement(text).name) for extra in extras for text in groups["EXTRAS"][extra]}
            optional |= {name for name, found in providers.items() if {canonicalize_name(each) for each in found} & names}
        for path in sorted((ROOT / room).rglob("*.py")):
            for name in set(imported(path)) - own - optional:
                distributions = {canonicalize_name(each) for each in providers.get(name, [])}
                assert distributions & allowed, f"{path.relative_to(ROOT)} imports {name}, which setup.py does not declare"


def test_readers_of_other_kinds_of_signal_are_imported_when_they_are_used():
    heavy = ("soundfile", "av", "xarray", "netCDF4", "zarr", "nibabel", "zfpy", "PIL", "skimage")
    code = f"import sys, vcinr, vcinr.cli.main; print(*(name for name in {heavy} if name in sys.modules))"
    assert checked(sys.executable, "-c", code, cwd=ROOT).split() == []


def test_version_is_the_same_everywhere():
    text = (ROOT / "vcinr" / "__init__.py").read_text(encoding="utf-8")
    assert f'__version__ = "{declared()["version"]}"' in text


def test_citation_is_readable_and_current():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert str(citation["version"]) == declared()["version"]
    assert citation["license"] == "Apache-2.0"


def test_continuous_integration_is_executable():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("JAX=cuda11", "JAX=cuda11 is unknown; valid: cpu, cuda12, cuda13"),
        ("PYTHON=no-such-python", "needs Python 3.11 or newer; 'no-such-python' is not a working Python"),
        ("PYTHON=./old", "needs Python 3.11 or newer; './old' is Python 3.9"),
    ],
)
def test_setup_names_what_is_wrong_before_it_makes_anything(tmp_path, setting, complaint):
    for each in ("Makefile", "setup.py", "constraints.txt"):
        shutil.copy(ROOT / each, tmp_path)
    old = tmp_path / "old"
    old.write_text('#!/bin/sh\ncase "$2" in *print*) echo 3.9;; *) exit 1;; esac\n')
    old.chmod(0o755)
    done = run("make", "demo", setting, cwd=tmp_path)
    assert done.returncode != 0
    assert complaint in done.stderr
    assert not (tmp_path / ".venv").exists()


def run(*command, cwd):
    """A program that knows nothing of this checkout, of its environment, or of the make that may have started the tests."""
    foreign = {"PYTHONPATH", "VIRTUAL_ENV", "MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "MAKELEVEL", "PYTHON", "JAX"}
    environment = {name: value for name, value in os.environ.items() if name not in foreign}
    return subprocess.run([str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=900)


def checked(*command, cwd):
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A copy of the package's sources, since building writes beside them, with one more bundled model."""
    folder = tmp_path_factory.mktemp("sources")
    shutil.copytree(ROOT / "vcinr", folder / "vcinr", ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    hand_made().save(folder / "vcinr" / "models" / "grey")
    (folder / "vcinr" / "models" / "grey" / "README.md").write_text("# grey")
    return folder


def bundled(folder):
    """Files of the models in a copy of the sources, as paths inside it."""
    found = {path.relative_to(folder).as_posix() for path in (folder / "vcinr" / "models").rglob("*") if path.is_file()}
    names = ("model.json", "shared.safetensors", "point_0.safetensors", "README.md")
    assert {f"vcinr/models/grey/{name}" for name in names} <= found
    return found


@pytest.fixture(scope="module")
def distributions(sources, tmp_path_factory):
    """Names of the files in (the source distribution, the wheel)."""
    folder = tmp_path_factory.mktemp("distributions")
    checked(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, sources, cwd=folder)
    (source,), (wheel,) = folder.glob("vcinr-*.tar.gz"), folder.glob("vcinr-*.whl")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        return names, set(archive.namelist())


def test_both_distributions_bring_the_bundled_models(sources, distributions):
    source, wheel = distributions
    assert bundled(sources) <= source
    assert bundled(sources) == {name for name in wheel if name.startswith("vcinr/models/")}


def test_both_distributions_bring_the_table_of_quantiles(distributions):
    """Files of COMBINER decode by it alone."""
    for names in distributions:
        assert "vcinr/posterior/normal_quantiles.npy" in names


@pytest.fixture(scope="module")
def installed(tmp_path_factory, sources):
    """The commands of a clean virtual environment that the built wheel is installed in."""
    folder = tmp_path_factory.mktemp("wheel")
    reach = run(
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "1", "--dest", folder / "probe",
        "iniconfig", cwd=folder,
    )  # fmt: skip
    if reach.returncode:
        pytest.skip("no package index can be reached, so no clean environment can be filled")
    # The wheel is made from the source distribution, so both are tried.
    checked(sys.executable, "-m", "build", "--outdir", folder / "dist", sources, cwd=folder)
    (wheel,) = (folder / "dist").glob("vcinr-*.whl")
    checked(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    checked(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel, cwd=folder)
    return folder / "venv" / "bin"


@pytest.mark.slow
def test_wheel_brings_the_library_and_nothing_else(installed, sources, tmp_path):
    listing = checked(
        installed / "python", "-c",
        "from importlib.metadata import files; print(*[f for f in files('vcinr') if f.suffix != '.pyc'], sep='\\n')",
        cwd=tmp_path,
    ).splitlines()  # fmt: skip
    inside = {line for line in listing if line.startswith("vcinr/")}
    expected = {str(path.relative_to(sources)) for path in (sources / "vcinr").rglob("*.py")}
    expected |= {str(path.relative_to(sources)) for path in (sources / "vcinr" / "evaluation" / "published").glob("*.json")}
    assert expected | bundled(sources) | {"vcinr/py.typed"} <= inside
    others = {line.split("/")[0] for line in listing} - {"vcinr", ".."}
    assert all(name.startswith("vcinr-") for name in others), others


@pytest.mark.slow
def test_installed_command_encodes_and_decodes(installed, klt_model_dir, picture, tmp_path):
    vcinr = installed / "vcinr"
    Image.fromarray(picture).save(tmp_path / "in.png")
    where = checked(installed / "python", "-c", "import vcinr; print(vcinr.__file__)", cwd=tmp_path)
    assert where.startswith(str(installed.parent))
    assert "encode" in checked(vcinr, "--help", cwd=tmp_path)
    assert "klt" in checked(vcinr, "models", klt_model_dir, cwd=tmp_path)
    checked(vcinr, "encode", "in.png", "file.vcinr", "--model", klt_model_dir, "--point", "2", cwd=tmp_path)
    assert "37" in checked(vcinr, "info", "file.vcinr", cwd=tmp_path)
    checked(vcinr, "decode", "file.vcinr", "out.png", "--model", klt_model_dir, cwd=tmp_path)
    decoded = np.asarray(Image.open(tmp_path / "out.png"))
    assert decoded.shape == picture.shape
    error = np.mean((decoded.astype(float) - picture) ** 2)
    assert 10 * np.log10(255**2 / error) > 32
    assert (tmp_path / "file.vcinr").stat().st_size < picture.nbytes / 4


@pytest.mark.slow
def test_installed_command_has_the_bundled_models_at_hand(installed, sources, picture, tmp_path):
    vcinr = installed / "vcinr"
    Image.fromarray(picture).save(tmp_path / "in.png")
    listed = [line.split("│")[1].strip() for line in checked(vcinr, "models", cwd=tmp_path).splitlines() if line.startswith("│")]
    models = {path.parent.name for path in (sources / "vcinr" / "models").glob("*/model.json")}
    assert models | {"coin"} <= set(listed)
    for name in models - {"speech", "temperature"}:
        checked(vcinr, "encode", "in.png", f"{name}.vcinr", "--model", name, cwd=tmp_path)
        checked(vcinr, "decode", f"{name}.vcinr", f"{name}.png", cwd=tmp_path)
        checked(installed / "python", "-c", f"import vcinr; assert vcinr.load({name!r}).num_bytes", cwd=tmp_path)
        assert Image.open(tmp_path / f"{name}.png").size == Image.open(tmp_path / "in.png").size
    with wave.open(str(tmp_path / "talk.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 2000, "NONE", ""))
        file.writeframes(np.round(3000 * np.sin(np.arange(2000) / 9)).astype("<i2").tobytes())
    refused = run(vcinr, "encode", "talk.wav", "talk.vcinr", cwd=tmp_path)
    assert refused.returncode == 1 and "pip install 'vcinr[sound]'" in refused.stderr
    checked(
        installed / "python", "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", "soundfile", cwd=tmp_path
    )  # fmt: skip
    checked(vcinr, "encode", "talk.wav", "talk.vcinr", cwd=tmp_path)
    checked(vcinr, "decode", "talk.vcinr", "back.wav", cwd=tmp_path)
    with wave.open(str(tmp_path / "back.wav"), "rb") as file:
        assert (file.getnframes(), file.getframerate()) == (2000, 16000)
    checked(installed / "python", "-c", FIELD, cwd=tmp_path)
    checked(vcinr, "encode", "field.npz", "field.vcinr", "--modality", "climate_region", cwd=tmp_path)
    checked(vcinr, "decode", "field.vcinr", "back.npz", cwd=tmp_path)


FIELD = """
import numpy as np
from vcinr.modalities import MODALITIES
from vcinr.modalities.climate import ClimateField

values = np.add.outer(np.arange(9.0), np.arange(12.0)).astype(np.float32)
MODALITIES["climate_region"].write("field.npz", ClimateField(values, 40 + np.arange(9.0), 5 + np.arange(12.0)))
"""
