import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result

from pipeline.archive import open_archive
from pipeline.errors import PipelineError
from pipeline.params.data import DataParams
from pipeline.prepare import Prepared, prepare
from pipeline.tables import IMAGES, open_table, read_fingerprint, read_table, write_groups
from stages.prepare import main
from tests.archives import ROOT, balanced, jpeg, members, write_zip

WNIDS = ("n2", "n1")
PASSED_OVER = "passed over, as images in formats that are not read"


def ignore(_: int) -> None:
    pass


def params(calibration: int = 2, evaluation: int = 2, seed: int = 0, on_broken: str = "stop") -> DataParams:
    return DataParams.model_validate(
        {
            "source": "unused",
            "sha256": None,
            "calibration_images": calibration,
            "evaluation_images": evaluation,
            "seed": seed,
            "on_broken": on_broken,
        }
    )


def run(path: Path, values: DataParams) -> Prepared:
    with open_archive(path) as archive:
        prepared = prepare(archive, values, ignore)
        return replace(prepared, groups=list(prepared.groups))


def rows_of(prepared: Prepared) -> list[dict[str, Any]]:
    return pa.concat_tables(prepared.groups).to_pylist()


def table_bytes(path: Path, prepared: Prepared) -> bytes:
    write_groups(path, IMAGES, prepared.groups, prepared.fingerprint)
    return path.read_bytes()


def test_rows_labels_and_bytes(tmp_path: Path) -> None:
    images = balanced(per_class=3)
    prepared = run(write_zip(tmp_path / "a.zip", members(images, WNIDS)), params(4, 2))
    rows = rows_of(prepared)
    assert [row["split"] for row in rows] == ["calibration"] * 4 + ["evaluation"] * 2
    assert [row["image_id"] for row in rows] == sorted(row["image_id"] for row in rows[:4]) + sorted(
        row["image_id"] for row in rows[4:]
    )
    given = {f"val/{name}": (wnid, content) for name, wnid, content in images}
    assert {row["image_id"]: (row["wnid"], row["jpeg"]) for row in rows} == given
    assert all(row["label"] == {"n1": 0, "n2": 1}[row["wnid"]] for row in rows)
    assert Counter((row["split"], row["wnid"]) for row in rows) == {
        ("calibration", "n1"): 2,
        ("calibration", "n2"): 2,
        ("evaluation", "n1"): 1,
        ("evaluation", "n2"): 1,
    }


