"""`adaptive-vit STAGE`: the stages under one name, each imported only when it is called."""

import importlib
from pathlib import Path

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
    "profile",
    "engines",
    "recommend",
    "study",
    "plan",
    "drift",
    "results",
)


class _Stages(click.Group):
    """Looks a command up in its module, so that one stage does not pay for another's imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return [name for name in STAGES if (Path(__file__).parent / f"{name}.py").exists()]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"stages.{name}").main
        return command


@click.group(cls=_Stages, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="adaptive-vit", prog_name="adaptive-vit")
def main() -> None:
    """Find out, for a Vision Transformer and a data set, when high resolution matters."""
