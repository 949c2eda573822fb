import numpy as np
import polars as pl
import pytest

from pipeline import choice
from pipeline.certify import set_apart
from pipeline.costs import read_costs
from pipeline.delta import compute_deltas, to_arrow
from pipeline.embeddings import CONDITIONS
from pipeline.errors import PipelineError
from pipeline.files import write_json
from pipeline.fit import conditions, fit, read_samples
from pipeline.judge import why_untold
from pipeline.params.fit import FitParams
from pipeline.policy import decide, proxy_of, read_policy, write_policy
from pipeline.tables import read_fingerprint, write_table
from pipeline.timing import FEWEST_IMAGES
from stages.fit import _compare
from tests.made import images_table
from tests.sets import write_set

FINGERPRINT = {
    "low": {
        "weights_sha256": "w",
        "transform": "t",
        "precision": "p",
        "backend": "b",
        "canvas_px": 64,
        "size_px": 32,
    },
    "high": {"size_px": 64},
}


def params(rule="escalation_rate", value=0.25, **changes):
    threshold = {"rule": rule, "value": value, "confidence": 0.9}
    values = {"oracle": "delta", "proxy": "cls_change", "calibration": "isotonic", "threshold": threshold}
    return FitParams.model_validate(values | {"bootstrap": 200, "seed": 0} | changes)


def samples(proxy, oracle, agree=None, low_correct=None, high_correct=None):
    """Eight rows, the first half for calibration."""
    count = len(proxy)
    half = count // 2
    columns = {
        "image_id": [f"i{k}" for k in range(count)],
        "split": ["calibration"] * half + ["evaluation"] * (count - half),
        "delta": np.asarray(oracle, float),
        "agree": agree or [True] * count,
        "low_correct": pl.Series(low_correct or [None] * count, dtype=pl.Boolean),
        "high_correct": pl.Series(high_correct or [None] * count, dtype=pl.Boolean),
        "proxy": np.asarray(proxy, float),
        "oracle": np.asarray(oracle, float),
    }
    return pl.DataFrame(columns)


FALLING = samples([4, 3, 2, 1, 4, 3, 2, 1], [1, 2, 3, 4, 1, 2, 3, 4], agree=[True, True, True, False] * 2)


def test_the_direction_is_learned_and_the_right_images_escalate():
    fitted = fit(FALLING, params(), FINGERPRINT)
    assert fitted.policy.direction == -1
    assert fitted.policy.threshold == -1.5
    assert fitted.metrics["threshold_proxy"] == 1.5
    assert decide(fitted.policy, FALLING["proxy"]).tolist() == [False, False, False, True] * 2
    judged = fitted.metrics["evaluation"]
    assert (judged["escalation_rate"], judged["agreement"]) == (0.25, 1.0)
    assert judged["random_agreement"] == 0.75 + 0.25 * 0.25
    assert judged["oracle_agreement"] == 1.0
    assert judged["spearman"] == pytest.approx(1)
    assert judged["auroc"] == 1.0
    assert judged["gain_over_random"]["value"] == pytest.approx(1)


def test_calibration_speaks_the_units_of_the_oracle():
    fitted = fit(FALLING, params(), FINGERPRINT)
    assert fitted.metrics["threshold_oracle"] == 3.5
    assert fitted.metrics["evaluation"]["calibration_error"] == 0


def test_evaluation_images_teach_nothing():
    """Other evaluation values change the verdict, never the policy."""
    other = FALLING.with_columns(
        oracle=pl.when(pl.col("split") == "evaluation")
        .then(pl.col("oracle").reverse())
        .otherwise(pl.col("oracle"))
    )
    assert fit(other, params(), FINGERPRINT).policy == fit(FALLING, params(), FINGERPRINT).policy
    assert fit(other, params(), FINGERPRINT).metrics["evaluation"]["spearman"] != pytest.approx(1)


def test_a_proxy_without_relation_is_said_not_to_beat_random():
    rng = np.random.default_rng(0)
    noise = samples(rng.normal(size=400), rng.exponential(size=400))
    assert fit(noise, params(), FINGERPRINT).metrics["beats_random"] == 0
    informed = samples(oracle := rng.exponential(size=400), oracle + rng.normal(size=400))
    assert fit(informed, params(), FINGERPRINT).metrics["beats_random"] == 1


