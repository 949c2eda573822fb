from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from pipeline.embeddings import iter_embeddings, measure_proxy
from pipeline.engines.base import Answer
from pipeline.engines.eager import EagerEngine
from pipeline.errors import PipelineError
from pipeline.extract import _forward, build_within_memory, check_finite, extract, find_finished
from pipeline.images import decode_canvas, decode_stored
from pipeline.proxies import cls_change
from pipeline.reader import read_batches
from pipeline.tables import count_rows, open_table, read_fingerprint, vectors
from pipeline.tally import Tally
from stages import extract as stage
from stages.extract import _publish, _scratch, main
from tests.made import engine, images_table, jpeg, runtime, spec
from tests.sets import write_set

FINGERPRINT = {"role": "low", "trace_states": 13}


@pytest.fixture
def images(tmp_path):
    return images_table(tmp_path / "images.parquet", 10)


def run(images, folder, on_progress=lambda _: None, size_px=32, batch_size=3, shard_images=4):
    return extract(images, folder, engine(size_px), FINGERPRINT, 64, batch_size, shard_images, on_progress)


def test_batches_never_cross_a_shard(images):
    batches = list(read_batches(images, set(), 64, batch_size=3, shard_images=4, tally=Tally()))
    assert [(batch.shard, len(batch.image_ids)) for batch in batches] == [
        (0, 3),
        (0, 1),
        (1, 3),
        (1, 1),
        (2, 2),
    ]
    assert [name for batch in batches for name in batch.image_ids] == [
        f"val/val_{i:03d}.JPEG" for i in range(10)
    ]


def test_finished_shards_are_not_decoded(images, monkeypatch):
    decoded = []

    def decode(image_id, *rest):
        decoded.append(image_id)
        return decode_stored(image_id, *rest)

    monkeypatch.setattr("pipeline.reader.decode_stored", decode)
    batches = list(read_batches(images, {0, 2}, 64, batch_size=4, shard_images=4, tally=Tally()))
    assert [batch.shard for batch in batches] == [1]
    assert sorted(decoded) == [f"val/val_{i:03d}.JPEG" for i in range(4, 8)]


@pytest.mark.parametrize("size_px", [32, 64])
def test_every_value_is_that_of_a_pass_of_its_image_alone(images, tmp_path, size_px):
    run(images, tmp_path / "set", size_px=size_px)
    batches = list(iter_embeddings(tmp_path / "set", ["image_id", "embedding", "trace", "logits"]))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    rows = [(batch, row) for batch in batches for row in range(len(batch))]
    for seed, (batch, row) in enumerate(rows):
        canvas = decode_canvas(jpeg(seed, mode="L" if seed % 5 == 0 else "RGB"), 64)[None]
        alone = engine(size_px).run(canvas)
        assert batch["image_id"][row].as_py() == f"val/val_{seed:03d}.JPEG"
        for name in ("embedding", "trace", "logits"):
            np.testing.assert_allclose(
                vectors(batch[name])[row], getattr(alone, name).numpy().reshape(-1), atol=1e-4
            )


def test_a_shard_is_written_in_row_groups_whose_bounds_no_batch_moves(images, tmp_path, monkeypatch):
    run(images, tmp_path / "whole", shard_images=8)
    monkeypatch.setattr("pipeline.writer.GROUP_ROWS", 5)
    run(images, tmp_path / "parts", shard_images=8)
    for path in (tmp_path / "whole").iterdir():
        parts = open_table(tmp_path / "parts" / path.name)
        assert parts.read() == open_table(path).read()
        rows = [parts.metadata.row_group(group).num_rows for group in range(parts.num_row_groups)]
        assert rows == {"part-00000.parquet": [5, 3], "part-00001.parquet": [2]}[path.name]


def test_the_stored_trace_gives_the_proxy(images, tmp_path):
    run(images, tmp_path / "set")
    ids, proxy = measure_proxy(tmp_path / "set", cls_change)
    assert len(ids) == 10
    canvas = decode_canvas(jpeg(1), 64)[None]
    assert proxy[1] == pytest.approx(cls_change(engine(32).run(canvas).trace, None).item(), abs=1e-4)


def test_a_resumed_run_gives_the_same_bytes_and_does_only_what_is_left(images, tmp_path):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    run(images, whole)
    run(images, resumed)
    (resumed / "part-00001.parquet").unlink()
    progress = []
    tally = run(images, resumed, progress.append)
    assert (tally.images, tally.resumed_images) == (4, 6)
    assert progress[0] == 6
    assert sum(progress) == 10
    for path in whole.iterdir():
        assert (resumed / path.name).read_bytes() == path.read_bytes()


