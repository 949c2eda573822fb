"""What the fit says of its threshold, in sentences that a terminal, a README and the report share."""

from typing import NamedTuple

from pipeline.certify import describe_ground, describe_promise
from pipeline.measured import Document
from pipeline.timing import FEWEST_IMAGES, MOST_CHANCE
from pipeline.wording import interval_of, number, percent, points


class Verdict(NamedTuple):
    """A plain sentence, and whether it says what one would hope for."""

    text: str
    holds: bool


def judge_fit(fit: Document) -> list[Verdict]:
    """Is the proxy worth its place: does it find what the oracle would, and does agreement gain by it?"""
    evaluation = fit["evaluation"]
    verdicts = [
        _judge_order(evaluation.get("gain_over_random"), fit.get("beats_random") == 1, fit.get("told", 1)),
        _judge_agreement(evaluation),
    ]
    certificate = fit.get("certificate")
    return [*verdicts, _judge_certificate(certificate, evaluation)] if certificate else verdicts


def _judge_certificate(certificate: Document, evaluation: Document) -> Verdict:
    """The promise, what it rests on, and what became of it on images that had no part in it."""
    promise, ground = describe_promise(certificate), describe_ground(certificate)
    if not certificate["certified"]:
        return Verdict(f"NOT certified: {promise} ({ground}); every image is escalated.", False)
    risk = evaluation["certified_risk"]
    found, holds = f"{percent(risk['value'])}{interval_of(risk, 'ci_low', 'ci_high', percent)}", True
    if risk["ci_low"] > certificate["alpha"]:
        found, holds = f"{found}, where it is NOT kept", False
    return Verdict(
        f"Certified: {promise} ({ground}; had this threshold been fixed beforehand, its bound would be "
        f"{percent(certificate['risk_bound'])}); on the evaluation images {found}.",
        holds,
    )


def _judge_order(gain: Document | None, beats_random: bool, told: int) -> Verdict:
    """told: 0 where images or events are too few for a claim."""
    if gain is None:
        return Verdict(
            "The proxy does NOT beat random escalation on this data: gain undefined, since the oracle is "
            "the same for every image.",
            False,
        )
    measured = f"gain {number(gain.get('value'))}{interval_of(gain, 'ci_low', 'ci_high', number)}"
    if beats_random:
        found = "beats random escalation at finding what the oracle would"
    else:
        found = "does NOT beat random escalation on this data"
    if not told:
        found = "cannot be told from random escalation, of so few images or events"
    return Verdict(f"The proxy {found}: {measured}, where 0 is random and 1 the oracle.", beats_random)


def _judge_agreement(evaluation: Document) -> Verdict:
    agreement, random = evaluation.get("agreement"), evaluation.get("random_agreement")
    difference = evaluation.get("agreement_over_random")
    enough = evaluation.get("images", FEWEST_IMAGES) >= FEWEST_IMAGES
    if difference is None:
        holds = agreement is not None and random is not None and agreement > random
        measured = ""
    else:
        holds = enough and difference["ci_low"] > 0 and difference.get("chance", 0) <= MOST_CHANCE
        measured = f", {points(difference['value'])}{interval_of(difference, 'ci_low', 'ci_high', points)}"
        if difference["ci_low"] > 0 and difference.get("chance", 0) > MOST_CHANCE:
            measured += f", but random escalation does as well in {percent(difference['chance'])} of cases"
    against = "above" if holds else "NOT above" if enough else "of too few images to be told from"
    return Verdict(
        f"Escalating {percent(evaluation.get('escalation_rate'))} gives agreement {percent(agreement)}: "
        f"{against} random escalation's {percent(random)}{measured}; "
        f"choosing by the oracle itself, {percent(evaluation.get('oracle_agreement'))}.",
        holds,
    )
