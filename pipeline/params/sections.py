"""Every section of params.yaml, in the order of the file."""

from pipeline.params.base import Section
from pipeline.params.data import DataParams
from pipeline.params.extract import ExtractParams
from pipeline.params.fit import FitParams
from pipeline.params.model import ModelParams, ResolutionParams
from pipeline.params.replay import ReplayParams
from pipeline.params.report import ReportParams
from pipeline.params.runtime import RuntimeParams
from pipeline.params.train import TrainParams

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