def test_shards_of_other_settings_are_not_resumed(images, tmp_path):
    run(images, tmp_path / "set")
    with pytest.raises(PipelineError, match=r"part-00000.parquet: left by a run with other settings; delete"):
        find_finished(tmp_path / "set", {"role": "high"}, 10, 4)
    with pytest.raises(PipelineError, match="left by a run with other settings"):
        find_finished(tmp_path / "set", FINGERPRINT, 10, 5)


@pytest.mark.parametrize("changed", ["device", "code", "machine"])
def test_a_killed_run_is_not_gone_on_with_elsewhere_or_by_other_code(changed, monkeypatch):
    target = Path("sets/low")
    first = _scratch(FINGERPRINT, runtime(), 3, 4, target)
    assert _scratch(FINGERPRINT, runtime(), 3, 4, target) == first
    assert _scratch(FINGERPRINT, runtime(), 3, 4, Path("others/low")) != first
    device = torch.device("cuda" if changed == "device" else "cpu")
    if changed != "device":
        name = {"code": "_digest_code", "machine": "describe_machine"}[changed]
        monkeypatch.setattr(stage, name, lambda: "another")
    assert _scratch(FINGERPRINT, replace(runtime(), device=device), 3, 4, target) != first


def test_what_a_killed_run_was_writing_is_not_kept(images, tmp_path):
    folder = tmp_path / "set"
    run(images, folder)
    (folder / "part-00002.parquet").rename(folder / ".part-00002.parquet.x1y2.tmp")
    run(images, folder)
    assert sorted(path.name for path in folder.iterdir()) == [f"part-0000{n}.parquet" for n in range(3)]


class Greedy:
    """An engine that runs out of memory above two images."""

    batch_size = 8

    def __init__(self, limit: int, error: Exception) -> None:
        self.limit, self.error, self.sizes = limit, error, []

    def upload(self, canvases):
        return canvases

    def run(self, canvases):
        self.sizes.append(len(canvases))
        if len(canvases) > self.limit:
            raise self.error
        return engine(32).run(canvases)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        MemoryError(),
    ],
)
def test_out_of_memory_halves_the_batch_and_is_counted(images, tmp_path, error):
    greedy = Greedy(2, error)
    tally = extract(images, tmp_path / "set", greedy, FINGERPRINT, 64, 8, 10, lambda _: None)
    assert greedy.sizes == [8, 4, 2, 2, 2, 2, 2]
    assert (tally.batch_size, tally.out_of_memory_halvings, tally.images) == (2, 2, 10)
    assert count_rows(tmp_path / "set" / "part-00000.parquet") == 10


def test_an_engine_that_cannot_be_built_is_built_for_half_the_batch(images, tmp_path, monkeypatch):
    asked = []

    def build(_spec, batch_size):
        asked.append(batch_size)
        if batch_size > 2:
            raise MemoryError
        return engine(32, batch_size)

    monkeypatch.setattr("pipeline.extract.build_engine", build)
    built = build_within_memory(spec(32), 8)
    assert asked == [8, 4, 2]
    tally = extract(images, tmp_path / "set", built, FINGERPRINT, 64, 8, 10, lambda _: None)
    assert (tally.batch_size, tally.out_of_memory_halvings, tally.images) == (2, 2, 10)


@pytest.mark.parametrize(("asked", "fitting", "halvings"), [(3, 1, 1), (7, 1, 2), (7, 3, 1), (8, 1, 3)])
def test_halvings_to_a_whole_number_are_counted(images, tmp_path, asked, fitting, halvings):
    built = engine(32, fitting)
    tally = extract(images, tmp_path / "set", built, FINGERPRINT, 64, asked, 10, lambda _: None)
    assert (tally.batch_size, tally.out_of_memory_halvings) == (fitting, halvings)


def test_out_of_memory_at_one_image_says_so(images, tmp_path):
    with pytest.raises(PipelineError, match="out of memory at a batch of one image"):
        extract(images, tmp_path / "s", Greedy(0, MemoryError()), FINGERPRINT, 64, 2, 4, lambda _: None)


def test_another_fault_of_the_engine_is_raised_as_it_is(images):
    (batch, *_) = read_batches(images, set(), 64, 2, 4, Tally())
    with pytest.raises(RuntimeError, match="shape mismatch"):
        _forward(Greedy(0, RuntimeError("shape mismatch")), batch, Tally(batch_size=2))