@pytest.mark.parametrize(("value", "escalated", "agreement"), [(0.0, 0.0, 0.75), (1.0, 1.0, 1.0)])
def test_none_and_all_are_valid_results_with_a_warning(value, escalated, agreement):
    fitted = fit(FALLING, params(value=value), FINGERPRINT)
    assert fitted.metrics["evaluation"]["escalation_rate"] == escalated
    assert fitted.metrics["evaluation"]["agreement"] == agreement
    assert fitted.metrics["threshold_oracle"] is None
    assert fitted.warnings[0].startswith(f"{'every' if value else 'no'} calibration image is escalated")


@pytest.mark.parametrize(
    ("gain", "says"),
    [
        ((0.02, 0.01, 0.03, 0.01, 1.0), "beats"),
        ((0.02, 0.01, 0.03, 0.4, 0.8), "does NOT beat"),
        ((-0.02, -0.03, -0.01, 1.0, 0.01), "is WORSE than"),
        ((-0.02, -0.03, -0.01, 1.0, 0.3), "does NOT beat"),
    ],
)
def test_better_or_worse_than_random_is_what_random_escalation_hardly_reaches(gain, says):
    named = dict(zip(("value", "ci_low", "ci_high", "chance", "chance_of_no_more"), gain, strict=True))
    assert _compare(named, told=True).startswith(f"{says} random escalation")


def test_of_a_few_images_nothing_is_claimed():
    """Though the oracle itself is the proxy, and no resample knows better."""
    known = np.arange(2 * FEWEST_IMAGES, dtype=float)
    enough = fit(samples(known, known), params(), FINGERPRINT)
    few = fit(samples(known[:-2], known[:-2]), params(), FINGERPRINT)
    assert (enough.metrics["beats_random"], enough.warnings) == (1, ())
    assert few.metrics["beats_random"] == 0
    assert "29 evaluation images are too few" in few.warnings[0]


@pytest.mark.parametrize(("events", "told"), [(9, False), (10, True), (90, True), (91, False)])
def test_of_few_events_or_few_others_nothing_is_claimed(events, told):
    why = why_untold(np.array(events * [1.0] + (100 - events) * [0.0]))
    assert (why is None) == told
    if not told:
        assert "9 " in why
        assert "(expected 10 or more)" in why


def test_a_constant_oracle_gives_a_valid_result():
    fitted = fit(samples([1, 2, 3, 4] * 2, [1] * 8), params(), FINGERPRINT)
    assert fitted.metrics["evaluation"]["gain_over_random"] is None
    assert fitted.metrics["evaluation"]["auroc"] is None
    assert fitted.metrics["beats_random"] == 0


def test_harm_and_accuracy_where_labels_are_known():
    known = samples(
        [4, 3, 2, 1] * 2,
        [1, 2, 3, 4] * 2,
        low_correct=[True, False, True, False] * 2,
        high_correct=[True, True, False, True] * 2,
    )
    judged = fit(known, params(), FINGERPRINT).metrics["evaluation"]
    # Only the last escalates: right, wrong (high would be right), right, right.
    assert judged["accuracy"] == 0.75
    assert judged["harm_rate"] == 0.25


def test_benefit_without_labels_is_an_error_that_says_what_to_do(tmp_path):
    low, deltas = real_tables(tmp_path)
    with pytest.raises(PipelineError, match="fit.oracle: benefit needs labels"):
        read_samples(low, deltas, params(oracle="benefit"))


def real_tables(tmp_path, low_order=range(8)):
    ids = [f"val/val_{i:03d}.JPEG" for i in range(8)]
    rng = np.random.default_rng(0)
    trace, values, logits = rng.normal(size=(8, 3, 2)), rng.normal(size=(8, 2)), rng.normal(size=(8, 4))
    order = list(low_order)
    low = write_set(
        tmp_path / "low", "low", [ids[i] for i in order], values[order], logits[order], trace[order]
    )
    high = write_set(tmp_path / "high", "high", ids, values + 1, logits)
    images = images_table(tmp_path / "images.parquet", 8)
    table, fingerprint = compute_deltas(images, low, high)
    write_table(tmp_path / "deltas.parquet", to_arrow(table), fingerprint)
    return low, tmp_path / "deltas.parquet"


