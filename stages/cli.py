"""`adaptive-vit STAGE`: the stages under one name, each imported only when it is called."""

import ast
import importlib
from pathlib import Path
from typing import Any

import click

STAGES = (
    "probe",
    "download",
    "prepare",
    "train",
    "heads",
    "extract",
    "delta",
    "fit",
    "proxies",
    "replay",
    "report",
    "predict",
    "profile",
    "engines",
    "recommend",
    "study",
    "plan",
    "drift",
    "results",
)


class _Stage(click.Command):
    """A stage's name and help, for lists of stages; its module is imported when it is called."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        command: click.Command = importlib.import_module(f"stages.{self.name}").main
        return command.make_context(*args, **extra)


class _Stages(click.Group):
    """Reads the stages' help from their source, so that none pays for another's imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return [name for name in STAGES if _source_of(name).exists()]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        return _Stage(name, help=_read_help(_source_of(name)))


def _source_of(stage: str) -> Path:
    return Path(__file__).parent / f"{stage}.py"


def _read_help(source: Path) -> str | None:
    """The docstring of `main`, which is the command's help."""
    functions = ast.parse(source.read_text(encoding="utf-8")).body
    mains = (each for each in functions if isinstance(each, ast.FunctionDef) and each.name == "main")
    return next(map(ast.get_docstring, mains), None)


@click.group(cls=_Stages, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="adaptive-vit", prog_name="adaptive-vit")
def main() -> None:
    """Find out, for a Vision Transformer and a data set, when high resolution matters."""
