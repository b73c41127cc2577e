"""Which part may import which: the layers of the package, as one table that is held against every file."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import nucleate

ROOT = Path(nucleate.__file__).parent

ALLOWED = {
    "sentences": set(),
    "version": set(),
    "errors": set(),
    "signals": set(),
    "out_of_memory": {"errors"},
    "code_folder": set(),
    "compilation": {"errors", "code_folder"},
    "types": set(),
    "parallel": {"errors", "signals"},
    "losses": {"errors", "code_folder", "compilation", "parallel"},
    "io": {"types", "errors"},
    "postprocess.matching": {"types", "errors"},
    "postprocess.scores": {"errors", "postprocess.matching"},
    "postprocess": {"types", "errors", "compilation", "postprocess.matching"},
    "data": {"types", "errors", "io", "postprocess", "parallel"},
    "networks": {"version", "types", "errors", "losses", "io", "data"},
    "report.overlay": {"types", "io", "data"},
    "inference": {
        *("version", "types", "errors", "losses", "io", "postprocess", "data", "networks", "report.overlay"),
        "parallel",
    },
    "evaluation": {"types", "errors", "io", "postprocess.matching", "postprocess.scores", "postprocess", "data"},
    "training": {
        *("version", "types", "errors", "losses", "io", "postprocess.matching", "postprocess.scores"),
        *("postprocess", "data", "networks", "inference", "parallel", "signals"),
    },
    "curves": {"errors", "io", "training"},
    "report.heartbeat": set(),
    "report": {
        *("types", "errors", "io", "postprocess.matching", "postprocess.scores", "postprocess", "data", "networks"),
        *("losses", "inference", "evaluation", "training", "curves", "report.overlay", "report.heartbeat"),
    },
    "web": {"types", "errors", "io", "data", "report.overlay", "signals"},
    "api": {
        *("errors", "types", "io", "data", "networks", "inference", "evaluation", "training", "report", "parallel"),
    },
    "napari": {"version", "types", "errors", "io", "data", "out_of_memory"},
    "doctor": {"version", "networks", "inference", "parallel"},
    "demo": {
        *("errors", "io", "data", "postprocess.matching", "postprocess.scores", "networks", "inference", "report"),
        *("training",),
    },
    "annotating": {"errors", "io", "networks", "training", "web"},
    "shell": {"errors", "io", "parallel", "report.heartbeat"},
    "cli": {
        *(
            "version",
            "errors",
            "losses",
            "io",
            "data",
            "networks",
            "inference",
            "evaluation",
            "report",
            "training",
            "shell",
        ),
        *("curves", "api", "demo", "doctor", "web", "signals", "out_of_memory", "parallel", "annotating"),
        "report.heartbeat",
    },
    "__main__": {"cli", "signals", "out_of_memory", "parallel"},
}
"""Part -> the parts that it may import, besides itself. Each stands below all that it may import.

`version` is the package's own `__init__`. A part that is a single module stands for itself alone.
"""

EVERYWHERE = {"sentences"}
"""What every part may import: what its sentences for people are made of."""

LIBRARIES = {
    "sentences": set(),
    "version": set(),
    "errors": set(),
    "signals": set(),
    "out_of_memory": set(),
    "code_folder": set(),
    "compilation": {"numba", "llvmlite"},
    "types": {"numpy"},
    "losses": {"torch", "numpy", "numba", "llvmlite", "scipy"},
    "io": {"numpy", "scipy", "tifffile", "imagecodecs", "zarr", "roifile", "nd2", "liffile", "pylibCZIrw", "pyarrow"},
    "postprocess.matching": {"numpy", "scipy"},
    "postprocess.scores": set(),
    "postprocess": {"numpy", "scipy", "skimage", "torch", "numba"},
    "data": {"numpy", "scipy", "skimage", "torch", "imagecodecs"},
    "networks": {"torch", "numpy", "pydantic", "safetensors"},
    "evaluation": {"numpy"},
    "web": {"numpy", "imagecodecs", "fastapi", "starlette", "uvicorn", "pydantic"},
    "napari": {"numpy", "napari", "qtpy"},
    "cli": {"rich", "typer"},
    "shell": {"typer"},
}
"""Part -> the libraries that it may import; the parts that are not here may import any."""


def part_of(module):
    """The part that a module belongs to, by its name below `nucleate`: the longest that fits."""
    fits = [part for part in ALLOWED if module == part or module.startswith(part + ".")]
    return max(fits, key=len, default=None)


def imported(source):
    """All that a file imports, anywhere in it; `from a import b` gives a.b, as b may be a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write the whole name of the module"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def faults(module, source):
    """A sentence for each import of this module that the tables do not allow."""
    part = part_of(module)
    if part is None:
        return [f"{module} belongs to no part of the table"]
    found = []
    for name in imported(source):
        top, _, rest = name.partition(".")
        if part == "version" and rest.startswith("api"):
            continue  # the front door, which the package opens when one of its names is asked for
        if top == "nucleate":
            target = part_of(rest) or ("version" if rest in ("", "__version__") else None)
            if target is None:
                found.append(f"{module} imports {name}, which belongs to no part of the table")
            elif target != part and target not in ALLOWED[part] | EVERYWHERE:
                found.append(f"{module} imports {name}: {part} may not import {target}")
        elif top not in sys.stdlib_module_names and part in LIBRARIES and top not in LIBRARIES[part]:
            found.append(f"{module} imports {name}: {part} may not import {top}")
    return found


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "version"


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_point_up(path):
    assert faults(module_of(path), path.read_text(encoding="utf-8")) == []


