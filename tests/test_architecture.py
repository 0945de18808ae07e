"""The rules of the layout, read off the source; the package itself is not run.

Every rule is a function from a `Package` to its breaches, one line each. flowbench has to have none, and
a made-up package with one breach has to have that one, so that no rule passes by being blind.
"""

import ast
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flowbench.registry import MODELS, SERIES_TOYS

ROOT = Path(__file__).resolve().parents[1]

# A module imports from the layers below it and from its own package; the single modules of a layer may
# import one another. A new package or module gets a place here.
LAYERS: tuple[set[str], ...] = (
    {"errors", "options", "registry"},
    {"data", "ode", "statistics", "store"},
    {"encoding"},
    {"models"},
    {"objectives", "evaluation"},
    {"training", "report"},
    {"workflows"},
    {"estimator", "frames", "notebook", "series_estimator", "studies"},
    {"cli"},
    {"__main__"},
)
COMMAND_LINE = LAYERS[-2] | LAYERS[-1]
TORCH_FREE = {"data", "store", "statistics", "report"}
SLOW = {
    "h5py",
    "matplotlib",
    "narwhals",
    "pandas",
    "pyarrow",
    "scipy",
    "seaborn",
    "sklearn",
    "torch",
    "torchdiffeq",
}
CONSOLE = {"argparse", "click", "rich", "typer"}
LOUD = {"print", "sys.stdout", "sys.stderr", "sys.exit", "os._exit", "SystemExit"}
UNSAFE_MODULES = {"cloudpickle", "dill", "marshal", "pickle", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "torch.load", "pandas.read_pickle", "pd.read_pickle", "joblib.load"}

MAX_LINES = 400
# Module -> why it is better long than split.
LONG_MODULES: dict[str, str] = {}


@dataclass(frozen=True)
class Import:
    """`import target`, or `from target import name` where `name` is no module.

    `eager` is what Python imports together with the module: all but the imports inside functions.
    """

    line: int
    target: str
    name: str | None
    eager: bool


@dataclass(frozen=True)
class Module:
    name: str
    package: str
    tree: ast.Module
    lines: int
    imports: tuple[Import, ...]

    @property
    def part(self) -> str:
        """`data` for flowbench.data.toys, `errors` for flowbench.errors, "" for flowbench itself."""
        return (self.name + "..").split(".")[1]

    @property
    def group(self) -> str:
        """The package that may import this module whatever the layer; single modules are in one group."""
        return ".".join(self.package.split(".")[:2])

    @property
    def layer(self) -> int:
        return next((level for level, parts in enumerate(LAYERS) if self.part in parts), len(LAYERS))


Package = dict[str, Module]
Rule = Callable[[Package], list[str]]


def read_package(folder: Path) -> Package:
    """Parse every module of the package in `folder`, whatever that folder is called."""
    paths = {}
    for path in sorted(folder.rglob("*.py")):
        names = ("flowbench", *path.relative_to(folder).with_suffix("").parts)
        paths[".".join(names).removesuffix(".__init__")] = path
    return {name: read_module(name, path, set(paths)) for name, path in paths.items()}


def read_module(name: str, path: Path, known: set[str]) -> Module:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text, filename=str(path))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    return Module(name, package, tree, len(text.splitlines()), tuple(find_imports(tree, package, known)))


