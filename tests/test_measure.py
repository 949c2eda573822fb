import numpy as np
import pytest

from pipeline.answers import NEEDS, Answers
from pipeline.errors import PipelineError
from pipeline.measure import Sample, choose_batches, measure_memory, measure_scenario, read_sample
from tests.machines import skip_without_memory
from tests.made import canvases, images_table, runtime
from tests.replays import PARAMS, bench


def test_only_evaluation_images_are_replayed(tmp_path, sample):
    assert sample.image_ids == [f"val/val_{i:03d}.JPEG" for i in range(7, 14)]
    assert sample.canvases.shape == (7, 3, 64, 64)


def test_some_of_the_images_are_a_draw_and_not_the_first_by_name(tmp_path, sample):
    found = read_sample(tmp_path / "images.parquet", 64, 3)
    assert found.image_ids == sorted(found.image_ids)
    assert set(found.image_ids) < set(sample.image_ids)
    assert found.image_ids != sample.image_ids[:3]
    assert len(found.canvases) == 3


def test_a_damaged_image_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.made.jpeg", lambda *_, **__: b"")
    path = images_table(tmp_path / "damaged.parquet", 2)
    with pytest.raises(
        PipelineError, match=r"val/val_001.JPEG: cannot be decoded \(empty file\); run prepare"
    ):
        read_sample(path, 64, None)


class Clock:
    """Time passes only where an engine says so."""

    now_s = 0.0

    def perf_counter(self):
        return self.now_s


class Slow:
    """An engine that takes 1 s for each image, 2 s for each batch, and 10 s more for one above `most`."""

    runtime = runtime()

    def __init__(self, clock, most, batch_size=8):
        self.clock, self.most, self.batch_size = clock, most, batch_size

    def upload(self, images):
        return images

    def run(self, images):
        self.clock.now_s += len(images) + 2 + 10 * (len(images) > self.most)


def test_each_role_gets_the_batch_that_takes_least_time_per_image(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("pipeline.measure.time", clock)
    assert choose_batches({"low": Slow(clock, 4), "high": Slow(clock, 2)}, canvases(8)) == {
        "low": 4,
        "high": 2,
    }
    assert choose_batches({"low": Slow(clock, 4, batch_size=1)}, canvases(2)) == {"low": 1}


class Fresh(Slow):
    """Its first batch takes no time, as on a processor that is still cool."""

    first = True

    def run(self, images):
        if not self.first:
            super().run(images)
        self.first = False


def test_what_the_first_round_took_does_not_count(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("pipeline.measure.time", clock)
    assert choose_batches({"low": Fresh(clock, 4)}, canvases(8)) == {"low": 4}


class Recording:
    """A cascade that answers nothing and notes which policy it was asked for."""

    policies = tuple(NEEDS)

    def __init__(self):
        self.asked = []

    def answer(self, name, canvases):
        self.asked.append(name)
        return Answers(np.zeros(len(canvases), dtype=np.int64), np.zeros(len(canvases), dtype=bool))


def test_every_block_draws_the_order_of_the_policies_anew():
    cascade, count = Recording(), len(NEEDS)
    sample = Sample([], [], canvases(10 * PARAMS.offline_block))
    measure_scenario("offline", cascade, sample, PARAMS, lambda _: None)
    asked = cascade.asked[-10 * count :]
    orders = [tuple(asked[start : start + count]) for start in range(0, len(asked), count)]
    assert all(sorted(order) == sorted(NEEDS) for order in orders)
    assert {order[0] for order in orders} == set(NEEDS)


def test_every_policy_meets_every_image_once_in_each_block(sample):
    made, _ = bench(sample)
    found, _settled = measure_scenario(
        "single_stream", made.build({"low": 1, "mid": 1, "high": 1}), sample, PARAMS, lambda _: None
    )
    assert list(found) == list(NEEDS)
    for one in found.values():
        assert one.block.tolist() == [0, 0, 1, 1, 2, 2, 3]
        assert (one.latency_ms > 0).all()


def test_each_policy_is_charged_for_its_own_engines_only(sample):
    skip_without_memory()
    made, _ = bench(sample)
    peaks_mb = measure_memory(made, {"low": 3, "high": 3}, sample.canvases, "single_stream")
    assert peaks_mb["adaptive"] > peaks_mb["static_low"] + 15  # 22 MB are a second engine's weights
    assert peaks_mb["adaptive"] > peaks_mb["static_high"] + 10
