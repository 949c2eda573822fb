"""`adaptive-vit download`: the archive of `data.source`, verified, where the next stage reads it."""

from pathlib import Path

from pipeline.download import bring_archive
from pipeline.params.base import Section
from pipeline.params.data import DataParams
from pipeline.params.extract import ExtractParams
from pipeline.params.fit import FitParams
from pipeline.params.model import ModelParams, ResolutionParams
from pipeline.params.replay import ReplayParams
from pipeline.params.report import ReportParams
from pipeline.params.runtime import RuntimeParams
from pipeline.params.train import TrainParams
from stages.common import ParamsFile, path_option, stage_command
from stages.progress import progress

SECTIONS: dict[str, type[Section]] = {
    "data": DataParams,
    "train": TrainParams,
    "model": ModelParams,
    "resolutions": ResolutionParams,
    "runtime": RuntimeParams,
    "extract": ExtractParams,
    "fit": FitParams,
    "replay": ReplayParams,
    "report": ReportParams,
}


@stage_command("data")
@path_option("archive", "data/raw/archive.zip", "Where to put the archive.")
def main(params: ParamsFile, archive: Path) -> None:
    """Bring the archive: the official one, the sample, or a zip of your own."""
    # The first stage reads every section: a typo in the last one is found before hours of work.
    for name, kind in SECTIONS.items():
        params.section(name, kind)
    values = params.section("data", DataParams)
    bring_archive(values.source, values.sha256, archive, progress)


if __name__ == "__main__":
    main()
