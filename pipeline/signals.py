"""What was found of the signals on one data set, as Markdown: which tells that high resolution matters."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.headroom import Headroom
from pipeline.oracles import ORACLES
from pipeline.results import piped
from pipeline.wording import Grid, number, percent

Document = Mapping[str, Any]


def describe_signals(compared: Mapping[str, Document], leads: Mapping[str, Document]) -> list[str]:
    """A table for each oracle, and what it says; `leads`: with differences to the best single proxy."""
    parts: list[str] = []
    for oracle in (name for name in ORACLES if name in compared):
        by_proxy = compared[oracle]
        order = _best_first(by_proxy)
        parts += ["", f"**{oracle}**", "", *piped(_signal_grid(by_proxy, order)), ""]
        parts.append(_say_lead(order, leads[oracle]))
    return parts


def best_single(by_proxy: Document) -> str:
    """The proxy, other than the learned one, that gains most over random escalation."""
    return next(name for name in _best_first(by_proxy) if name != "learned")


def _best_first(by_proxy: Document) -> list[str]:
    known = [name for name, item in by_proxy.items() if item["gain_over_random"]]
    return sorted(known, key=lambda name: -by_proxy[name]["gain_over_random"]["value"])


def _signal_grid(by_proxy: Document, order: Sequence[str]) -> Grid:
    rates = ("at_10", "at_20", "at_30")
    quality = "accuracy" if "accuracy" in by_proxy[order[0]] else "agreement"
    header = (
        "proxy",
        "gain over random",
        "AUROC",
        *(f"{quality} {rate.replace('_', ' ')} %" for rate in rates),
    )
    rows = (
        (
            name,
            _interval(by_proxy[name]["gain_over_random"]),
            number(by_proxy[name].get("auroc")),
            *(percent(by_proxy[name][quality][rate]) for rate in rates),
        )
        for name in order
    )
    return Grid(header, tuple(rows))


def _interval(found: Mapping[str, float], signed: bool = False) -> str:
    value, low, high = (f"{found[key]:{'+' if signed else ''}.3f}" for key in ("value", "ci_low", "ci_high"))
    return f"{value} [{low}, {high}]"


def _say_lead(order: Sequence[str], against: Document) -> str:
    """`against`: the same oracle, with differences to the best single proxy."""
    single = next(name for name in order if name != "learned")
    if not against[single]["told"]:
        return f"Best single: {single}; of too few images or events to tell the signals apart."
    lead, change = (against[name]["difference"] for name in ("learned", "cls_change"))
    side = "NOT outside"
    if lead["ci_low"] > 0:
        side = "outside"
    elif lead["ci_high"] < 0:
        side = "behind, outside"
    elif lead["value"] <= 0:
        side = "behind, and not outside"
    shown = _interval(lead, signed=True)
    text = f"Best single: {single}. `learned` less {single}: {shown}, {side} the interval."
    if single != "cls_change":
        text += f" `cls_change` less {single}: {_interval(change, signed=True)}."
    return text


def describe_headroom(oracle: str, single: str, found: Headroom, told: int) -> list[str]:
    """One paragraph, below the tables of the signals; told: 0 where images or events are too few."""
    gain, lead = _interval(found.gain._asdict()), _interval(found.difference._asdict(), signed=True)
    text = f"What could be had: boosted trees on the features of `learned` gain {gain} on {oracle}"
    says = f"Whether these trees find more in them than `{single}` shows, these images do not tell."
    if told and (found.difference.ci_low > 0 or found.difference.ci_high < 0):
        more = "more" if found.difference.ci_low > 0 else "less"
        says = f"So these trees find {more} in them than `{single}` shows."
    return ["", f"{text}; less {single}: {lead}. {says}"]
