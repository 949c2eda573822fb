"""Which of the project's files a module reaches by importing, read from the source."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent


def imported_modules(path: Path) -> set[str]:
    """Every dotted name that an import statement of the file may load, at whatever depth it stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def import_closure(path: Path) -> set[Path]:
    """The file itself, and all files of pipeline/ and stages/ that it reaches, packages included."""
    reached: set[Path] = set()
    waiting = [path, *_packages(path)]
    while waiting:
        current = waiting.pop()
        if current in reached:
            continue
        reached.add(current)
        for module in imported_modules(current):
            file = _project_file(module)
            if file:
                waiting += [file, *_packages(file)]
    return reached


def outside_imports(files: set[Path]) -> set[str]:
    """Top-level packages that the files import from outside the project."""
    names = {module.partition(".")[0] for file in files for module in imported_modules(file)}
    return names - {"pipeline", "stages"}


def _project_file(module: str) -> Path | None:
    if module.partition(".")[0] not in ("pipeline", "stages"):
        return None
    base = ROOT / module.replace(".", "/")
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _packages(file: Path) -> list[Path]:
    """The __init__.py of every package on the way to the file."""
    folders = [folder for folder in file.parents if folder != ROOT and folder.is_relative_to(ROOT)]
    return [folder / "__init__.py" for folder in folders if (folder / "__init__.py").is_file()]
