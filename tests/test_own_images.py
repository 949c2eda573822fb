"""A user's folder of images, from the parameter that names it to accuracies."""

import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from PIL import Image

from stages.cli import main

SETTINGS = (
    "data.source=pets",
    "data.calibration_images=8",
    "data.evaluation_images=8",
    "runtime.backend=eager",
    "runtime.batch_size=16",
)
FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}


@pytest.fixture
def pets(project: Path) -> Path:
    """Photos of any size and format in class folders, as people have them; one of each pixel only once."""
    rng = np.random.default_rng(0)
    for number in range(18):
        ending = list(FORMATS)[number % 3]
        path = project / f"pets/val/{'cats' if number % 2 else 'big dogs'}/{number}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = io.BytesIO()
        pixels = rng.integers(0, 256, (60 + number, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(stream, FORMATS[ending])
        path.write_bytes(stream.getvalue())
    return project


def call(*words: str, also: tuple[str, ...] = ()) -> str:
    settings = [part for setting in (*SETTINGS, *also) for part in ("--set", setting)]
    done = CliRunner().invoke(main, [*words, *settings])
    assert done.exit_code == 0, done.output
    return done.output


def run_to_delta(*also: str) -> str:
    for stage in ("probe", "download", "prepare"):
        call(stage, also=also)
    for role in ("low", "high"):
        call("extract", role, also=also)
    return call("delta", also=also)


def test_without_a_list_of_classes_the_reason_is_told(pets: Path) -> None:
    told = run_to_delta()
    assert "no accuracies: the weights do not say which classes they tell apart" in told
    assert "accuracy" not in json.loads((pets / "metrics/delta.json").read_text())


def test_a_list_of_classes_gives_accuracies(pets: Path) -> None:
    (pets / "classes.txt").write_text("\n".join(["birds", "big dogs", "cats", *map(str, range(197))]))
    told = run_to_delta("model.classes=classes.txt")
    assert "no accuracies" not in told
    found = json.loads((pets / "metrics/delta.json").read_text())
    assert found["images"] == 16
    wnid_of = dict(pl.read_parquet(pets / "data/images.parquet").select("image_id", "wnid").iter_rows())
    names = (pets / "classes.txt").read_text().split("\n")
    for role in ("low", "high"):
        answers = pl.read_parquet(pets / f"data/embeddings/{role}").select("image_id", "logits")
        right = [
            names[int(np.argmax(logits))] == wnid_of[image_id] for image_id, logits in answers.iter_rows()
        ]
        assert found["accuracy"][role] == sum(right) / 16
