"""What `import flowbench` gives."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import flowbench

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", flowbench.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(flowbench, name) is not None
    assert name in dir(flowbench)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute `nonsense`"):
        _ = flowbench.nonsense


def test_version_is_the_one_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert flowbench.__version__ in {project["version"], "0+unknown"}


def test_type_checkers_see_the_names_that_are_imported_lazily() -> None:
    tree = ast.parse(Path(flowbench.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == flowbench._HOMES


def test_import_brings_nothing_slow() -> None:
    code = (
        "import flowbench, sys; print(*sorted({'torch', 'numpy', 'pandas', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""
