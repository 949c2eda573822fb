"""Note what DVC cannot see by itself: the machine, and the outside files that the parameters name."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from pipeline.errors import PipelineError
from pipeline.files import sha256_of, write_json
from pipeline.folders import identify_folder
from pipeline.machine import describe_machine
from pipeline.outside import find_outside
from pipeline.params.data import DataParams
from pipeline.params.model import ModelParams, ResolutionParams
from pipeline.params.sections import SECTIONS
from stages.common import ParamsFile, path_option, stage_command

# What dvc.yaml says that download writes.
ARCHIVE = Path("data/raw/archive.zip")
# Of the project's own networks, as pipeline.architecture has them, which would bring torch and timm and so
# seconds. What timm names is checked where it is built.
PATCH_PX = {"static_vit": 4, "static_vit_local": 4, "vit_base_patch16": 16}
# timm has no name as like one of these as _TYPO.
_OURS_ALONE = ("static_vit", "static_vit_local")
_TYPO = 0.75


@stage_command("data")
@path_option("probe", "data/probe", "Folder for machine.json, source.json and weights.json.")
def main(params: ParamsFile, probe: Path) -> None:
    """Describe machine, archive and weights, so that a change of any of them re-runs what depends on it.

    It checks all of the parameters, too: names, types and ranges.
    """
    # It runs before all else, every time: a typo in any section is found before hours of work.
    for name, kind in SECTIONS.items():
        params.section(name, kind)
    model = params.section("model", ModelParams)
    _check_model(model, params.section("resolutions", ResolutionParams))
    machine = describe_machine()
    write_json(probe / "machine.json", machine)
    source = params.section("data", DataParams).source
    _check_source(source)
    write_json(probe / "source.json", _identify(source))
    classes = {"classes": _identify(model.classes)} if model.classes else {}
    write_json(probe / "weights.json", _identify(model.weights) | classes)
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    click.echo(f"probe: {machine['processor']}, {machine['cores']} cores{gpu}")


def _check_model(model: ModelParams, resolutions: ResolutionParams) -> None:
    """What can be told of name, weights and sizes without building the network."""
    near = get_close_matches(model.name, _OURS_ALONE, n=1, cutoff=_TYPO)
    if near and model.name not in PATCH_PX:
        raise PipelineError(
            f"model.name: neither this project nor timm has a model {model.name!r}; did you mean {near[0]}?"
        )
    path = find_outside(model.weights)
    if model.weights != "random" and not path.is_file():
        raise PipelineError(
            f"model.weights: {path} is no file that can be read; name a .safetensors or .pth file, "
            "or use: random"
        )
    if model.classes and not find_outside(model.classes).is_file():
        raise PipelineError(
            f"model.classes: {model.classes} is no file that can be read; name a text with a class a line, "
            "or leave it empty"
        )
    patch_px = PATCH_PX.get(model.name, 1)
    for role, size_px in resolutions.by_role().items():
        if rest := size_px % patch_px:
            raise PipelineError(
                f"resolutions.{role}: {size_px} px is no multiple of the model's patch size {patch_px}; "
                f"use {size_px - rest} or {size_px - rest + patch_px}"
            )


def _check_source(source: str) -> None:
    if find_outside(source).resolve() == ARCHIVE.resolve():
        raise PipelineError(
            f"data.source: {source} is where download puts its copy, and DVC deletes what is there before it "
            "runs download; move the file elsewhere, and name that"
        )


def _identify(name: str) -> dict[str, Any]:
    """A name (`sample`, `random`, a URL) stands for itself; a file's content is what counts.

    Of a folder it is the names, sizes and times of its files: they may be many gigabytes.
    """
    path = find_outside(name)
    if path.is_dir():
        return {"files_sha256": identify_folder(path)}
    return {"sha256": sha256_of(path)} if path.is_file() else {"name": name}


if __name__ == "__main__":
    main()