def test_samples_join_on_the_id(tmp_path):
    straight = read_samples(*real_tables(tmp_path / "a"), params())
    shuffled = read_samples(*real_tables(tmp_path / "b", [5, 2, 7, 0, 1, 6, 3, 4]), params())
    assert shuffled.equals(straight)
    assert straight["oracle"].equals(straight["delta"].rename("oracle"))


def test_deltas_of_other_embeddings_are_refused(tmp_path):
    low, deltas = real_tables(tmp_path)
    part = low / "part-00000.parquet"
    other = tmp_path / "other"
    write_set(other, "low", ["x"], [[0, 0]], [[0, 0, 0, 0]], weights_sha256="another")
    part.unlink()
    (other / "part-00000.parquet").rename(part)
    with pytest.raises(PipelineError, match="made from other low embeddings"):
        read_samples(low, deltas, params())


def test_the_policy_records_what_it_was_made_for(tmp_path):
    low, deltas = real_tables(tmp_path)
    fitted = fit(read_samples(low, deltas, params()), params(), read_fingerprint(deltas))
    assert fitted.policy.made_for == {
        "weights_sha256": "w",
        "transform": "t",
        "precision": "float32",
        "backend": "eager",
        "canvas_px": 64,
        "low_px": 32,
        "high_px": 64,
    }
    assert fitted.policy.calibration_images == 4


def test_a_policy_says_which_precision_low_had_beside_high():
    low = {**dict.fromkeys(CONDITIONS), "size_px": 32, "precision": "int8", "high_precision": "float32"}
    made_for = conditions({"low": low, "high": {"size_px": 64}})
    assert (made_for["precision"], made_for["low_precision"]) == ("float32", "int8")


def test_plot_tables_hold_the_operating_point():
    plots = fit(FALLING, params(), FINGERPRINT).plots
    assert plots["proxy_delta"]["escalated"].to_list() == [0, 0, 0, 1]
    curve = plots["deferral"]
    assert curve["escalation_rate"].to_list()[::50] == [0.0, 0.5, 1.0]
    assert curve.row(0)[1:] == (0.75, 0.75, 0.75)
    assert curve.row(100)[1:] == (1.0, 1.0, 1.0)