def test_large_images_come_in_small_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group is read at once: it has the images that fit, or one that does not."""
    archive = write_zip(tmp_path / "a.zip", members(balanced(per_class=3), WNIDS))
    whole = run(archive, params(4, 2))
    size = sum(len(row["jpeg"]) for row in rows_of(whole))
    for most, groups in ((size, 1), (size - 1, 2), (1, 6)):
        monkeypatch.setattr("pipeline.prepare.ROW_GROUP_BYTES", most)
        prepared = run(archive, params(4, 2))
        assert rows_of(prepared) == rows_of(whole)
        table_bytes(tmp_path / "t.parquet", prepared)
        with open_table(tmp_path / "t.parquet") as file:
            assert file.num_row_groups == groups


def test_metrics_and_fingerprint(tmp_path: Path) -> None:
    images = [*balanced(per_class=2), ("val_9.JPEG", "n1", jpeg(9, "L"))]
    prepared = run(write_zip(tmp_path / "a.zip", members(images, WNIDS)), params(3, 2, seed=5))
    assert prepared.metrics == {
        "images": {
            "labelled": 5,
            "broken": 0,
            "duplicates": 0,
            "greyscale": 1,
            "calibration": 3,
            "evaluation": 2,
        },
        "classes": 2,
    }
    assert prepared.fingerprint == {
        "kind": "images",
        "classes": [["n1", "name of n1"], ["n2", "name of n2"]],
        "seed": 5,
        "calibration_images": 3,
        "evaluation_images": 2,
    }


def test_member_order_and_container_leave_no_trace(tmp_path: Path) -> None:
    images = balanced(per_class=10)
    content = members(images, WNIDS)
    shuffled = list(content.items())
    random.Random(1).shuffle(shuffled)
    extra = {f"train/n1/images/n1_{i}.JPEG": jpeg(100 + i) for i in range(3)}
    archives = [
        write_zip(tmp_path / "official.zip", content),
        write_zip(tmp_path / "shuffled.zip", dict(shuffled)),
        write_zip(tmp_path / "bare.zip", members(images[::-1], WNIDS[::-1], root="") | extra, compression=8),
    ]
    tables = {table_bytes(tmp_path / "images.parquet", run(path, params(6, 6))) for path in archives}
    assert len(tables) == 1
    other_seed = run(archives[0], params(6, 6, seed=1))
    assert table_bytes(tmp_path / "images.parquet", other_seed) not in tables


def test_the_same_content_is_used_once_whatever_its_label(tmp_path: Path) -> None:
    images = [
        ("val_2.JPEG", "n1", jpeg(0)),
        ("val_1.JPEG", "n2", jpeg(0)),
        ("val_3.JPEG", "n1", jpeg(1)),
        # Other bytes, the same pixels: a comment after the image's end.
        ("val_0.JPEG", "n1", jpeg(1) + b"comment"),
    ]
    prepared = run(write_zip(tmp_path / "a.zip", members(images, WNIDS)), params(1, 1))
    assert prepared.duplicates == {"val/val_2.JPEG": "val/val_1.JPEG", "val/val_3.JPEG": "val/val_0.JPEG"}
    assert prepared.metrics["images"]["duplicates"] == 2
    assert sorted(row["image_id"] for row in rows_of(prepared)) == ["val/val_0.JPEG", "val/val_1.JPEG"]


def broken_archive(folder: Path) -> Path:
    images = [*balanced(per_class=2), ("val_8.JPEG", "n1", jpeg(8)[:300]), ("val_9.JPEG", "n2", b"")]
    content = members(images, WNIDS)
    del content[f"{ROOT}val/images/val_9.JPEG"]
    return write_zip(folder / "a.zip", content)


def test_a_broken_image_stops_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(
        PipelineError, match=r"val/images/val_8\.JPEG: broken image .*truncated.*on_broken: skip"
    ):
        run(broken_archive(tmp_path), params())


def test_broken_images_are_left_out_listed_and_counted(tmp_path: Path) -> None:
    prepared = run(broken_archive(tmp_path), params(on_broken="skip"))
    assert prepared.broken == {
        "val/val_8.JPEG": "Image is incomplete or truncated",
        "val/val_9.JPEG": "not in the archive",
    }
    assert prepared.metrics["images"]["broken"] == 2
    assert len(rows_of(prepared)) == 4


def test_too_few_images(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="4 usable found"):
        run(broken_archive(tmp_path), params(3, 2, on_broken="skip"))


def invoke(*options: str) -> Result:
    sizes = ("--set", "calibration_images=2", "--set", "data.evaluation_images=2")
    return CliRunner().invoke(main, ["--archive", "a.zip", *sizes, *options])


def test_stage_writes_table_and_metrics(project: Path) -> None:
    write_zip(project / "a.zip", members(balanced(3), WNIDS))
    result = invoke()
    assert result.exit_code == 0, result.output
    assert len(read_table(project / "data/images.parquet", ["image_id"])) == 4
    assert read_fingerprint(project / "data/images.parquet")["kind"] == "images"
    assert json.loads((project / "metrics/prepare.json").read_text())["images"]["calibration"] == 2


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            [
                "train/a/1.jpg",
                "train/b/1.jpg",
                *(f"val/{name}/{i}.jpg" for name in "ab" for i in range(2, 5)),
            ],
            "6 images of 2 classes (a, b); 2 images to train on set aside",
        ),
        (
            [*(f"{name}/1.jpg" for name in "abcde"), "a/1.gif", "a/1.HEIC", "b/2.gif", "__MACOSX/a/._1.gif"],
            f"5 images of 5 classes (a, b, c, ...); {PASSED_OVER}: 2 .gif, 1 .heic",
        ),
        ([f"{i}.jpg" for i in range(4)], "4 images without class folders and labels"),
    ],
)
def test_stage_tells_what_it_takes_the_archive_for(project: Path, content: list[str], told: str) -> None:
    write_zip(project / "a.zip", {name: jpeg(number) for number, name in enumerate(content)})
    result = invoke()
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == f"prepare: {told}"


def test_stage_stops_at_a_broken_image_and_writes_nothing(project: Path) -> None:
    broken_archive(project)
    result = invoke()
    assert result.exit_code == 1
    assert "Error: a.zip: tiny-imagenet-200/val/images/val_8.JPEG: broken image" in result.stderr
    assert "Traceback" not in result.output
    assert not (project / "data/images.parquet").exists()


def test_stage_skips_broken_images_and_lists_them(project: Path) -> None:
    broken_archive(project)
    result = invoke("--set", "data.on_broken=skip")
    assert result.exit_code == 0, result.output
    assert "broken images: 2 left out\n  val/val_8.JPEG: Image is incomplete or truncated" in result.stderr


def test_stage_lists_the_first_twenty_and_counts_the_rest(project: Path) -> None:
    same = [(f"val_{i}.JPEG", "n1", jpeg(50)) for i in range(100, 123)]
    write_zip(project / "a.zip", members([*balanced(2), *same], WNIDS))
    result = invoke()
    assert "images of the same content as another: 22 left out" in result.stderr
    assert result.stderr.count(": val/val_100.JPEG") == 20
    assert "and 2 more" in result.stderr


def test_stage_names_the_nearest_key(project: Path) -> None:
    result = invoke("--set", "data.on_brokn=skip")
    assert result.exit_code == 1
    assert "data.on_brokn: unknown key; did you mean 'on_broken'?" in result.stderr


def test_stage_without_an_archive(project: Path) -> None:
    result = invoke()
    assert result.exit_code == 1
    assert "a.zip: not found; run download for the archive of data.source" in result.stderr


def test_the_real_images(real_archive: Path, tmp_path: Path) -> None:
    prepared = run(real_archive, params(2000, 2000))
    images = prepared.metrics["images"]
    assert prepared.metrics["classes"] == 200
    assert (images["labelled"], images["broken"], images["duplicates"]) == (10_000, 0, 0)
    assert 40 <= images["greyscale"] <= 110
    rows = rows_of(prepared)
    assert set(Counter((row["split"], row["wnid"]) for row in rows).values()) == {10}
    again = run(real_archive, params(2000, 2000))
    assert table_bytes(tmp_path / "a", prepared) == table_bytes(tmp_path / "b", again)