def test_the_table_itself_points_up():
    order = list(ALLOWED)
    for part, above in ALLOWED.items():
        assert all(order.index(other) < order.index(part) for other in above), part
    assert LIBRARIES.keys() <= ALLOWED.keys()
    parts = {part_of(module_of(path)) for path in FILES}
    assert ALLOWED.keys() - parts <= set()


@pytest.mark.parametrize(
    ("module", "source", "count"),
    [
        ("losses.measures", "import torch\nfrom nucleate.errors import LossInputError", 0),
        ("losses.measures", "from nucleate.types import Labels", 1),
        ("losses.measures", "import skimage.filters", 1),
        ("io.reader", "import torch", 1),
        ("io.reader", "def f():\n    from torch import nn", 1),
        ("io.reader", "from nucleate import networks, errors", 1),
        ("postprocess.matching", "from nucleate.postprocess import instances_from_maps", 1),
        ("postprocess.instances_from_maps", "from nucleate.postprocess import matching", 0),
        ("data.augment", "import nucleate.postprocess.targets, nucleate.training", 1),
        ("inference.predict", "from nucleate.training.config import TrainingConfig", 1),
        ("training.fit", "import nucleate\nfrom nucleate.inference import backends", 0),
        ("training.fit", "from nucleate import cli, demo", 2),
        ("training.fit", "from nucleate.report.plots import plot_curves", 1),
        ("networks.store", "from nucleate.modelling import zoo", 1),
        ("novelty", "import os", 1),
    ],
)
def test_faults_are_found(module, source, count):
    assert len(faults(module, source)) == count


def test_relative_imports_are_refused():
    with pytest.raises(AssertionError, match="whole name"):
        faults("io.reader", "from . import tiff")


def loaded_by(*modules, after=""):
    """The modules that importing these loads, in a fresh interpreter that has imported `after`."""
    script = (
        f"import sys\n{f'import {after}' if after else ''}\nbefore = set(sys.modules)\n"
        f"import {', '.join(modules)}\n"
        "print(*sorted(name for name, module in sys.modules.items() if module is not None and name not in before))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_losses_stand_alone():
    loaded = loaded_by("nucleate.losses", after="numpy, torch")
    assert "nucleate.losses.cross_entropy" in loaded
    ours = {name for name in loaded if name.startswith("nucleate") and not name.startswith("nucleate.losses")}
    assert ours == {
        *("nucleate", "nucleate.code_folder", "nucleate.errors", "nucleate.parallel"),
        "nucleate.parallel.communicator",
    }
    tops = {name.partition(".")[0] for name in loaded}
    assert tops - sys.stdlib_module_names - {"nucleate", "torch", "numpy"} == set()
    assert not tops & {"scipy", "skimage", "rich", "typer", "pydantic", "tifffile"}


IO = [f"nucleate.{module_of(path)}" for path in FILES if module_of(path).startswith("io.")]


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (["nucleate"], {"torch", "numpy"}),
        (["nucleate.cli"], {"torch", "scipy", "skimage", "tifffile", "matplotlib"}),
        (IO, {"torch", "typer", "pydantic"}),
        (["nucleate.postprocess.matching", "nucleate.evaluation"], {"torch", "typer"}),
        (["nucleate.inference.predict"], {"typer", "matplotlib"}),
        (["nucleate.inference.select", "nucleate.inference.export"], {"openvino", "onnx", "onnxruntime"}),
        (["nucleate.training.early_stopping", "nucleate.curves.compare"], {"torch"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and value else " ".join(sorted(value)),
)
def test_what_is_heavy_is_loaded_only_where_it_is_needed(modules, absent):
    assert {name.partition(".")[0] for name in loaded_by(*modules)} & absent == set()