def find_imports(tree: ast.Module, package: str, known: set[str]) -> Iterator[Import]:
    eager = set(nodes_run_on_import(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, None, node in eager)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
            source = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                target, attribute = (inner, None) if inner in known else (source, alias.name)
                yield Import(node.lineno, target, attribute, node in eager)
        elif isinstance(node, ast.Call) and (target := dynamic_import(node)):
            yield Import(node.lineno, target, None, node in eager)


def dynamic_import(call: ast.Call) -> str:
    """`a.b` for import_module("a.b"); "" for another call, or where the name is not a constant."""
    imports = dotted_name(call.func).rpartition(".")[2] in {"import_module", "__import__"}
    return str(call.args[0].value) if imports and isinstance(call.args[0], ast.Constant) else ""


def nodes_run_on_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Everything but the bodies of functions and of `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and dotted_name(child.test).rpartition(".")[2] == "TYPE_CHECKING":
            continue
        yield child
        yield from nodes_run_on_import(child)


def dotted_name(node: ast.AST) -> str:
    """`a.b.c` for a chain of attributes; "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := dotted_name(node.value)):
        return f"{owner}.{node.attr}"
    return ""


def chains(package: Package, start: str, wanted: set[str], *, eager_only: bool) -> list[str]:
    """How importing `start` brings each of the `wanted` modules: "torch <- flowbench.data.a".

    The lazy names of `flowbench` itself do not count: they are the user's, and `layers` keeps the package
    from them.
    """
    brought_by = {start: ""}
    todo = [start]
    while todo:
        module = todo.pop()
        imports = package[module].imports if module != "flowbench" else ()
        for target in [module, *(each.target for each in imports if each.eager or not eager_only)]:
            names = target.split(".")
            for name in (".".join(names[: length + 1]) for length in range(len(names))):
                if name not in brought_by:
                    brought_by[name] = module
                    todo += [name] if name in package else []
    return [chain(brought_by, name) for name in sorted(wanted & set(brought_by))]


def chain(brought_by: dict[str, str], name: str) -> str:
    return f"{name} <- {chain(brought_by, brought_by[name])}" if brought_by[name] else name


def layers(package: Package) -> list[str]:
    """An import of a higher layer, of a neighbour, or of what is not there."""
    inner = [module for module in package.values() if module.part]
    return [f"{module.name} is in no layer" for module in inner if module.layer == len(LAYERS)] + [
        f"{module.name}:{each.line} imports {each.target}, {complaint}"
        for module in inner
        for each in module.imports
        if each.target.partition(".")[0] == "flowbench" and (complaint := misplaced(package, module, each))
    ]


def misplaced(package: Package, module: Module, each: Import) -> str:
    theirs = package.get(each.target)
    if theirs is None:
        return "which is not there"
    if not theirs.part:
        return "" if each.name == "__version__" else f"whose lazy `{each.name}` is for users only"
    if theirs.layer > module.layer:
        return "which is in a higher layer"
    return "" if theirs.layer < module.layer or theirs.group == module.group else "a neighbour"


def cycles(package: Package) -> list[str]:
    """Modules that import one another, however late; `__version__` brings nothing with it."""
    found: list[str] = []
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            found.append(" -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            targets = {each.target for each in package[name].imports if each.name != "__version__"}
            for target in sorted(targets & set(package)):
                visit(target, (*path, name))
            done.add(name)

    for name in package:
        if name != "flowbench":
            visit(name, ("flowbench",))
    return found


def length(package: Package) -> list[str]:
    """A module that is too long, or an argument for one that no longer is."""
    long = {name: module.lines for name, module in package.items() if module.lines > MAX_LINES}
    return [f"{name} has {lines} lines" for name, lines in long.items() if name not in LONG_MODULES] + [
        f"{name} need not be in LONG_MODULES" for name in LONG_MODULES if name not in long
    ]


def torch_free(package: Package) -> list[str]:
    """Torch anywhere behind `data`, `store` and `report`."""
    starts = [name for name, module in package.items() if module.part in TORCH_FREE]
    wanted = {"torch", "torchdiffeq"}
    return [found for start in starts for found in chains(package, start, wanted, eager_only=False)]


def quick_start(package: Package) -> list[str]:
    """A slow import that `flowbench --help` would wait for."""
    starts = [name for name, module in package.items() if module.part in COMMAND_LINE]
    return [found for start in starts for found in chains(package, start, SLOW, eager_only=True)]


def each_node(package: Package) -> Iterator[tuple[str, ast.AST]]:
    for module in package.values():
        for node in ast.walk(module.tree):
            yield f"{module.name}:{getattr(node, 'lineno', 0)}", node


def no_assert(package: Package) -> list[str]:
    """`assert` is for tests: `python -O` drops it."""
    return [f"{where} assert" for where, node in each_node(package) if isinstance(node, ast.Assert)]


def no_unsafe_reading(package: Package) -> list[str]:
    """What would run code that comes out of a file or an option."""
    return [
        f"{module.name}:{each.line} imports {each.target}"
        for module in package.values()
        for each in module.imports
        if each.target.partition(".")[0] in UNSAFE_MODULES or f"{each.target}.{each.name}" in UNSAFE_CALLS
    ] + [f"{where} {unsafe}" for where, node in each_node(package) if (unsafe := unsafe_use(node))]


def unsafe_use(node: ast.AST) -> str:
    if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
        return "" if isinstance(node.value, ast.Constant) and node.value.value is False else "allow_pickle"
    called = dotted_name(node.func) if isinstance(node, ast.Call) else ""
    return called if called in UNSAFE_CALLS else ""


def quiet(package: Package) -> list[str]:
    """Only the command line parses arguments, prints or exits."""
    library = {name: module for name, module in package.items() if module.part not in COMMAND_LINE}
    return [
        f"{module.name}:{each.line} imports {each.target}"
        for module in library.values()
        for each in module.imports
        if each.target.partition(".")[0] in CONSOLE
    ] + [f"{where} {dotted_name(node)}" for where, node in each_node(library) if dotted_name(node) in LOUD]


RULES: tuple[Rule, ...] = (
    layers,
    cycles,
    length,
    torch_free,
    quick_start,
    no_assert,
    no_unsafe_reading,
    quiet,
)


@cache
def flowbench_package() -> Package:
    return read_package(ROOT / "flowbench")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_flowbench_keeps_the_rule(rule: Rule) -> None:
    breaches = sorted(set(rule(flowbench_package())))
    assert not breaches, "\n".join(["", *breaches])


def test_every_third_party_import_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(requirements: list[str]) -> set[str]:
        return {canonicalize_name(Requirement(each).name) for each in requirements}

    declared = names(project["dependencies"])
    # A model or a toy may import what the extra with its name installs.
    optional = {
        target.partition(":")[0]: names(project["optional-dependencies"].get(name, []))
        for name, target in (MODELS.entries | SERIES_TOYS.entries).items()
    }
    distributions = packages_distributions()
    undeclared = {
        f"{module.name}:{each.line} {name}"
        for module in flowbench_package().values()
        for each in module.imports
        if (name := each.target.partition(".")[0]) != "flowbench"
        and name not in sys.stdlib_module_names
        and not {canonicalize_name(each) for each in distributions.get(name, [])}
        & (declared | optional.get(module.name, set()))
    }
    assert undeclared == set()


def test_extras_name_this_project_by_its_own_name() -> None:
    """`flowbench` on the public index is another project, and pip would install it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [Requirement(each) for requirements in extras.values() for each in requirements]
    own = [each for each in wanted if each.name.startswith("flowbench")]
    assert own and {each.name for each in own} == {project["name"]}
    assert {extra for each in own for extra in each.extras} <= set(extras)


BREACHES: list[tuple[Rule, dict[str, str], str]] = [
    (layers, {"ode/a.py": "def f():\n    import flowbench.models.b", "models/b.py": ""}, "in a higher layer"),
    (layers, {"ode/a.py": "from ..models import b", "models/b.py": ""}, "in a higher layer"),
    (layers, {"ode/a.py": "__import__('flowbench.cli')", "cli.py": ""}, "in a higher layer"),
    (layers, {"ode/a.py": "from flowbench.store import b", "store/b.py": ""}, "a neighbour"),
    (layers, {"ode/a.py": "import flowbench.nowhere"}, "not there"),
    (layers, {"ode/a.py": "from flowbench import fit"}, "lazy `fit`"),
    (layers, {"odd.py": ""}, "in no layer"),
    (cycles, {"ode/a.py": "import flowbench.ode.b", "ode/b.py": "def f():\n    from . import a"}, "b -> "),
    (length, {"ode/a.py": "\n" * (MAX_LINES + 1)}, "401 lines"),
    (torch_free, {"data/a.py": "def f():\n    import torch.nn"}, "torch <- flowbench.data.a"),
    (torch_free, {"store/a.py": "from .. import errors", "errors.py": "from torch import nn"}, "errors"),
    (quick_start, {"cli.py": "import flowbench.ode", "ode/__init__.py": "import pandas"}, "pandas <- "),
    (quick_start, {"cli.py": "if 1: import flowbench.ode", "ode/__init__.py": "import scipy"}, "ode <- "),
    (quick_start, {"cli.py": "from .ode import a", "ode/a.py": "", "ode/__init__.py": "import h5py"}, "ode"),
    (no_assert, {"ode/a.py": "def f(x):\n    assert x"}, "ode.a:2 assert"),
    (no_unsafe_reading, {"ode/a.py": "import pickle"}, "pickle"),
    (no_unsafe_reading, {"ode/a.py": "from torch import load"}, "imports torch"),
    (no_unsafe_reading, {"ode/a.py": "import torch\ntorch.load('x')"}, "torch.load"),
    (no_unsafe_reading, {"ode/a.py": "eval('1')"}, "eval"),
    (no_unsafe_reading, {"ode/a.py": "numpy.load('x', allow_pickle=True)"}, "allow_pickle"),
    (quiet, {"ode/a.py": "print('x')"}, "print"),
    (quiet, {"ode/a.py": "import rich.console"}, "rich"),
    (quiet, {"ode/a.py": "def f():\n    raise SystemExit(1)"}, "SystemExit"),
]  # fmt: skip

ALLOWED: list[tuple[Rule, dict[str, str]]] = [
    (layers, {"models/a.py": "import flowbench.ode.b\nfrom flowbench.models import c", "models/c.py": "",
              "ode/b.py": "from flowbench import __version__"}),
    (layers, {"registry.py": "import flowbench.errors", "errors.py": ""}),
    (layers, {"data/a.py": "import flowbench.data.b.c", "data/b/c.py": ""}),
    (cycles, {"ode/__init__.py": "from .a import x", "ode/a.py": "from .b import y", "ode/b.py": ""}),
    (cycles, {"cli.py": "from flowbench import __version__", "__init__.py": "import flowbench.cli"}),
    (quick_start, {"cli.py": "def f():\n    import torch"}),
    (quick_start, {"cli.py": "import typing\nif typing.TYPE_CHECKING:\n    import torch"}),
    (no_unsafe_reading, {"ode/a.py": "model.eval()\nnumpy.load('x', allow_pickle=False)"}),
    (quiet, {"cli.py": "import sys, rich\nprint('x', file=sys.stderr)\nsys.exit(1)"}),
]  # fmt: skip


def write_package(folder: Path, files: dict[str, str]) -> Package:
    for path, text in {"__init__.py": "", **files}.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).parent.joinpath("__init__.py").touch()
        (folder / path).write_text(text, encoding="utf-8")
    return read_package(folder)


@pytest.mark.parametrize(("rule", "files", "expected"), BREACHES)
def test_rule_sees_the_breach(rule: Rule, files: dict[str, str], expected: str, tmp_path: Path) -> None:
    breaches = rule(write_package(tmp_path, files))
    assert len(breaches) == 1
    assert expected in breaches[0]


@pytest.mark.parametrize(("rule", "files"), ALLOWED)
def test_rule_allows(rule: Rule, files: dict[str, str], tmp_path: Path) -> None:
    assert rule(write_package(tmp_path, files)) == []
