"""The folders of the package import only from the folders before them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "autocompress"

ORDER = (
    "errors",
    "core",
    "yaml_file",
    "factories",
    "graph",
    "space",
    "transform",
    "artifact",
    "cost",
    "predictor",
    "evaluation",
    "controller",
    "report",
    "overrides",
    "config_sections",
    "config",
    "kept_config",
    "scaffold",
    "front_member",
    "result",
    "devices",
    "models",
    "api",
    "contest",
    "comparison",
    "cli",
)

VERBS = (
    "search",
    "resume",
    "open",
    "check",
    "compress",
    "export",
    "load",
    "profile",
    "measure_latency",
    "allocate",
)

MODULES = sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    """Name the top-level folder or module of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    dotted = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    return dotted.removesuffix(".__init__")


def imports_of(path: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports, at any depth of its code."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_of_ours(path: Path) -> Iterator[str]:
    yield from (name for name in imports_of(path) if name.split(".")[0] == "autocompress")


def test_every_folder_and_module_has_its_place_in_the_order() -> None:
    parts = {part_of(path) for path in MODULES} - {"__init__", "__main__"}
    assert parts <= set(ORDER)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_from_folders_before_its_own(path: Path) -> None:
    part = part_of(path)
    allowed = ORDER if part in ("__init__", "__main__") else ORDER[: ORDER.index(part) + 1]
    for name in imports_of_ours(path):
        top = name.split(".")[1] if "." in name else "__init__"
        if top in ("__init__", "__version__"):
            continue
        assert top in allowed, f"{name_of(path)} imports {name}"


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    names = {name_of(path) for path in MODULES} - {"autocompress"}
    edges: dict[str, set[str]] = {}
    for path in MODULES:
        named = set(imports_of_ours(path))
        modules = named | {name.rpartition(".")[0] for name in named}
        edges[name_of(path)] = modules & names - {name_of(path)}
    while leaves := {name for name, needed in edges.items() if not needed & edges.keys()}:
        edges = {name: needed for name, needed in edges.items() if name not in leaves}
    assert not edges, f"import cycle among {sorted(edges)}"


def test_no_folder_carries_the_name_of_a_public_verb() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    assert not folders & set(VERBS)


@pytest.mark.parametrize("path", [p for p in MODULES if part_of(p) == "core"], ids=name_of)
def test_core_is_plain_data_without_torch(path: Path) -> None:
    heavy = {"torch", "onnx", "onnxruntime", "optuna", "ray"}
    assert not {name.split(".")[0] for name in imports_of(path)} & heavy


def test_the_reader_of_imports_finds_a_planted_one(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text(
        "def f():\n    from autocompress.api import search\n    import autocompress.cli\n"
    )
    assert list(imports_of_ours(planted)) == ["autocompress.api.search", "autocompress.cli"]
