"""The layers of the project: each may import only what lies below it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

Layers = tuple[tuple[str, ...], ...]

# Lowest first. A module may import from its own layer and from lower ones.
LAYERS = (
    (
        "dynens.errors",
        "dynens.signals",
        "dynens.config",
        "dynens.rules",
        "dynens.ties",
        "dynens.schema",
        "dynens.batch",
        "dynens.session",
        "dynens.timing",
    ),
    ("dynens.data", "dynens.layers", "dynens.metrics", "dynens.bootstrap", "dynens.run"),
    ("dynens.models",),
    ("dynens.ensemble", "dynens.distill", "dynens.routing"),
    ("dynens.bundle",),
    ("dynens.budget", "dynens.graph", "dynens.engine"),
    ("dynens.evaluation", "dynens.predict", "dynens.report"),
)
# What `dynens.data` is made of, likewise.
DATA_LAYERS = (
    ("dynens.data.reading", "dynens.data.names"),
    ("dynens.data.encoding",),
    ("dynens.data.columns", "dynens.data.agreement"),
    ("dynens.data.inference",),
)
# These put the others together.
COMPOSITION = ("dynens.cli", "dynens.cli_tables", "dynens.demo", "dynens.__main__")
# Without the train extra these must still import.
BASE = (
    "dynens.errors",
    "dynens.signals",
    "dynens.config",
    "dynens.rules",
    "dynens.ties",
    "dynens.schema",
    "dynens.batch",
    "dynens.session",
    "dynens.timing",
    "dynens.data",
    "dynens.metrics",
    "dynens.bundle",
    "dynens.budget",
    "dynens.graph",
    "dynens.engine",
    "dynens.run",
    "dynens.bootstrap",
    "dynens.predict",
    "dynens.evaluation",
)
HEAVY = {"torch", "torchrec", "fbgemm_gpu", "ray", "sklearn", "scipy", "xgboost", "onnx", "optuna"}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, *, lazy: bool) -> set[str]:
    """Names a module imports; only at its top level unless `lazy` ones count too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if lazy else iter(tree.body)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def belongs(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == p or name.startswith(p + ".") for p in prefixes)


def layer_of(name: str, layers: Layers = LAYERS) -> int | None:
    for level, prefixes in enumerate(layers):
        if belongs(name, prefixes):
            return level
    return None


@pytest.mark.parametrize("path", modules("dynens"), ids=module_name)
def test_dynens_modules_import_only_lower_layers(path: Path) -> None:
    name = module_name(path)
    if name == "dynens" or belongs(name, COMPOSITION):
        return
    level = layer_of(name)
    assert level is not None, f"{name} has no layer; add it to LAYERS"
    for imported in imports(path, lazy=True):
        assert not belongs(imported, ("training", "serving", "ray")), f"{name} imports {imported}"
        if belongs(imported, COMPOSITION):
            raise AssertionError(f"{name} imports {imported}")
        below = layer_of(imported)
        assert below is None or below <= level, f"{name} imports {imported}, which lies above it"


@pytest.mark.parametrize("path", modules("dynens/data"), ids=module_name)
def test_tables_are_read_below_what_looks_at_them(path: Path) -> None:
    level = layer_of(module_name(path), DATA_LAYERS)
    if level is None:
        return
    for imported in imports(path, lazy=True) - {"dynens.data"}:
        below = layer_of(imported, DATA_LAYERS)
        inside = belongs(imported, ("dynens.data",))
        assert not inside or (below is not None and below <= level), f"{path} imports {imported}"


@pytest.mark.parametrize("path", modules("training"), ids=module_name)
def test_training_does_not_import_serving(path: Path) -> None:
    assert not [n for n in imports(path, lazy=True) if belongs(n, ("serving",))]


@pytest.mark.parametrize("path", modules("serving"), ids=module_name)
def test_serving_starts_without_training_code(path: Path) -> None:
    found = imports(path, lazy=True)
    assert not [n for n in found if belongs(n, ("training", "torch", "torchrec", "xgboost"))]


@pytest.mark.parametrize("path", modules("dynens"), ids=module_name)
def test_base_package_needs_no_training_package(path: Path) -> None:
    name = module_name(path)
    if not belongs(name, BASE):
        return
    top_level = {n.split(".")[0] for n in imports(path, lazy=False)}
    assert not top_level & HEAVY
