"""The code keeps to its layers and its manners."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from promises.sources import imports, packages, python_files, test_files

_OUTSIDE = (
    "grpc",
    "psycopg",
    "psycopg_pool",
    "kafka",
    "vesta_common.storage.postgres",
    "vesta_common.events.outbox",
    "vesta_common.events.consumer",
)
_EDGES = {"app", "api", "event_handlers", "store"}
_EDGES_OF = {
    "vesta_conductor": {
        "execution.driver",
        "peers",
        "execution.queue",
        "projects.child_resources",
        "projects.deletion",
    },
    "vesta_connection": {"syncs.dataset_items"},
    "vesta_datasets": {
        "ingest.add_items",
        "ingest.near_duplicates",
        "ingest.search_indexing",
        "item_search",
        "operations.incoming",
        "operations.transfers",
        "operations.worker",
    },
    "vesta_gateway": {
        "background",
        "calls.backends",
        "calls.dependencies",
        "calls.projects",
        "events.replay",
        "events.tail",
        "grpc.server",
        "problems",
        "servers",
    },
    "vesta_pipelining": {"forwarder"},
    "vesta_serving": {"registry", "scoring.scorer", "predictions.image_reader", "suitability", "triton.client"},
    "vesta_training": {"models.deployments", "recipes.recipe_book", "runs.job_builder"},
}
"""What a service has at its edges beside what every service has."""


def services_that_import_services(root: Path) -> list[str]:
    """Services share contracts and plumbing, never each other."""
    found = []
    known = packages(root)
    for path in python_files(root, "services"):
        own = next((part for part in path.parts if part in known), "")
        others = {name.split(".")[0] for name in imports(path)} & set(known) - {own}
        found += [f"{path.relative_to(root)} imports {package}" for package in sorted(others)]
    return found


_STATEMENT = re.compile(r"\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH|LISTEN|LOCK TABLE)\s")


def sql_outside_stores(root: Path) -> list[str]:
    """Only the `store` module or package of a service contains or executes SQL."""
    found = []
    for path in python_files(root, "services"):
        package = path.relative_to(root / "services").parts[2:]
        if package and package[0] in ("store", "store.py"):
            continue
        found += [f"{path.relative_to(root)}:{line} has SQL; move it to the store" for line in _lines_with_sql(path)]
    return found


def _lines_with_sql(path: Path) -> Iterator[int]:
    nodes = [*ast.walk(ast.parse(path.read_text()))]
    documentation = {
        node.body[0].value
        for node in nodes
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in nodes:
        is_query = isinstance(node, ast.Name) and node.id == "queries"
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and node not in documentation
        if is_query or _executes(node) or (is_text and _STATEMENT.match(_text_of(node))):
            yield node.lineno


def _executes(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Name):
        return node.func.id == "load_queries"
    return isinstance(node.func, ast.Attribute) and node.func.attr in ("execute", "executemany", "cursor")


def _text_of(node: ast.Constant) -> str:
    return node.value.decode(errors="replace") if isinstance(node.value, bytes) else node.value


def task_types_outside_their_modules(root: Path) -> list[str]:
    """Only the registries and modules of task types refer to one of them, so that a new one changes no other code."""
    return [
        f"{path.relative_to(root)}:{node.lineno} refers to {node.attr}; move what depends on it to a module of task_types"
        for folder in ("services", "libs", "deploy")
        for path in python_files(root, folder)
        if "task_types" not in (path.parent.name, path.stem)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("TASK_TYPE_")
        and node.attr != "TASK_TYPE_UNSPECIFIED"
    ]


def rules_that_reach_outside(root: Path) -> list[str]:
    """Rules know no gRPC, SQL or Kafka: only what is at the edges of a service does. The list of edges holds none that is not one."""
    found = []
    for package in packages(root):
        edges = set(_EDGES_OF.get(package, ()))
        folder = root / "services" / package.removeprefix("vesta_") / package
        for path in python_files(root, str(folder.relative_to(root))):
            parts = path.relative_to(folder).with_suffix("").parts
            module = ".".join(parts)
            outside = sorted({name for name in imports(path) if _is_outside(name)})
            if outside and _EDGES.isdisjoint(parts) and module not in edges:
                found.append(f"{path.relative_to(root)} is no edge and imports {outside[0]}")
            if module in edges and not outside:
                found.append(f"{path.relative_to(root)} is no edge any more")
    return found


def _is_outside(name: str) -> bool:
    is_stub = name.startswith("vesta_contracts.") and name.endswith("Stub")
    return is_stub or any(name == outside or name.startswith(f"{outside}.") for outside in _OUTSIDE)


def readers_of_the_environment(root: Path) -> list[str]:
    """The environment is read in settings.py alone."""
    found = []
    for path in python_files(root, "services", "libs"):
        if path.name != "settings.py":
            found += [
                f"{path.relative_to(root)}:{line} reads the environment" for line in _reads(ast.parse(path.read_text()))
            ]
    return found


def _reads(tree: ast.Module) -> Iterator[int]:
    words = {"environ", "environb", "getenv", "getenvb"}
    for node in ast.walk(tree):
        is_taken = isinstance(node, ast.ImportFrom) and node.module == "os"
        if is_taken and words & {alias.name for alias in node.names}:
            yield node.lineno
        if isinstance(node, ast.Attribute) and node.attr in words:
            yield node.lineno


def modules_without_a_first_line(root: Path) -> list[str]:
    """Every file says in its first line why it exists."""
    found = []
    for path in python_files(root, "services", "libs", "deploy", "examples", "benchmarks"):
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        if not docstring or not docstring.splitlines()[0].rstrip().endswith((".", ":", "?", "!")):
            found.append(f"{path.relative_to(root)} does not say in its first line why it exists")
    return found


def patched_tests(root: Path) -> list[str]:
    """Tests pass things in; they patch nothing."""
    return [
        f"{path.relative_to(root)} patches"
        for path in test_files(root)
        if any(name == "mock" or name.startswith("unittest.mock") for name in imports(path))
    ]


def imported_tests(root: Path) -> list[str]:
    """What tests share lies in a module of its own name: every folder has a conftest.py, and only one of them can be imported."""
    return [
        f"{path.relative_to(root)} imports what tests share from {found}"
        for path in test_files(root)
        for found in sorted({name.split(".")[0] for name in imports(path)})
        if found == "conftest" or found.startswith("test_")
    ]


def modules_that_hide_one_another(root: Path) -> list[str]:
    """Of two modules of one name in pytest's `pythonpath`, whichever a run imports first is had by both."""
    configured = root / "pyproject.toml"
    if not configured.exists():
        return []
    pytest_options = tomllib.loads(configured.read_text()).get("tool", {}).get("pytest", {}).get("ini_options", {})
    first: dict[str, Path] = {}
    return [
        f"{path.relative_to(root)} has the name of {first[path.stem].relative_to(root)}"
        for folder in pytest_options.get("pythonpath", ())
        for path in sorted((root / folder).glob("*.py"))
        if not path.stem.startswith(("test_", "conftest", "__")) and first.setdefault(path.stem, path) != path
    ]
