"""What every stage's command shares: options, parameters, the lock, and how errors end."""

import fcntl
import functools
import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import yaml

from pipeline.errors import PipelineError, is_out_of_memory
from pipeline.params.base import SECTION_NAMES, SectionType, check_section_names, nearest, read_section

LOCKS = Path(".cache/locks")


class _Loader(yaml.SafeLoader):
    """Also reads floats as DVC writes them: 5e-05, which is text to YAML 1.1."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


class ParamsFile:
    """params.yaml with the command line's `--set` values laid over it."""

    def __init__(self, path: Path, overrides: tuple[str, ...], default_section: str) -> None:
        self.path = path
        self.document = _load_yaml(path)
        # Keys that the command line sets, with their section.
        self.overridden: set[str] = set()
        self._read: set[str] = set()
        check_section_names(self.document, str(path))
        for override in overrides:
            self._apply(override, default_section)

    def section(self, name: str, kind: type[SectionType]) -> SectionType:
        self._read.add(name)
        return read_section(self.document, name, kind, str(self.path), self.overridden)

    def list_unread(self) -> list[str]:
        """Keys that were set and changed nothing, since no section that holds them was asked for."""
        return sorted(key for key in self.overridden if key.partition(".")[0] not in self._read)

    def _apply(self, override: str, default_section: str) -> None:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise PipelineError(f"--set {override}: expected KEY=VALUE, for example --set data.seed=1")
        steps = key.split(".")
        if steps[0] not in self.document:
            keys = self.document.get(default_section) or {}
            if len(steps) == 1 or steps[0] in keys:
                steps = [default_section, *steps]
            elif steps[0] not in SECTION_NAMES:
                near = nearest(steps[0], [*SECTION_NAMES, *keys])
                raise PipelineError(f"--set {override}: unknown section {steps[0]!r}; {near}")
        self.overridden.add(".".join(steps))
        node = self.document
        for step in steps[:-1]:
            node = node.setdefault(step, {})
            if not isinstance(node, dict):
                raise PipelineError(f"--set {override}: {step!r} is a value, not a section")
        text = text.strip()
        value = _parse_yaml(text, f"--set {override}")
        # As it is, unless quoted: to YAML a # would begin a comment, also in a file's name.
        as_it_is = text.startswith("#") or (isinstance(value, str) and text[:1] not in "'\"")
        node[steps[-1]] = text if as_it_is else value


def _load_yaml(path: Path) -> dict[str, Any]:
    try:
        document = _parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise PipelineError(
            f"{path}: not found; run from the project's folder or name it with --params"
        ) from None
    except UnicodeDecodeError as error:
        raise PipelineError(
            f"{path}: not UTF-8 text (from byte {error.start} on); save it as UTF-8"
        ) from None
    if not isinstance(document, dict):
        raise PipelineError(f"{path}: expected sections of key: value, found {type(document).__name__}")
    return document


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that no calendar has.
        raise PipelineError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None


def path_option(name: str, default: str, text: str) -> Callable[[Any], Any]:
    """An option for a path whose default is the one that dvc.yaml uses."""
    return click.option(
        f"--{name}", type=click.Path(path_type=Path), default=default, show_default=True, help=text
    )


def stage_command(section: str, beside: str | None = None) -> Callable[[Callable[..., None]], click.Command]:
    """Turn a function into a stage: adds --params, --set, --debug, --version, the lock and error handling.

    The function gets `params: ParamsFile` first; `section` is where a `--set` key without section belongs.
    beside: the option for the one file that it writes, where runs that write others may go side by side.
    """

    def decorate(function: Callable[..., None]) -> click.Command:
        @click.version_option(package_name="adaptive-vit", prog_name="adaptive-vit")
        @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
        @click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY=VALUE",
            help=f"Replace a value of the parameters; a key without section means {section}. Repeatable.",
        )
        @path_option("params", "params.yaml", "File of parameters.")
        @functools.wraps(function)
        def command(params: Path, overrides: tuple[str, ...], debug: bool, **options: Any) -> None:
            with readable_errors(debug):
                values = ParamsFile(params, overrides, section)
                # Not the module's name, which is __main__ where DVC starts the stage.
                name = Path(function.__code__.co_filename).stem
                with _only_one(name, options.get("role"), options[beside] if beside else None):
                    function(values, **options)
                for key in values.list_unread():
                    click.echo(f"Warning: --set {key}: {name} does not read it; it changed nothing", err=True)

        return click.command(context_settings={"help_option_names": ["-h", "--help"]})(command)

    return decorate


@contextmanager
def readable_errors(debug: bool) -> Iterator[None]:
    """Errors as one readable paragraph and exit status 1; the traceback only with --debug."""
    try:
        yield
    except (PipelineError, OSError) as error:
        if debug:
            raise
        message = str(error) or type(error).__name__
        click.echo(f"Error: {message}", err=True)
        sys.exit(1)
    except click.ClickException:
        raise
    except Exception as error:
        if debug:
            raise
        if is_out_of_memory(error):
            told = str(error).splitlines()[:1] or ["out of memory"]
            click.echo(f"Error: {told[0]}; use a smaller runtime.batch_size", err=True)
            sys.exit(1)
        click.echo(f"Error: unexpected {type(error).__name__}: {error}", err=True)
        click.echo("This is a defect of adaptive-vit; --debug shows where.", err=True)
        sys.exit(1)


@contextmanager
def _only_one(stage: str, role: str | None, out: Path | None) -> Iterator[None]:
    """Hold the stage's lock: an orphan of a killed run must not write beside a new one.

    out: what tells runs apart that may go side by side.
    """
    LOCKS.mkdir(parents=True, exist_ok=True)
    target = hashlib.sha256(bytes(out.resolve())).hexdigest()[:16] if out else None
    path = LOCKS / ("-".join(filter(None, (stage, role, target))) + ".lock")
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise PipelineError(
                f"{path}: the same stage is running already (process {owner}); wait for it or end it"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
