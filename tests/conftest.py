"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest
import yaml

from pipeline.measure import Sample, read_sample
from tests.made import images_table

REPOSITORY = Path(__file__).parent.parent
REAL_ARCHIVE = REPOSITORY.parent / "shared/data/tiny-imagenet-200-subset.zip"


def pytest_configure(config: pytest.Config) -> None:
    # torchvision 0.29 announces that its decoders move to TorchCodec; requirements.lock pins the version.
    message = "ignore:The image decoding and encoding capabilities:DeprecationWarning"
    config.addinivalue_line("filterwarnings", message)
    # Where git runs the tests, as in a hook, it names its own repository; those of the tests are others.
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"):
        os.environ.pop(name, None)


def write_project(folder: Path) -> None:
    """An empty project with the repository's parameters."""
    document = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    # `make run` leaves the sample's values in the working tree; tests do not depend on them.
    document["data"] |= {"source": "tiny-imagenet", "calibration_images": 2000, "evaluation_images": 2000}
    document["model"] |= {"name": "static_vit", "weights": "random"}
    document["runtime"] |= {"device": "cpu"}  # Where there is a GPU, tests ask for it.
    (folder / "params.yaml").write_text(yaml.safe_dump(document))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As `write_project` has it, as the current folder."""
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    """Seven evaluation images, decoded, of a table of fourteen in the same folder."""
    return read_sample(images_table(tmp_path / "images.parquet", 14), 64, None)


@pytest.fixture(scope="session")
def real_archive() -> Path:
    if not REAL_ARCHIVE.exists():
        pytest.skip(f"the real images are not here: {REAL_ARCHIVE}")
    return REAL_ARCHIVE
