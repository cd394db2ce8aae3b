"""Imports go one way: a module imports only from the layers before it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "segdl"

# From the lowest layer up. A package stands for all modules in it. A new module must
# be given its place here.
LAYERS = (
    "_version",
    "errors",
    "_ranges",
    "_urls",
    "_redaction",
    "_headers",
    "_digests",
    "_names",
    "config",
    "_retry",
    "_plan",
    "_ramp",
    "_origins",
    "_answers",
    "_fs",
    "_threads",
    "_helpers",
    "_writebehind",
    "_sink",
    "_manifest",
    "_existing",
    "_left_names",
    "_store",
    "_unfinished",
    "_messages",
    "_parts",
    "_exchange",
    "_bypass",
    "_bucket",
    "_tls",
    "_addresses",
    "_sockets",
    "_transfer",
    "_verify",
    "_worker",
    "_processes",
    "_health",
    "_saturation",
    "progress",
    "task",
    "queue",
    "stats",
    "_request",
    "_destination",
    "_crew",
    "_sources",
    "_pace",
    "_tail",
    "_verification",
    "_verdicts",
    "_failures",
    "_lanes",
    "_job",
    "_scheduler",
    "_callbacks",
    "_reports",
    "engine",
    "__init__",
    "testing",
    "_peers",
    "bench",
    "cli",
    "__main__",
)

# Modules that `import segdl` must not load: each costs more than it may as a whole,
# and the first would keep the caller from forking.
HEAVY = ("pycurl", "multiprocessing", "asyncio", "requests", "logging", "psutil")

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """Return a file's dotted module name, `segdl.__init__` for the package itself."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts)


def imports_of(source: str, module: str) -> Iterator[str]:
    """
    Yield the dotted names a module imports, wherever in it the import stands.

    What stands below `if TYPE_CHECKING:` never runs and is left out. For
    `from a import b` it is a.b, as b may be a module.
    """
    package = module.split(".")[:-1]
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith(
            "TYPE_CHECKING"
        ):
            waiting.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{start}.{alias.name}" for alias in node.names)
        waiting.extend(ast.iter_child_nodes(node))


def layer_of(imported: str, own: str = "") -> str | None:
    """Return the layer an imported name is in; None outside segdl."""
    parts = imported.split(".")
    if parts[0] != "segdl":
        return None
    layer = parts[1] if len(parts) > 1 else "__init__"
    # A name that is no layer, such as segdl.DownloadEngine, is the package's own.
    return layer if layer in LAYERS or layer == own else "__init__"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_has_a_layer(path: Path) -> None:
    """A new module is given its place before anything imports it."""
    assert name_of(path).split(".")[1] in LAYERS


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    """No module imports from its own layer's successors, not even inside a function."""
    module = name_of(path)
    own = module.split(".")[1]
    used = {layer_of(i, own) for i in imports_of(path.read_text("utf-8"), module)}
    below = {*LAYERS[: LAYERS.index(own)], own, None}
    assert sorted(str(layer) for layer in used - below) == []


def test_only_the_transfer_imports_pycurl() -> None:
    """libcurl is behind one seam."""
    users = [
        name_of(path)
        for path in MODULES
        if "pycurl" in {i.split(".")[0] for i in _imports(path)}
    ]
    assert users == ["segdl._transfer"]


def test_only_the_worker_imports_the_transfer() -> None:
    """The calling process never loads libcurl: only a worker imports the transfer."""
    users = {
        name_of(path)
        for path in MODULES
        if any(i.startswith("segdl._transfer") for i in _imports(path))
    }
    assert users <= {"segdl._worker"}


def _imports(path: Path) -> set[str]:
    return set(imports_of(path.read_text("utf-8"), name_of(path)))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import segdl.engine", {"segdl.engine"}),
        ("import a.b as c, d", {"a.b", "d"}),
        ("from segdl import task", {"segdl.task"}),
        ("from segdl.task import DownloadTask", {"segdl.task.DownloadTask"}),
        ("from . import task", {"segdl.sub.task"}),
        ("from .. import task", {"segdl.task"}),
        ("from ..task import T", {"segdl.task.T"}),
        ("def f():\n    import pycurl", {"pycurl"}),
        ("if TYPE_CHECKING:\n    import pycurl", set()),
        ("if typing.TYPE_CHECKING:\n    import a\nelse:\n    import b", {"b"}),
        ("try:\n    import a\nexcept ImportError:\n    import b", {"a", "b"}),
    ],
)
def test_every_form_of_import_is_seen(source: str, expected: set[str]) -> None:
    """The reader of imports knows every form, so that none slips through."""
    assert set(imports_of(source, "segdl.sub.module")) == expected


@pytest.mark.parametrize(
    ("imported", "expected"),
    [
        ("os.path", None),
        ("segdlx.task", None),
        ("segdl", "__init__"),
        ("segdl.DownloadEngine", "__init__"),
        ("segdl.task.DownloadTask", "task"),
        ("segdl.cli.render", "cli"),
    ],
)
def test_an_imported_name_belongs_to_a_layer(
    imported: str, expected: str | None
) -> None:
    """Names are put into layers by their first part below segdl."""
    assert layer_of(imported) == expected


@pytest.mark.parametrize(
    "statement",
    [
        "import segdl",
        "import segdl.config, segdl.queue, segdl.stats, segdl.progress",
    ],
)
def test_importing_segdl_is_cheap(statement: str) -> None:
    """A fresh interpreter that imports segdl has loaded nothing heavy."""
    code = f"import sys; {statement}; print([m for m in {HEAVY} if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (run.stdout.strip(), run.stderr) == ("[]", "")
