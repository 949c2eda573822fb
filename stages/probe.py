"""Note what DVC cannot see by itself: the machine, and the outside files that the parameters name."""

from pathlib import Path
from typing import Any

import click

from pipeline.files import sha256_of, write_json
from pipeline.machine import describe_machine
from pipeline.outside import find_outside
from pipeline.params.data import DataParams
from pipeline.params.model import ModelParams
from pipeline.params.sections import SECTIONS
from stages.common import ParamsFile, path_option, stage_command


@stage_command("data")
@path_option("probe", "data/probe", "Folder for machine.json, source.json and weights.json.")
def main(params: ParamsFile, probe: Path) -> None:
    """Describe machine, archive and weights, so that a change of any of them re-runs what depends on it."""
    # It runs before all else, every time: a typo in any section is found before hours of work.
    for name, kind in SECTIONS.items():
        params.section(name, kind)
    machine = describe_machine()
    write_json(probe / "machine.json", machine)
    write_json(probe / "source.json", _identify(params.section("data", DataParams).source))
    write_json(probe / "weights.json", _identify(params.section("model", ModelParams).weights))
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    click.echo(f"probe: {machine['processor']}, {machine['cores']} cores{gpu}")


def _identify(name: str) -> dict[str, Any]:
    """A name (`sample`, `random`, a URL) stands for itself; a file's content is what counts."""
    path = find_outside(name)
    return {"sha256": sha256_of(path)} if path.is_file() else {"name": name}


if __name__ == "__main__":
    main()
