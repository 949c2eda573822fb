"""New images under a fitted policy: what is found, what is answered, what is written, and the command."""

import csv
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from pipeline import ahead
from pipeline.ahead import count_threads
from pipeline.cascade import Bench, Cascade
from pipeline.checkpoint import load_weights
from pipeline.engines.base import Prediction, describe_transform
from pipeline.engines.eager import EagerEngine
from pipeline.errors import PipelineError
from pipeline.image_names import ENDINGS
from pipeline.images import decode_canvas
from pipeline.inputs import find_images
from pipeline.params.model import ModelParams
from pipeline.policy import ALWAYS_ESCALATE, NEVER_ESCALATE, read_policy, score, write_policy
from pipeline.predict import Row, build_cascade, predict
from pipeline.proxies import cls_change
from pipeline.rows import write_rows
from pipeline.tables import read_fingerprint, read_table
from stages.cli import main
from tests import archives, made
from tests.imports import ROOT, import_closure, outside_imports

COUNT = 9
HEADER = ["image", "top1", "score", "escalated"]

(SNIPPET,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def folder_of(path: Path, count: int = COUNT) -> Path:
    """Images of several shapes and kinds, named so that the order is that of the numbers."""
    path.mkdir(parents=True)
    for i in range(count):
        (path / f"{i:02d}.jpg").write_bytes(made.jpeg(i, mode="L" if i % 5 == 0 else "RGB"))
    return path


def conditions(weights, precision="float32"):
    return {
        "weights_sha256": weights.sha256,
        "transform": describe_transform(weights.normalisation),
        "precision": precision,
        "low_px": 32,
        "high_px": 64,
    }


def bench(threshold, direction=1, weights=None, batch_size=2, **kinds):
    weights = weights or made.weights()
    policy = replace(made.policy(threshold, direction), made_for=conditions(weights, **kinds))
    return Bench(weights, {"low": 32, "high": 64}, made.runtime(), policy, batch_size)


def cascade(threshold, direction=1, batch_size=2):
    """The engines are shared by the tests; see `bench` for one that builds its own."""
    engines = {"low": made.engine(32, batch_size), "high": made.engine(64, batch_size)}
    return Cascade(engines, made.policy(threshold, direction))


def canvases(folder: Path) -> torch.Tensor:
    return torch.stack([decode_canvas(path.read_bytes(), 64) for path in sorted(folder.iterdir())])


def proxy_of(folder: Path):
    return cls_change(made.engine(32).run(canvases(folder)).trace, None).numpy().astype(float)


def middle(folder: Path) -> float:
    """A threshold that four of the nine images exceed."""
    return float(np.sort(proxy_of(folder))[4:6].mean())


def names(paths):
    return [image.name for image in find_images(paths)]


def test_files_folders_and_zips_in_the_order_they_are_named_and_sorted_within(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b/2.PNG", "b/10.jpg", "b/deep/er/1.jpeg", "b/a/9.JPG", "b/notes.txt", "b/.hidden.jpg"):
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    Path("b/loop").symlink_to(Path("b").resolve())
    members = {"z/1.png": b"", "1.jpg": b"", "words.txt": b"", "__MACOSX/._1.jpg": b"", "a/x/2.JPEG": b""}
    archives.write_zip(Path("a.zip"), members)
    assert names([Path("b/10.jpg"), Path("a.zip"), Path("b")]) == [
        "b/10.jpg",
        *("a.zip::1.jpg", "a.zip::a/x/2.JPEG", "a.zip::z/1.png"),
        *("b/10.jpg", "b/2.PNG", "b/a/9.JPG", "b/deep/er/1.jpeg"),
    ]
    Path("link").symlink_to("b/a")
    assert names([Path("link"), Path("b/.hidden.jpg")]) == ["link/9.JPG", "b/.hidden.jpg"]
    Path("c").mkdir()
    Path("c/all").symlink_to(Path("b/a").resolve())
    assert names([Path("c")]) == ["c/all/9.JPG"]


def test_a_zip_is_read_in_the_order_of_the_folder_that_it_unpacks_to(tmp_path):
    shown = ["a b/1.jpg", "a-b/1.jpg", "a/1.jpg", "a.jpg", "a/b/2.jpg", "B.jpg"]
    archives.write_zip(tmp_path / "packed.zip", {name: name.encode() for name in shown})
    shutil.unpack_archive(tmp_path / "packed.zip", tmp_path / "packed")
    unpacked = [name.removeprefix(f"{tmp_path}/packed/") for name in names([tmp_path / "packed"])]
    found = [(image.name, image.read()) for image in find_images([tmp_path / "packed.zip"])]
    assert found == [(f"{tmp_path}/packed.zip::{name}", name.encode()) for name in unpacked]


def test_what_holds_no_image_is_an_error_that_says_what_would_do(tmp_path):
    expected = r"expected an image \(\.jpg, .*, \.pgm\), a folder of images or a \.zip of them"
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "a.zip").write_bytes(b"PK")
    archives.write_zip(tmp_path / "none.zip", {"a.txt": b""})
    for path, message in (
        ("gone", "gone: not found; " + expected),
        ("a.txt", r"a\.txt: no image that is known by its ending; " + expected),
        ("a.zip", r"a\.zip: not a readable zip \(.*\); use a whole archive"),
        ("empty", "no images found in .*empty; " + expected),
        ("none.zip", "no images found in .*none.zip; " + expected),
    ):
        with pytest.raises(PipelineError, match=message):
            names([tmp_path / path])
    folder_of(tmp_path / "some", 1)
    assert len(names([tmp_path / "empty", tmp_path / "some"])) == 1


def test_a_name_that_is_no_text_becomes_one(tmp_path):
    (tmp_path / "caf\udce9.jpg").write_bytes(b"")
    assert names([tmp_path]) == [f"{tmp_path}/caf?.jpg"]


@pytest.mark.parametrize(("batch_size", "direction"), [(1, 1), (2, -1), (64, 1)])
def test_rows_are_what_the_cascade_answers_image_by_image(tmp_path, batch_size, direction):
    """In three blocks, in two and in one."""
    folder = folder_of(tmp_path / "new")
    threshold = direction * middle(folder)
    one = cascade(threshold, direction, 1)
    answers = [one.answer("adaptive", canvas[None]) for canvas in canvases(folder)]
    found = list(predict(cascade(threshold, direction, batch_size), find_images([folder])))
    assert [row.image for row in found] == [f"{folder}/{i:02d}.jpg" for i in range(COUNT)]
    assert [row.top1 for row in found] == [int(answer.top1[0]) for answer in answers]
    assert [row.escalated for row in found] == [bool(answer.escalated[0]) for answer in answers]
    assert sum(row.escalated for row in found) == (4 if direction == 1 else 5)
    scores = [row.score for row in found]
    assert scores == pytest.approx(score(proxy_of(folder), direction).tolist(), rel=1e-5)
    assert [value > threshold for value in scores] == [row.escalated for row in found]


class Reusing(EagerEngine):
    """Its predictions lie in the same memory, as those of compiled engines do."""

    memory = np.empty(2)

    def predict(self, canvases):
        found = super().predict(canvases)
        self.memory[: len(canvases)] = found.proxy
        return Prediction(found.top1, self.memory[: len(canvases)])


def test_scores_do_not_change_with_the_engines_next_run(tmp_path):
    folder = folder_of(tmp_path / "new", 5)
    engines = {"low": Reusing(made.spec(32), 2), "high": made.engine(64, 2)}
    found = predict(Cascade(engines, made.policy(NEVER_ESCALATE)), find_images([folder]))
    assert [row.score for row in found] == pytest.approx(proxy_of(folder).tolist(), rel=1e-5)


@pytest.mark.parametrize(("threshold", "role"), [(ALWAYS_ESCALATE, 64), (NEVER_ESCALATE, 32)])
def test_a_policy_that_escalates_always_or_never(tmp_path, threshold, role):
    folder = folder_of(tmp_path / "new", 3)
    found = list(predict(cascade(threshold), find_images([folder])))
    assert {row.escalated for row in found} == {role == 64}
    assert [row.top1 for row in found] == made.engine(role).run(canvases(folder)).logits.argmax(1).tolist()


def test_classes_have_names_where_the_weights_know_them(tmp_path):
    folder = folder_of(tmp_path / "new", 3)
    plain = list(predict(build_cascade(bench(0.0), Path("p.json")), find_images([folder])))
    assert [row.class_name for row in plain] == [None] * 3
    top1 = [row.top1 for row in plain]
    for known in (200, min(top1)):
        weights = replace(made.weights(), classes=tuple(f"n{i}" for i in range(known)))
        found = list(
            predict(build_cascade(bench(0.0, weights=weights), Path("p.json")), find_images([folder]))
        )
        assert [row.class_name for row in found] == [f"n{i}" if i < known else None for i in top1]


def test_a_policy_that_was_made_for_something_else_is_refused():
    assert build_cascade(bench(0.0), Path("p.json")).policies == ("static_low", "static_high", "adaptive")
    with pytest.raises(PipelineError, match=r"p\.json: .*precision = bfloat16, this run has float32"):
        build_cascade(bench(0.0, precision="bfloat16"), Path("p.json"))
    with pytest.raises(PipelineError, match="low_px = 32, this run has 48"):
        build_cascade(replace(bench(0.0), sizes_px={"low": 48, "high": 64}), Path("p.json"))


def broken_folder(path: Path) -> Path:
    folder = folder_of(path)
    (folder / "03.jpg").write_bytes(made.jpeg(3)[:200])
    (folder / "07.jpg").write_bytes(b"")
    return folder


def test_a_broken_image_stops_or_is_left_out_and_named(tmp_path):
    folder = broken_folder(tmp_path / "new")
    with pytest.raises(PipelineError, match=r"new/03\.jpg: broken image \(.*\); .*--on-broken skip"):
        list(predict(cascade(0.0), find_images([folder])))
    named = []
    found = list(predict(cascade(0.0), find_images([folder]), lambda *broken: named.append(broken)))
    assert [Path(row.image).stem for row in found] == [f"{i:02d}" for i in range(COUNT) if i not in (3, 7)]
    assert named[1] == (f"{folder}/07.jpg", "empty file")
    assert named[0][0] == f"{folder}/03.jpg"


def test_the_help_names_every_ending_that_is_accepted():
    shown = CliRunner().invoke(main, ["predict", "--help"]).output
    assert f"Files are {', '.join(ENDINGS[:-1])} and {ENDINGS[-1]}." in " ".join(shown.split())


def test_images_that_are_all_broken_are_an_error_in_any_case(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"none")
    with pytest.raises(PipelineError, match=r"all 2 .* broken, expected JPEG, PNG, WebP, .*a\.jpg: broken"):
        list(predict(cascade(0.0), find_images([tmp_path / "a.jpg"] * 2), lambda *_: None))


def test_a_damaged_an_encrypted_and_a_huge_member_are_broken_images(tmp_path, monkeypatch):
    path = archives.write_zip(tmp_path / "a.zip", {f"{i}.jpg": made.jpeg(i) for i in range(4)})
    packed = bytearray(path.read_bytes())
    at = packed.index(made.jpeg(1)[-40:])
    packed[at] ^= 0xFF
    entries = [i for i in range(len(packed)) if packed[i : i + 4] == b"PK\x01\x02"]
    packed[entries[2] + 8] |= 1  # The flag that tells of encryption.
    packed[entries[3] + 24 : entries[3] + 28] = (2**30).to_bytes(4, "little")  # Bytes when unpacked.
    path.write_bytes(packed)
    named = {}
    found = list(predict(cascade(0.0), find_images([path]), named.__setitem__))
    assert [row.image for row in found] == [f"{path}::0.jpg"]
    for member, reason in (("1", "Bad CRC-32"), ("2", "encrypted"), ("3", "more than the limit")):
        assert reason in named[f"{path}::{member}.jpg"]


def rows(count):
    """Made as they are asked for, with text that a CSV has to quote."""
    for i in range(count):
        yield Row(f'a,"{i}".jpg', f"n{i % 3}", i % 3, i / 3, i % 2 == 0)


@pytest.mark.parametrize("with_class", [True, False])
def test_both_kinds_of_table_hold_the_same(tmp_path, with_class):
    """3,000 rows are more than one row group."""
    for ending in ("csv", "parquet"):
        write_rows(tmp_path / f"out.{ending}", rows(3000), with_class, {"kind": "predictions"})
    columns = ["image", *(["class"] if with_class else []), "top1", "score", "escalated"]
    table = read_table(tmp_path / "out.parquet", columns).to_pylist()
    assert read_fingerprint(tmp_path / "out.parquet") == {"kind": "predictions"}
    with (tmp_path / "out.csv").open(newline="") as stream:
        reader = csv.DictReader(stream)
        found = [{**row, "top1": int(row["top1"]), "score": float(row["score"])} for row in reader]
    assert reader.fieldnames == list(table[0]) == columns
    assert found == [{**row, "escalated": str(row["escalated"]).lower()} for row in table]
    known = {"class": "n1"} if with_class else {}
    assert table[1] == {"image": 'a,"1".jpg', **known, "top1": 1, "score": 1 / 3, "escalated": False}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_nothing_is_left_of_a_table_that_failed(tmp_path, ending):
    def failing():
        yield from rows(2500)
        raise PipelineError("enough")

    (tmp_path / f"out.{ending}").write_text("of an earlier run")
    with pytest.raises(PipelineError, match="enough"):
        write_rows(tmp_path / f"out.{ending}", failing(), True, {})
    assert [path.name for path in tmp_path.iterdir()] == [f"out.{ending}"]
    assert (tmp_path / f"out.{ending}").read_text() == "of an earlier run"


def test_no_more_is_decoded_ahead_than_a_few_blocks(tmp_path):
    """Whatever the number of images: memory does not grow with it."""
    (tmp_path / "a.jpg").write_bytes(made.jpeg(0))
    asked = 0

    def endless():
        nonlocal asked
        while True:
            asked += 1
            yield from find_images([tmp_path / "a.jpg"])

    found = predict(cascade(NEVER_ESCALATE, batch_size=1), endless())
    for _ in range(12):
        next(found)
    found.close()
    # Blocks of 4: three are answered, four wait, one waits to be put beside them, one is begun; beside them
    # the parts that the threads have, one that waits for them, and the one that is being handed out.
    assert asked <= 9 * 4 + (count_threads() + 2) * ahead._PART


def invoke(*words):
    return CliRunner().invoke(main, ["predict", "--set", "backend=eager", "--set", "batch_size=2", *words])


@pytest.fixture
def fitted(project: Path) -> Path:
    """A project with a policy for its random weights, and new images in `photos`."""
    folder_of(project / "photos")
    write_policy(project / "models/policy.json", bench(middle(project / "photos")).policy)
    return project


def read_csv(path: Path) -> list[list[str]]:
    with path.open(newline="") as stream:
        return list(csv.reader(stream))


def test_the_command_answers_files_folders_and_zips(fitted):
    archives.write_zip(Path("more.zip"), {"any/where.png": archives.jpeg(1, size=(90, 60), format="PNG")})
    found = invoke("photos/04.jpg", "more.zip", "photos")
    assert found.exit_code == 0, found.output
    header, *table = read_csv(Path("data/predictions.csv"))
    assert header == HEADER
    order = ["photos/04.jpg", "more.zip::any/where.png", *(f"photos/{i:02d}.jpg" for i in range(COUNT))]
    assert [row[0] for row in table] == order
    assert table[0][1:] == table[6][1:]
    escalated = sum(row[3] == "true" for row in table)
    last = found.stdout.splitlines()[-1]
    assert last.startswith(f"predict: 11 images, {100 * escalated / 11:.1f} % escalated, ")
    assert last.endswith(" images/s; in data/predictions.csv")
    assert "predict: 11 of 11 images" in found.stderr


def test_the_command_writes_parquet_by_its_ending(fitted):
    assert invoke("photos", "--out", "out.parquet").exit_code == 0
    assert invoke("photos", "--out", "out.csv").exit_code == 0
    table = read_table(Path("out.parquet"), HEADER).to_pylist()
    assert [row["image"] for row in table] == [row[0] for row in read_csv(Path("out.csv"))[1:]]
    assert read_fingerprint(Path("out.parquet"))["weights_sha256"] == made.weights().sha256


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photos", "--out", "out.xlsx"], "out.xlsx: no kind of table is known by this ending"),
        (["models"], "no images found in models; expected"),
        (["photos", "gone"], "gone: not found"),
        (["photos", "--policy", "gone.json"], "gone.json: not found"),
        (["photos", "--set", "precision=bfloat16"], "precision = float32, this run has bfloat16"),
        (["photos", "--set", "resolutions.low=48", "--set", "resolutions.mid=56"], "low_px = 32"),
    ],
)
def test_the_command_refuses_before_it_answers(fitted, words, message):
    found = invoke(*words)
    assert found.exit_code == 1
    assert found.stderr.startswith("Error: ")
    assert message in found.stderr
    assert not Path("data").exists()


