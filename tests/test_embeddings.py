import pytest

from pipeline.embeddings import measure_proxy
from pipeline.errors import PipelineError
from tests.sets import write_set


def first_logit(_trace, logits):
    return logits[:, 0]


def test_a_proxy_is_measured_of_every_image_once(tmp_path):
    folder = write_set(tmp_path / "low", "low", ["a", "b"], [[0.0], [0.0]], [[1.0], [2.0]], images=3)
    with pytest.raises(PipelineError, match="low: holds 2 rows of 2 images, expected 3; run extract again"):
        measure_proxy(folder, first_logit)
    write_set(folder, "low", ["c"], [[0.0]], [[3.0]], images=3)
    ids, values = measure_proxy(folder, first_logit)
    assert (ids, values.tolist()) == (["a", "b", "c"], [1.0, 2.0, 3.0])
    write_set(folder, "low", ["a"], [[0.0]], [[1.0]], images=3)
    with pytest.raises(PipelineError, match="low: holds 4 rows of 3 images, expected 3"):
        measure_proxy(folder, first_logit)
