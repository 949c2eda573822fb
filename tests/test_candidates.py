import json

import pytest

from pipeline.candidates import read_scenario
from pipeline.errors import PipelineError


@pytest.mark.parametrize(
    ("document", "held"), [({"offline": {}, "engine": {}}, "offline"), ({"engine": {}}, "none")]
)
def test_a_scenario_that_was_not_replayed_is_told_with_those_that_were(tmp_path, document, held):
    path = tmp_path / "replay.json"
    path.write_text(json.dumps(document))
    with pytest.raises(PipelineError, match=rf"single_stream was not replayed; it holds {held}\. Put it"):
        read_scenario(path, "single_stream")


def test_a_scenario_that_was_replayed_is_returned(tmp_path):
    (tmp_path / "replay.json").write_text(json.dumps({"offline": {"images": 3}, "engine": {}}))
    assert read_scenario(tmp_path / "replay.json", "offline") == {"images": 3}
