"""`--json`: what a command finds, for programs that call it."""

from collections.abc import Mapping
from typing import Any

import click

from pipeline.files import format_json

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")


def echo_json(document: Mapping[str, Any]) -> None:
    click.echo(format_json(document), nl=False)
