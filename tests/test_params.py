import subprocess

import pytest
import yaml
from pydantic import ValidationError

from pipeline.errors import PipelineError
from pipeline.learned import NAME
from pipeline.params.base import SECTION_NAMES, check_section_names, read_section
from pipeline.params.data import DataParams
from pipeline.params.fit import PROXY_NAMES, FitParams
from pipeline.params.model import ResolutionParams
from pipeline.params.replay import ReplayParams
from pipeline.params.sections import SECTIONS
from pipeline.proxies import PROXIES
from tests.imports import ROOT

DOCUMENT = yaml.safe_load((ROOT / "params.yaml").read_text())


def fit_with(**threshold):
    return {"fit": DOCUMENT["fit"] | {"threshold": DOCUMENT["fit"]["threshold"] | threshold}}


def test_the_committed_file_has_exactly_the_known_sections_and_is_valid():
    assert tuple(DOCUMENT) == SECTION_NAMES == tuple(SECTIONS)
    for name, kind in SECTIONS.items():
        read_section(DOCUMENT, name, kind, "params.yaml")


def test_committed_defaults_are_those_of_the_design():
    """Of the commit: in the working tree an experiment may have left other values."""
    shown = subprocess.run(["git", "show", "HEAD:params.yaml"], cwd=ROOT, capture_output=True, check=False)
    if shown.returncode:
        pytest.skip("not in a git checkout")
    committed = yaml.safe_load(shown.stdout)
    assert committed["data"]["source"] == "tiny-imagenet"
    assert committed["data"]["calibration_images"] == committed["data"]["evaluation_images"] == 2000
    assert committed["resolutions"] == {"low": 32, "mid": 48, "high": 64}
    assert committed["fit"]["threshold"] == {"rule": "escalation_rate", "value": 0.095, "confidence": 0.9}


def test_a_scenario_is_replayed_once():
    document = {"replay": DOCUMENT["replay"] | {"scenarios": ["offline", "offline"]}}
    with pytest.raises(PipelineError, match="each scenario once at most, found offline, offline"):
        read_section(document, "replay", ReplayParams, "p.yaml")


def test_an_unknown_key_names_the_nearest_known_one():
    document = {"resolutions": {"low": 32, "high": 64, "hihg": 1}}
    with pytest.raises(PipelineError, match=r"p.yaml: resolutions.hihg: unknown key; did you mean 'high'\?"):
        read_section(document, "resolutions", ResolutionParams, "p.yaml")


def test_nothing_in_a_text_leaves_a_value_empty_that_may_be():
    assert ResolutionParams.model_validate({"low": 32, "mid": "", "high": 64}).mid is None
    with pytest.raises(ValidationError, match="low"):
        ResolutionParams.model_validate({"low": "", "mid": 48, "high": 64})


def test_an_unknown_nested_key_is_compared_with_the_keys_of_its_own_level():
    with pytest.raises(PipelineError, match=r"fit.threshold.vlaue: unknown key; did you mean 'value'\?"):
        read_section(fit_with(vlaue=1), "fit", FitParams, "p.yaml")


def test_an_unknown_section_names_the_nearest_known_one():
    with pytest.raises(PipelineError, match=r"unknown section 'runtme'; did you mean 'runtime'\?"):
        check_section_names({"runtme": {}}, "p.yaml")
    with pytest.raises(PipelineError, match="unknown section 1; expected one of data, train"):
        check_section_names({1: {}}, "p.yaml")


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("data", {"calibration_images": 0}, r"data.calibration_images: found 0; input should be greater"),
        ("data", {"calibration_images": "many"}, r"found 'many'; input should be a valid integer"),
        ("data", {"sha256": "abc"}, r"data.sha256: found 'abc'; expected 64 hex digits, as sha256sum prints"),
        ("data", {"sha256": "g" * 64}, r"data.sha256: found 'g+'; expected 64 hex digits"),
        ("fit", {"proxy": "cls_chnage"}, r"fit.proxy: found 'cls_chnage'; .* did you mean 'cls_change'\?"),
        ("fit", {"proxy": "xyz"}, r"fit.proxy: found 'xyz'; .* expected one of cls_change, .*, learned"),
        ("data", {"on_broken": "ignore"}, r"on_broken: found 'ignore'; input should be 'stop' or 'skip'"),
        ("resolutions", {"low": 64}, r"low \(64 px\) must be smaller than high \(64 px\)"),
        ("runtime", {"device": "gpu"}, r"runtime.device: found 'gpu'"),
        ("runtime", {"batch_size": True}, r"runtime.batch_size: found True"),
        ("replay", {"stable_within": 0}, r"replay.stable_within: found 0"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_was_found(section, values, message):
    document = {section: DOCUMENT[section] | values}
    with pytest.raises(PipelineError, match=message):
        read_section(document, section, SECTIONS[section], "p.yaml")


@pytest.mark.parametrize(
    ("rule", "value"), [("escalation_rate", 1.5), ("escalation_rate", -0.1), ("max_delta", -1.0)]
)
def test_a_threshold_value_must_fit_its_rule(rule, value):
    with pytest.raises(PipelineError, match=f"rule {rule} needs a value"):
        read_section(fit_with(rule=rule, value=value), "fit", FitParams, "p.yaml")


def test_a_digest_in_capitals_is_the_same_digest():
    document = {"data": DOCUMENT["data"] | {"sha256": "AB" * 32}}
    assert read_section(document, "data", DataParams, "p.yaml").sha256 == "ab" * 32


def test_the_proxies_that_parameters_may_name_are_those_that_there_are():
    """A new entry of PROXIES goes into PROXY_NAMES of pipeline/params/fit.py as well."""
    assert (*PROXIES, NAME) == PROXY_NAMES


def test_a_whole_number_is_a_valid_threshold_value():
    assert read_section(fit_with(value=1), "fit", FitParams, "p.yaml").threshold.value == 1.0


def test_every_fault_of_a_section_is_named_at_once():
    document = {"data": DOCUMENT["data"] | {"seed": -1, "on_broken": "no"}}
    with pytest.raises(PipelineError) as caught:
        read_section(document, "data", SECTIONS["data"], "p.yaml")
    assert "p.yaml: data.seed: " in str(caught.value)
    assert "p.yaml: data.on_broken: " in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "where"),
    [({"fit.threshold.rule"}, "--set"), ({"fit.threshold"}, "--set"), ({"fit.thresh"}, r"p\.yaml")],
)
def test_a_fault_is_told_of_where_its_value_is_from(keys, where):
    with pytest.raises(PipelineError, match=rf"^{where}: fit\.threshold\.rule: found 'risc'"):
        read_section(fit_with(rule="risc"), "fit", FitParams, "p.yaml", keys)


def test_of_values_that_do_not_go_together_some_may_be_set():
    with pytest.raises(PipelineError, match=r"^p\.yaml with --set: fit\.threshold: .* from 0 to 1, not 2"):
        read_section(fit_with(value=2), "fit", FitParams, "p.yaml", {"fit.threshold.value"})


def test_a_missing_key_and_a_missing_section_are_named():
    with pytest.raises(PipelineError, match="resolutions.high: missing"):
        read_section({"resolutions": {"low": 32}}, "resolutions", ResolutionParams, "p.yaml")
    with pytest.raises(PipelineError, match="section 'resolutions' is missing"):
        read_section({}, "resolutions", ResolutionParams, "p.yaml")
