import json
import math
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import PipelineError
from pipeline.files import read_json, sha256_of, whole_file, write_csv, write_json


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    with pytest.raises(RuntimeError), whole_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(path.parent.iterdir()) == []
    with whole_file(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), whole_file(path) as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert path.read_text() == "old"


def test_a_full_disk_is_named_and_the_old_file_stays(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(PipelineError, match=r"file\.txt: no room left on its disk"), whole_file(path):
        Path("/dev/full").write_text("new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_others_may_read_what_is_written_as_they_may_any_new_file(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        with whole_file(tmp_path / "file.txt") as temporary:
            temporary.write_text("whole")
        with whole_file(tmp_path / "weights") as temporary:
            save_file({"a": torch.zeros(1)}, temporary)
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "file.txt": mode,
        "weights": mode,
    }


def test_json_leaves_out_what_dvc_cannot_compare(tmp_path):
    write_json(
        tmp_path / "m.json", {"a": 1.5, "nan": math.nan, "none": None, "in": [{"x": math.nan, "y": 2}]}
    )
    assert json.loads((tmp_path / "m.json").read_text()) == {"a": 1.5, "in": [{"y": 2}]}


def test_json_keeps_a_float_at_full_precision(tmp_path):
    value = 0.1 + 0.2
    write_json(tmp_path / "m.json", {"value": value})
    assert read_json(tmp_path / "m.json")["value"] == value


def test_infinity_is_refused_instead_of_written_as_no_json(tmp_path):
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "m.json", {"value": math.inf})
    assert not (tmp_path / "m.json").exists()


@pytest.mark.parametrize(("text", "message"), [("{", "not valid JSON"), ("[1]", "expected a JSON object")])
def test_reading_what_is_no_json_object_says_so(tmp_path, text, message):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(PipelineError, match=message):
        read_json(tmp_path / "m.json")


def test_a_missing_input_is_named_with_what_to_do(tmp_path):
    for read in (read_json, sha256_of):
        with pytest.raises(PipelineError, match=r"none: not found; run the stage"):
            read(tmp_path / "none")


def test_csv_has_a_header_and_full_precision(tmp_path):
    write_csv(tmp_path / "t.csv", {"x": [1, 2], "y": [0.1 + 0.2, 1.0]})
    assert (tmp_path / "t.csv").read_text() == "x,y\n1,0.30000000000000004\n2,1.0\n"


def test_sha256(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256_of(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