def test_the_command_on_broken_images(fitted):
    broken_folder(fitted / "some")
    stopped = invoke("some")
    assert stopped.exit_code == 1
    assert "Error: some/03.jpg: broken image" in stopped.stderr
    assert list(Path("data").iterdir()) == []
    skipped = invoke("some", "--on-broken", "skip")
    assert skipped.exit_code == 0
    assert len(read_csv(Path("data/predictions.csv"))) == 1 + COUNT - 2
    assert "left out: some/03.jpg: " in skipped.stderr
    assert "left out: some/07.jpg: empty file" in skipped.stderr
    assert skipped.stdout.startswith(f"predict: {COUNT - 2} images, ")
    assert ", 2 broken left out; " in skipped.stdout


def test_the_command_fails_where_all_images_are_broken(fitted):
    found = invoke("some.jpg", "--on-broken", "skip") if Path("some.jpg").write_bytes(b"no") else None
    assert found.exit_code == 1
    assert "left out: some.jpg: " in found.stderr
    assert "Error: all 1 images are broken" in found.stderr
    assert list(Path("data").iterdir()) == []


def test_the_readmes_snippet_answers_as_the_command_does(fitted, capsys):
    """With the shipped weights, which know their classes; on eager, since others may have to be compiled."""
    shipped = "models/static_vit.safetensors"
    Path(shipped).symlink_to(ROOT / shipped)
    network = ModelParams(name="static_vit_local", weights=shipped, seed=0)
    policy = replace(read_policy(Path("models/policy.json")), made_for=conditions(load_weights(network, 64)))
    write_policy(Path("models/policy.json"), policy)
    exec(SNIPPET.replace('backend="auto"', 'backend="eager"'), {})
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    settings = ("model.name=static_vit_local", f"model.weights={shipped}", "batch_size=64")
    found = invoke("photos", *(word for setting in settings for word in ("--set", setting)))
    assert found.exit_code == 0, found.output
    header, *table = read_csv(Path("data/predictions.csv"))
    assert header == ["image", "class", "top1", "score", "escalated"]
    assert [[row[0], row[1], row[3], row[4].title()] for row in table] == printed
    assert all(row[1].startswith("n0") for row in table)


def test_what_predicts_imports_nothing_that_only_fits_or_reports():
    """Each would add to the second that a first answer takes."""
    found = outside_imports(import_closure(ROOT / "stages/predict.py"))
    assert not found & {"polars", "scipy", "sklearn", "altair"}
