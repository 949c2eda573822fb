"""The folder of metrics files, read as one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.files import read_json

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Metrics:
    """The metrics folder; None or empty where an optional file is absent."""

    replay: Document
    fit: Document
    environment: Document
    prepare: Document | None = None
    delta: Document | None = None
    profile: Document | None = None
    proxies: Document | None = None
    proxy_costs: Document | None = None
    extract: Mapping[str, Document] = field(default_factory=dict)


def require_file(path: Path, stage: str) -> Path:
    if not path.is_file():
        raise PipelineError(
            f"{path}: not found; stage {stage} writes it: run dvc repro, or adaptive-vit {stage}"
        )
    return path


def read_metrics(folder: Path) -> Metrics:
    """Read the metrics JSON files; raises PipelineError where replay, fit or environment is missing."""
    optional = {
        name: read_json(folder / f"{name}.json")
        for name in ("prepare", "delta", "profile", "proxies", "proxy_costs")
        if (folder / f"{name}.json").is_file()
    }
    return Metrics(
        replay=read_json(require_file(folder / "replay.json", "replay")),
        fit=read_json(require_file(folder / "fit.json", "fit")),
        environment=read_json(require_file(folder / "environment.json", "replay")),
        extract={
            role: read_json(path)
            for role in ("low", "high")
            if (path := folder / "extract" / f"{role}.json").is_file()
        },
        **optional,
    )
