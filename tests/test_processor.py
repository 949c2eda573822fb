import pytest

from pipeline import processor


def test_what_linux_tells_of_the_processor_is_read_from_its_first_core(monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text(
        "vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n"
        "flags\t\t: fpu amx_tile\nbugs\t\t: x\n\nmodel name\t: another\nflags\t\t: other\n"
    )
    monkeypatch.setattr(processor, "_CPU_INFO", tmp_path / "cpuinfo")
    assert processor.processor_flags() == {"fpu", "amx_tile"}
    assert processor.processor_vendor() == "AuthenticAMD"
    assert processor.processor_model() == "AMD EPYC, family 25 model 17"


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("50000 100000\n", 1),
        ("?", 8),
        (None, 8),
    ],
)
def test_a_container_has_the_cores_that_it_has_the_time_of(monkeypatch, tmp_path, text, cores):
    monkeypatch.setattr(processor, "_CGROUP", tmp_path)
    monkeypatch.setattr(processor.os, "sched_getaffinity", lambda _process: range(8))
    if text is not None:
        (tmp_path / "cpu.max").write_text(text)
    assert processor.count_cores() == cores


def test_a_processor_that_tells_no_family_has_its_name_alone(monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text("model name\t: Neoverse-N1\nFeatures\t: asimd\n")
    monkeypatch.setattr(processor, "_CPU_INFO", tmp_path / "cpuinfo")
    assert processor.processor_model() == "Neoverse-N1"


def test_a_system_that_tells_nothing_has_no_instructions(monkeypatch, tmp_path):
    monkeypatch.setattr(processor, "_CPU_INFO", tmp_path / "none")
    assert processor.processor_flags() == set()
    assert (processor.processor_vendor(), processor.processor_model()) == ("", "")
