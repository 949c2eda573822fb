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


def test_a_processor_that_tells_no_family_has_its_name_alone(monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text("model name\t: Neoverse-N1\nFeatures\t: asimd\n")
    monkeypatch.setattr(processor, "_CPU_INFO", tmp_path / "cpuinfo")
    assert processor.processor_model() == "Neoverse-N1"


def test_a_system_that_tells_nothing_has_no_instructions(monkeypatch, tmp_path):
    monkeypatch.setattr(processor, "_CPU_INFO", tmp_path / "none")
    assert processor.processor_flags() == set()
    assert (processor.processor_vendor(), processor.processor_model()) == ("", "")