def many(count, harm_above, labelled=True):
    """Half to calibrate; an image whose proxy exceeds `harm_above` is harmed by staying low."""
    proxy = np.tile(np.arange(count // 2) / (count // 2), 2)
    harmed = proxy > harm_above
    labels = {"low_correct": (~harmed).tolist(), "high_correct": [True] * count} if labelled else {}
    return samples(proxy, harmed, agree=(~harmed).tolist(), **labels)


@pytest.mark.parametrize(("labelled", "event"), [(True, "harm"), (False, "disagreement")])
def test_a_certified_threshold_keeps_its_promise_on_images_apart_from_those_that_learned(labelled, event):
    fitted = fit(many(4000, 0.7, labelled), params("risk", 0.02), FINGERPRINT)
    certificate = fitted.policy.certificate
    assert (certificate["certified"], certificate["event"]) == (True, event)
    assert (certificate["learned_images"], certificate["images"]) == (400, 1600)
    assert certificate["learned_sha256"] != certificate["certified_sha256"]
    assert 0.70 < fitted.policy.threshold < 0.72
    assert fitted.metrics["certificate"]["harmful"] == certificate["harmful"] <= 24
    judged = fitted.metrics["evaluation"]["certified_risk"]
    assert 0 < judged["value"] < 0.02
    assert judged["ci_low"] < judged["value"] < judged["ci_high"]
    assert not fitted.warnings


def test_a_certificate_needs_images_of_its_own_and_says_how_many():
    fitted = fit(many(80, 0.7), params("risk", 0.05), FINGERPRINT)
    assert fitted.metrics["evaluation"]["escalation_rate"] == 1
    assert fitted.metrics["certificate"]["certified"] == 0
    assert "cannot certify risk at most 0.05 at confidence 0.9: 0 harmed of 32 images" in fitted.warnings[0]
    assert "about 57 calibration images would do" in fitted.warnings[0]
    assert fit(many(2 * 57, 0.7), params("risk", 0.05), FINGERPRINT).metrics["certificate"]["certified"] == 1


@pytest.mark.parametrize(
    ("alpha", "says"), [(0.301, "more than 200,000 would be needed"), (0.3, "no number of images would do")]
)
def test_where_the_search_for_images_ends_it_says_so(alpha, says):
    """Of one score and harm in three tenths of the certifying images."""
    table = many(4000, 0.7)
    learns = set_apart(table.filter(split="calibration")["image_id"].to_list(), 0.2, 0)
    harmed = np.zeros(2000, dtype=bool)
    harmed[np.flatnonzero(~learns)[:480]] = True
    low_correct = pl.Series([*~harmed, *~harmed])
    constant = table.with_columns(proxy=pl.lit(0.0), low_correct=low_correct, agree=low_correct)
    (warning,) = fit(constant, params("risk", alpha), FINGERPRINT).warnings
    found = "480 harmed of 1,600 images even where 0.0 % are escalated, the most that were tried"
    assert f"{found}; at this rate {says}." in warning


def test_a_certified_drop_of_accuracy_is_kept_on_images_that_had_no_part_in_it():
    table = many(4000, 0.7)
    fitted = fit(table, params("accuracy_drop", 0.02), FINGERPRINT)
    certificate = fitted.policy.certificate
    assert (certificate["certified"], certificate["event"], certificate["helped"]) == (
        True,
        "harm less help",
        0,
    )
    assert (certificate["learned_images"], certificate["images"]) == (400, 1600)
    assert 0.70 < fitted.policy.threshold < 0.72
    judged = fitted.metrics["evaluation"]
    assert 0 < judged["certified_risk"]["value"] == pytest.approx(1 - judged["accuracy"])
    assert judged["certified_risk"]["ci_low"] < judged["certified_risk"]["value"] < 0.02
    # The images are dealt out by hash: the same ones in another order make the same certificate.
    again = fit(table.reverse(), params("accuracy_drop", 0.02), FINGERPRINT)
    assert again.metrics["certificate"] == fitted.metrics["certificate"]


def test_other_rules_carry_no_certificate():
    fitted = fit(FALLING, params(), FINGERPRINT)
    assert fitted.policy.certificate == {}
    assert fitted.metrics["certificate"] is None


def featured(count=400, seed=0):
    """Images whose benefit follows from the first of three features, backwards."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, 3))
    benefit = rng.random(count) < 1 / (1 + np.exp(2 + 3 * features[:, 0]))
    table = samples(np.zeros(count), benefit, *[(~benefit).tolist()] * 2, [True] * count)
    return table.drop("proxy").with_columns(features=pl.Series(features))


def test_a_learned_proxy_finds_the_feature_that_counts_and_is_kept_in_the_policy(tmp_path):
    table = featured()
    asked = params(oracle="benefit", proxy="learned")
    policy = fit(table, asked, FINGERPRINT).policy
    slopes = np.array(policy.coefficients[:-1])
    assert np.abs(slopes).argmax() == 0
    assert slopes[0] < 0
    assert policy.direction == 1
    write_policy(tmp_path / "p.json", policy)
    again = proxy_of(read_policy(tmp_path / "p.json"))
    assert again.coefficients == policy.coefficients
    evaluated = fit(table, asked, FINGERPRINT).metrics["evaluation"]
    assert evaluated["gain_over_random"]["ci_low"] > 0.3


def test_the_images_that_certify_do_not_teach_the_proxy():
    table = featured()
    asked = params("risk", 0.2, oracle="benefit", proxy="learned")
    fitted = fit(table, asked, FINGERPRINT)
    learns = set_apart(table.filter(split="calibration")["image_id"].to_list(), 0.2, asked.seed)
    certifying = table.filter(split="calibration").filter(~pl.Series(learns))["image_id"].to_list()
    flipped = pl.when(pl.col("image_id").is_in(certifying)).then(1 - pl.col("oracle")).otherwise("oracle")
    other = table.with_columns(oracle=flipped)
    assert fit(other, asked, FINGERPRINT).policy.coefficients == fitted.policy.coefficients
    assert fitted.policy.certificate["learned_images"] == 40


@pytest.mark.parametrize(("rule", "name"), [("risk", "certify"), ("accuracy_drop", "certify_drop")])
def test_the_images_that_certify_bring_no_thresholds_to_try(monkeypatch, rule, name):
    """Which the certificate rests on: candidates are fixed before the images that certify are looked at."""
    certify_by, tried = getattr(choice, name), []

    def note(scores, events, candidates, *rest):
        tried.append((scores.mean(), candidates.tolist()))
        return certify_by(scores, events, candidates, *rest)

    monkeypatch.setattr(choice, name, note)
    asked, table = params(rule, 0.2, oracle="benefit"), many(400, 0.8)
    calibrating = table.filter(split="calibration")
    learns = set_apart(calibrating["image_id"].to_list(), 0.2, asked.seed)
    certifying = calibrating.filter(~pl.Series(learns))["image_id"].to_list()
    moved = pl.when(pl.col("image_id").is_in(certifying)).then(pl.col("proxy") + 0.5).otherwise("proxy")
    for each in (table, table.with_columns(proxy=moved)):
        fit(each, asked, FINGERPRINT)
    (mean, candidates), (moved_mean, same) = tried
    assert moved_mean == pytest.approx(mean + 0.5)
    assert same == candidates


def test_an_oracle_that_never_happens_teaches_nothing():
    table = featured()
    never = table.with_columns(oracle=pl.lit(0.0))
    found = fit(never, params(oracle="benefit", proxy="learned"), FINGERPRINT)
    assert set(found.policy.coefficients) == {0.0}
    assert "0 of the 200 images that it learns from are events of benefit, too few" in found.warnings[0]


def test_a_drop_of_accuracy_needs_labels():
    with pytest.raises(PipelineError, match="accuracy_drop needs labels"):
        fit(FALLING, params("accuracy_drop", 0.01), FINGERPRINT)


def test_costs_of_another_machine_or_precision_are_refused(tmp_path):
    measured = ("low", 32, 2.0), ("high", 64, 9.0)
    profile = {role: {"size_px": size, "latency_ms": {"mean": ms}} for role, size, ms in measured}
    asked = {"precision": "float32", "weights_sha256": "w", "low_px": 32, "high_px": 64}
    machine = {"processor": "A", "instructions": "avx2 fma", "cores": 2}
    made = {"backend": "openvino", "precision": "float32", "weights_sha256": "w"}
    path = tmp_path / "profile.json"
    write_json(path, profile | made | {"processor": "A", "instructions": "avx2 fma"})
    assert read_costs(path, asked | {"backend": "amx"}, machine | {"cores": 4}) == (2.0, 9.0)
    with pytest.raises(PipelineError, match="measured with processor A, this run has B"):
        read_costs(path, asked, machine | {"processor": "B"})
    with pytest.raises(PipelineError, match="measured with instructions avx2 fma, this run has avx2 avx512f"):
        read_costs(path, asked, machine | {"instructions": "avx2 avx512f fma"})
    with pytest.raises(PipelineError, match="measured with precision float32, this run has bfloat16"):
        read_costs(path, asked | {"precision": "bfloat16"}, machine)
    with pytest.raises(PipelineError, match="measured with weights_sha256 w, this run has v"):
        read_costs(path, asked | {"weights_sha256": "v"}, machine)
    with pytest.raises(PipelineError, match="measured with low 32, this run has 48"):
        read_costs(path, asked | {"low_px": 48}, machine)
    write_json(path, profile | made | {"processor": "A"})
    with pytest.raises(PipelineError, match="with instructions unknown, this run has avx2 fma; run adaptive"):
        read_costs(path, asked, machine)