@pytest.mark.parametrize(
    ("field", "index", "value", "layer"),
    [
        ("trace", (1, 0, 5), float("nan"), "the embedding layer"),
        ("trace", (1, 7, 0), float("inf"), "block 7"),
        ("embedding", (1, 3), float("nan"), "the final norm"),
        ("logits", (1, 9), float("-inf"), "the head"),
    ],
)
def test_nan_and_infinity_name_image_and_layer(field, index, value, layer):
    result = Answer(torch.zeros(3, 200), torch.zeros(3, 192), torch.zeros(3, 13, 192))
    check_finite(["a", "b", "c"], result)
    getattr(result, field)[index] = value
    with pytest.raises(PipelineError, match=f"b: NaN or infinity after {layer};"):
        check_finite(["a", "b", "c"], result)


def test_a_failing_reader_stops_the_run_and_leaves_whole_shards_only(images, tmp_path, monkeypatch):
    def decode(data, size_px):
        if data == jpeg(6):
            raise ValueError("broken")
        return decode_canvas(data, size_px)

    monkeypatch.setattr("pipeline.images.decode_canvas", decode)
    with pytest.raises(PipelineError, match=r"val/val_006.JPEG: cannot be decoded \(broken\)"):
        run(images, tmp_path / "set", batch_size=2)
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["part-00000.parquet"]


def test_what_extract_did_not_write_is_not_deleted(project):
    folder = write_set(project / "sets/low", "low", ["a"], [[0.0]], [[0.0]])
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(
        PipelineError, match="low: holds notes.txt, which extract does not write, and would be"
    ):
        _publish(project / "scratch", folder)
    found = CliRunner().invoke(main, ["low", "--embeddings", "sets"])
    assert found.exit_code == 1
    assert "holds notes.txt" in found.stderr  # Before the images are looked for, which there are none of.
    assert (folder / "notes.txt").read_text() == "mine"


def test_an_earlier_set_is_replaced_as_a_whole(project):
    folder = write_set(project / "sets/low", "low", ["a"], [[0.0]], [[0.0]])
    write_set(folder, "low", ["b"], [[0.0]], [[0.0]])
    _publish(write_set(project / "scratch", "low", ["c"], [[0.0]], [[0.0]]), folder)
    assert [path.name for path in folder.iterdir()] == ["part-00000.parquet"]
    (batch,) = iter_embeddings(folder, ["image_id"])
    assert batch["image_id"].to_pylist() == ["c"]


def test_low_has_its_own_precision_and_high_the_others(project):
    images_table(project / "images.parquet", 4)
    for role in ("low", "high"):
        settings = ("runtime.backend=eager", "runtime.low_precision=bfloat16")
        words = [role, "--images", "images.parquet", "--embeddings", "sets", "--metrics", "sets/m"]
        found = CliRunner().invoke(main, [*words, *(f"--set={setting}" for setting in settings)])
        assert found.exit_code == 0, found.output
        (batch,) = iter_embeddings(Path("sets") / role, ["embedding"])
        size_px, precision = {"low": (32, "bfloat16"), "high": (64, "float32")}[role]
        canvas = torch.stack([decode_canvas(jpeg(0, mode="L"), 64)])
        alone = EagerEngine(spec(size_px, "eager", precision), 1).run(canvas).embedding.numpy()
        np.testing.assert_allclose(vectors(batch["embedding"])[:1], alone, rtol=0, atol=1e-4)
        said = read_fingerprint(Path("sets") / role / "part-00000.parquet")
        assert (said["precision"], said.get("high_precision")) == (
            precision,
            "float32" if role == "low" else None,
        )


def test_only_what_was_left_of_the_same_set_is_dropped(project):
    images_table(project / "images.parquet", 4)
    scratch = {
        name: _scratch(FINGERPRINT, runtime(), 3, 4, Path(name) / "low") for name in ("sets", "others")
    }
    for folder in scratch.values():
        folder.mkdir(parents=True)
    found = CliRunner().invoke(
        main, ["low", "--images", "images.parquet", "--embeddings", "sets", "--metrics", "sets/m"]
    )
    assert found.exit_code == 0, found.output
    assert [path.name for path in stage.SCRATCH.iterdir()] == [scratch["others"].name]


def test_a_failing_writer_stops_the_run(images, tmp_path, monkeypatch):
    def write(*_args):
        raise OSError("No space left on device")

    monkeypatch.setattr("pipeline.writer.write_groups", write)
    with pytest.raises(OSError, match="No space left"):
        run(images, tmp_path / "set")


def test_after_a_failed_write_no_more_is_computed_than_was_under_way(images, tmp_path, monkeypatch):
    """Ten shards of one image: the third needs the first one's buffer back, the fourth finds the failure."""

    def write(*_args):
        raise OSError("No space left on device")

    monkeypatch.setattr("pipeline.writer.write_groups", write)
    counting = Greedy(1, MemoryError())
    with pytest.raises(OSError, match="No space left"):
        extract(images, tmp_path / "set", counting, FINGERPRINT, 64, 1, 1, lambda _: None)
    assert len(counting.sizes) <= 4
