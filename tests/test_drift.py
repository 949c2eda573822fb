"""Shift: the arithmetic, the false alarms, the command, and real images blurred, noisy and re-coloured."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from click.testing import CliRunner
from torchvision.io import encode_png
from torchvision.transforms.v2 import functional

from pipeline.archive import open_archive
from pipeline.drift import (
    MIN_IMAGES,
    check_conditions,
    check_enough,
    compare_scores,
    conclude,
    count_by_decile,
    describe,
    stability_index,
)
from pipeline.embeddings import iter_embeddings
from pipeline.errors import PipelineError
from pipeline.images import decode_canvas
from pipeline.policy import ALWAYS_ESCALATE, read_policy, write_policy
from pipeline.tables import IMAGES, vectors, write_table
from stages.cli import main
from tests import made
from tests.imports import ROOT, import_closure, outside_imports
from tests.sets import FINGERPRINT, write_set

SIMULATIONS = 400
ALPHA = 0.1
# Three standard errors of a share of ALPHA over so many simulations.
MARGIN = 3 * (ALPHA * (1 - ALPHA) / SIMULATIONS) ** 0.5


def normal(count, mean=0.0, spread=1.0, seed=0):
    return np.random.default_rng(seed).normal(mean, spread, count)


def test_images_are_counted_between_the_deciles_of_the_reference():
    reference = np.arange(1.0, 21.0)
    assert count_by_decile(reference, np.array([-5.0, 2.0, 2.5, 18.0, 99.0]), reference).tolist() == [
        [2, 2, 2, 2, 2, 2, 2, 2, 2, 2],
        [2, 1, 0, 0, 0, 0, 0, 0, 1, 1],
    ]


def test_tied_scores_make_fewer_bins():
    reference = np.array([0.0] * 15 + [1.0] * 5)
    found = count_by_decile(reference, np.array([0.0, 1.0, 2.0]), reference)
    assert found.tolist() == [[15, 5, 0], [1, 1, 1]]
    assert count_by_decile(np.zeros(20), np.zeros(30), np.zeros(50)).tolist() == [[20], [30]]


def test_the_index_by_hand():
    # One image is added to either row, half in each bin: 3.5 and 1.5 of 5, then 1.5 and 3.5 of 5.
    found = stability_index(np.array([[3, 1], [1, 3]]))
    assert found == pytest.approx((0.3 - 0.7) * math.log(0.3 / 0.7) + (0.7 - 0.3) * math.log(0.7 / 0.3))
    # Together 6 and 2: three quarters of an image to the first bin and a quarter to the second.
    p, q = (4.75 / 7, 2.25 / 7), (2.75 / 3, 0.25 / 3)
    expected = sum((b - a) * math.log(b / a) for a, b in zip(p, q, strict=True))
    assert stability_index(np.array([[4, 2], [2, 0]])) == pytest.approx(expected)


def test_the_index_of_many_images_is_that_of_the_textbook_and_of_equal_shapes_zero():
    counts = np.array([[100_000, 300_000], [300_000, 100_000]])
    assert stability_index(counts) == pytest.approx(math.log(3), rel=1e-4)
    assert stability_index(np.array([[10, 30], [1000, 3000]])) == pytest.approx(0, abs=1e-12)


def test_rates_are_counted_by_the_policys_decision_with_an_exact_interval():
    reference, new = np.arange(100.0), np.arange(0.0, 100.0, 5.0)
    found = compare_scores(reference, new, threshold=89.0, alpha=0.05)
    assert (found.reference_images, found.new_images) == (100, 20)
    assert (found.reference_rate, found.new_rate) == (0.1, 0.1)
    # Clopper and Pearson, 2 of 20 at 95 %.
    assert (found.new_rate_ci_low, found.new_rate_ci_high) == pytest.approx((0.0123, 0.3170), abs=1e-4)
    assert found.rate_p_value == 1
    assert found.ks_distance == pytest.approx(0.04)


def test_images_without_a_score_escalate_and_are_left_out_of_the_distributions():
    reference = normal(200)
    with_gaps = np.append(reference, [np.nan] * 50)
    found = compare_scores(reference, with_gaps, threshold=10.0, alpha=0.01)
    assert (found.reference_unscored, found.new_unscored) == (0, 50)
    assert (found.reference_rate, found.new_rate) == (0.0, 0.2)
    assert (found.ks_distance, found.psi) == (0.0, 0.0)
    assert found.findings == ("escalation rate",)
    assert "250 new ones; 50 without a score escalate and are left out" in describe(found)[0]


@pytest.mark.parametrize("scores", [normal(50), np.zeros(50)], ids=["spread", "constant"])
@pytest.mark.parametrize("threshold", [ALWAYS_ESCALATE, 0.0, 10.0])
def test_equal_samples_have_not_shifted(scores, threshold):
    found = compare_scores(scores, scores, threshold, 0.01)
    assert found.findings == ()
    assert (found.ks_p_value, found.rate_p_value, found.psi, found.size) == (1, 1, 0, "small")


@pytest.mark.parametrize(
    ("new", "finding", "size"),
    [
        (normal(300, mean=1.0, seed=1), "Kolmogorov-Smirnov", "large"),
        (normal(300, spread=2.5, seed=1), "stability index", "large"),
        (np.append(normal(285, seed=1), [9.0] * 15), "escalation rate", "small"),
        (normal(20_000, mean=0.1, seed=1), "Kolmogorov-Smirnov", "small"),
    ],
    ids=["moved", "wider", "a few far out", "a trifle in many"],
)
def test_each_test_finds_what_it_is_for(new, finding, size):
    found = compare_scores(normal(5000), new, threshold=3.0, alpha=0.01)
    assert finding in found.findings
    assert found.size == size


def test_the_distance_that_is_named_as_the_limit_is_where_the_test_begins_to_find():
    reference = np.arange(1000.0)
    limit = compare_scores(reference, reference, 2000.0, 0.01).ks_limit
    for step, finds in ((-2, False), (2, True)):
        moved = compare_scores(reference, reference + round(1000 * limit) + step, 2000.0, 0.01)
        assert ("Kolmogorov-Smirnov" in moved.findings) is finds


@pytest.mark.parametrize("images", [MIN_IMAGES, 60, 300])
def test_random_splits_of_one_sample_raise_few_alarms_and_the_bare_index_many_where_images_are_few(images):
    rng = np.random.default_rng(images)
    pool = rng.gamma(3.0, size=500 + images)
    alarms, bare = 0, 0
    for _ in range(SIMULATIONS):
        reference, new = np.split(rng.permutation(pool), [500])
        found = compare_scores(reference, new, float(np.quantile(reference, 0.905)), ALPHA)
        alarms += bool(found.findings)
        bare += found.psi > 0.25
    assert alarms / SIMULATIONS <= ALPHA + MARGIN
    assert (bare / SIMULATIONS > ALPHA + MARGIN) == (images == MIN_IMAGES)


def test_few_calibration_images_raise_no_more_alarms_than_promised():
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(SIMULATIONS):
        reference, new = rng.random(MIN_IMAGES), rng.random(2000)
        alarms += bool(compare_scores(reference, new, float(np.quantile(reference, 0.905)), ALPHA).findings)
    assert alarms / SIMULATIONS <= ALPHA + MARGIN


def test_too_few_scores_are_an_error_that_says_where():
    check_enough(np.zeros(20), "new")
    with pytest.raises(
        PipelineError, match="new: 19 of 22 images have a score that is a number, expected 20"
    ):
        check_enough(np.append(np.zeros(19), [np.nan] * 3), "new")


def test_the_verdict_names_certificate_shift_and_size_and_promises_nothing():
    still, moved = (compare_scores(normal(500), normal(500, mean), 1.3, 0.01) for mean in (0, 1))
    certificate = {"certified": True, "alpha": 0.05, "confidence": 0.9}
    assert conclude(still, certificate) == (
        "no shift found: nothing speaks against the certificate (risk at most 0.05 at confidence 0.9), "
        "though scores alone cannot prove it, and what leaves them as they are goes unseen"
    )
    assert "(large by PSI, found by Kolmogorov-Smirnov, escalation rate, stability index)" in conclude(
        moved, certificate
    )
    assert "the certificate (risk at most 0.05 at confidence 0.9) does NOT apply" in conclude(
        moved, certificate
    )
    for none in ({}, {"certified": False, "alpha": 0.05, "confidence": 0.9}):
        assert f"fitted escalation rate of {still.reference_rate:.2%} (the policy holds no certificate)" in (
            conclude(still, none)
        )
        assert "(the policy holds no certificate) does NOT apply" in conclude(moved, none)


def test_the_backend_may_differ_and_nothing_else():
    made_for = {key: FINGERPRINT[key] for key in ("weights_sha256", "transform", "precision", "canvas_px")}
    made_for |= {"low_px": 32, "backend": "openvino"}
    fingerprint = FINGERPRINT | {"size_px": 32}
    check_conditions(fingerprint, made_for, "new")
    for key, value in (("weights_sha256", "x"), ("transform", "x"), ("precision", "x"), ("size_px", 48)):
        with pytest.raises(
            PipelineError, match=f"new: made with .* = {value}, .* under the policy's settings"
        ):
            check_conditions(fingerprint | {key: value}, made_for, "new")


def test_new_images_need_the_precision_that_low_has_beside_high():
    made_for = {key: FINGERPRINT[key] for key in ("weights_sha256", "transform", "canvas_px")}
    made_for |= {"low_px": 32, "precision": "float32", "low_precision": "int8"}
    fingerprint = FINGERPRINT | {"size_px": 32, "precision": "int8", "high_precision": "float32"}
    check_conditions(fingerprint, made_for, "new")
    with pytest.raises(PipelineError, match=r"made with low_precision = None, the policy is for int8"):
        check_conditions(FINGERPRINT | {"size_px": 32}, made_for, "new")


def test_the_monitor_needs_neither_torch_nor_polars():
    assert not outside_imports(import_closure(ROOT / "stages/drift.py")) & {"torch", "torchvision", "polars"}


def write_low(folder, proxy, role="low", **fingerprint):
    """A low set whose cls_change is `proxy`: one step of twice that, and one of none."""
    count = len(proxy)
    trace = np.zeros((count, 3, 2))
    trace[:, 1:, 0] = 2 * np.asarray(proxy)[:, None]
    ids = [f"i{row}" for row in range(count)]
    return write_set(folder, role, ids, np.zeros((count, 2)), np.zeros((count, 2)), trace, **fingerprint)


@pytest.fixture
def fitted(project):
    """A policy from the first 200 of 300 images, whose proxy lies about 5; about 10 % of them escalate."""
    folder = project / "data/embeddings/low"
    write_low(folder, normal(300, mean=5.0))
    table = {
        "image_id": [f"i{row}" for row in range(300)],
        "split": ["calibration"] * 200 + ["evaluation"] * 100,
    }
    write_table(project / "data/deltas.parquet", pa.table(table), {"low": FINGERPRINT | {"role": "low"}})
    policy = replace(
        made.policy(-3.7, direction=-1),
        calibration_images=200,
        made_for={key: FINGERPRINT[key] for key in ("weights_sha256", "transform", "precision", "canvas_px")}
        | {"low_px": 32, "backend": "openvino"},
    )
    write_policy(project / "models/policy.json", policy)
    return project


def drift(new, *words):
    return CliRunner().invoke(main, ["drift", "--new", str(new), *words])


def test_the_command_compares_with_the_calibration_images_alone(fitted):
    write_low(fitted / "new", normal(300, mean=5.0)[:200])
    found = drift(fitted / "new")
    assert found.exit_code == 0, found.output
    assert "drift: 200 calibration images, 200 new ones" in found.output
    numbers = json.loads((fitted / "metrics/drift.json").read_text())
    assert (numbers["ks_distance"], numbers["psi"], numbers["shift"]) == (0, 0, 0)
    assert 0.02 < numbers["reference_rate"] == numbers["new_rate"] < 0.2


def test_the_folder_itself_has_not_shifted(fitted):
    found = drift(fitted / "data/embeddings/low")
    assert found.exit_code == 0, found.output
    assert "no shift found" in found.output


def test_a_shift_is_a_status_of_its_own_and_other_paths_and_levels_are_taken(fitted):
    write_low(fitted / "new", normal(100, mean=3.5, seed=1), backend="eager", images_sha256="other")
    found = drift(fitted / "new", "--metrics", "elsewhere.json", "--alpha", "0.001")
    assert found.exit_code == 3, found.output
    assert "does NOT apply to these images; run extract, delta and fit on images like them" in found.output
    numbers = json.loads((fitted / "elsewhere.json").read_text())
    assert (numbers["shift"], numbers["alpha"]) == (1, 0.001)
    assert numbers["new_rate"] > 0.4 > numbers["reference_rate"]


def test_images_without_a_score_do_not_stop_the_command(fitted):
    write_low(fitted / "new", np.append(normal(100, mean=5.0, seed=1), [np.nan] * 60))
    found = drift(fitted / "new")
    assert found.exit_code == 3, found.output
    assert "60 without a score" in found.output


@pytest.mark.parametrize(
    ("images", "fingerprint", "message"),
    [
        (19, {}, "new: 19 of 19 images have a score that is a number, expected 20 or more"),
        (
            30,
            {"precision": "bfloat16"},
            "new: made with precision = bfloat16, the policy is for float32; run",
        ),
        (30, {"role": "high"}, "holds role 'high', expected 'low'"),
        (0, {}, "holds no part-*.parquet"),
    ],
)
def test_a_set_that_cannot_be_compared_is_an_error_and_leaves_no_numbers(
    fitted, images, fingerprint, message
):
    if images:
        write_low(fitted / "new", normal(images, mean=5.0), **fingerprint)
    found = drift(Path("new"))
    assert found.exit_code == 1
    assert message in found.stderr
    assert not (fitted / "metrics/drift.json").exists()


def test_deltas_of_other_images_or_another_split_are_refused(fitted):
    policy = read_policy(fitted / "models/policy.json")
    write_policy(fitted / "models/policy.json", replace(policy, calibration_images=150))
    found = drift(fitted / "data/embeddings/low")
    assert "200 images of the calibration split of data/deltas.parquet, expected the 150" in found.stderr
    write_table(fitted / "data/deltas.parquet", pa.table({}), {"low": {"images_sha256": "other"}})
    found = drift(fitted / "data/embeddings/low")
    assert found.exit_code == 1
    assert "data/deltas.parquet: made from other images than data/embeddings/low" in found.stderr


CALIBRATION, EVALUATION, NEW = 400, 60, 400
# Moderate, and fixed before anything was measured: pixels of 64, levels of 255, share of the hue's circle.
BLUR_PX, NOISE_LEVELS, HUE_TURN = 1.5, 25.0, 0.25


def blur(canvases):
    return functional.gaussian_blur(canvases, [9, 9], [BLUR_PX, BLUR_PX])


def add_noise(canvases):
    noise = torch.randn(canvases.shape, generator=torch.Generator().manual_seed(0)) * NOISE_LEVELS
    return (canvases + noise).round().clamp(0, 255).to(torch.uint8)


def recolour(canvases):
    return functional.adjust_hue(canvases, HUE_TURN)


def write_images(path, images, canvases, splits):
    """A table whose images are stored without loss."""
    columns = {
        "image_id": [image.image_id for image in images],
        "split": splits,
        "wnid": [image.wnid for image in images],
        "label": [0] * len(images),
        "jpeg": [encode_png(canvas).numpy().tobytes() for canvas in canvases],
    }
    write_table(path, pa.table(columns, schema=IMAGES), {"kind": "images"})


def run(*words):
    shipped = ROOT / "models/static_vit.safetensors"
    found = CliRunner().invoke(main, [*words, f"--set=model.weights={shipped}"])
    assert found.exit_code == 0, found.output


def measure_accuracy(low, images, wnids):
    expected = {image.image_id: wnids.index(image.wnid) for image in images}
    right = [
        expected[image_id] == logits.argmax()
        for batch in iter_embeddings(low, ["image_id", "logits"])
        for image_id, logits in zip(batch["image_id"].to_pylist(), vectors(batch["logits"]), strict=True)
    ]
    assert len(right) == len(images)
    return np.mean(right)


@pytest.fixture(scope="module")
def real(tmp_path_factory, real_archive):
    """Exit status and numbers of drift by proxy and change: the shipped weights, certified on 400 images."""
    with open_archive(real_archive) as archive:
        # In the order of their names, which has nothing to do with what they show.
        chosen = archive.labelled[::11][: CALIBRATION + EVALUATION + NEW]
        canvases = torch.stack([decode_canvas(archive.read(image.member), 64) for image in chosen])
        wnids = [wnid for wnid, _ in archive.classes]
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("real"))
        Path("params.yaml").write_text((ROOT / "params.yaml").read_text())
        splits = ["calibration"] * CALIBRATION + ["evaluation"] * EVALUATION
        write_images(Path("data/images.parquet"), chosen[:-NEW], canvases[:-NEW], splits)
        for role in ("low", "high"):
            run("extract", role)
        run("delta")
        for name, change in (("clean", torch.clone), ("blur", blur), ("noise", add_noise), ("hue", recolour)):
            images = Path(name, "images.parquet")
            write_images(images, chosen[-NEW:], change(canvases[-NEW:]), ["evaluation"] * NEW)
            run("extract", "low", "--images", str(images), "--embeddings", name, "--metrics", name)
            found["accuracy", name] = measure_accuracy(Path(name, "low"), chosen[-NEW:], wnids)
        certified = ("--set=threshold.rule=risk", "--set=threshold.value=0.05", "--set=bootstrap=100")
        for proxy in ("margin", "cls_change"):
            run("fit", f"--set=proxy={proxy}", *certified)
            for name in ("clean", "blur", "noise", "hue"):
                command = drift(Path(name, "low"), "--metrics", f"{name}/drift.json")
                found[proxy, name] = (command, json.loads(Path(name, "drift.json").read_text()))
    return found


@pytest.mark.parametrize("proxy", ["margin", "cls_change"])
def test_other_real_images_have_not_shifted(real, proxy):
    command, numbers = real[proxy, "clean"]
    assert command.exit_code == numbers["shift"] == 0
    assert "nothing speaks against the certificate (risk at most 0.05 at confidence 0.9)" in command.output
    assert (numbers["reference_images"], numbers["new_images"]) == (CALIBRATION, NEW)


@pytest.mark.parametrize(
    ("change", "p_value", "psi"), [("blur", 1e-6, 0.25), ("noise", 1e-6, 0.25), ("hue", 1e-3, 0.1)]
)
def test_blurred_noisy_and_recoloured_real_images_have_shifted(real, change, p_value, psi):
    command, numbers = real["margin", change]
    assert command.exit_code == 3
    assert "the certificate (risk at most 0.05 at confidence 0.9) does NOT apply" in command.output
    assert numbers["ks_p_value"] < p_value
    assert numbers["psi"] > psi


def test_another_hue_is_not_seen_by_the_change_of_the_class_token(real):
    """A blind spot: low is wrong far more often, these scores stay."""
    assert real["accuracy", "hue"] < real["accuracy", "clean"] - 0.1
    command, numbers = real["cls_change", "hue"]
    assert command.exit_code == numbers["shift"] == 0
    assert numbers["ks_p_value"] > 0.01
    assert "though scores alone cannot prove it" in command.output
