"""The results as text: for a terminal, as Markdown, and between the markers of a README."""

from pathlib import Path

from pipeline.conditions import list_conditions
from pipeline.errors import PipelineError
from pipeline.files import whole_file
from pipeline.findings import (
    describe_engine,
    describe_scenario,
    describe_speed,
    policy_grid,
    scenarios_of,
)
from pipeline.measured import Metrics
from pipeline.verdicts import judge_fit
from pipeline.wording import Grid

_MARKERS = "<!-- {}:begin -->", "<!-- {}:end -->"


def format_terminal(metrics: Metrics) -> str:
    """Aligned columns and plain lines, ending in a newline."""
    parts = []
    for name, scenario in scenarios_of(metrics).items():
        parts += [describe_scenario(name, scenario), "", *_aligned(policy_grid(scenario)), ""]
        parts += [*describe_speed(scenario), ""]
    parts += [verdict.text for verdict in judge_fit(metrics.fit)]
    parts += [*describe_engine(metrics.replay.get("engine")), "", _conditions_line(metrics)]
    return "\n".join(parts) + "\n"


def format_markdown(metrics: Metrics) -> str:
    """The same content as Markdown, ending in a newline."""
    parts = []
    for name, scenario in scenarios_of(metrics).items():
        parts += [f"**{describe_scenario(name, scenario)}**", "", *piped(policy_grid(scenario)), ""]
        parts += [*(f"- {line}" for line in describe_speed(scenario)), ""]
    parts += [f"- **{_escaped(verdict.text)}**" for verdict in judge_fit(metrics.fit)]
    parts += [f"- {_escaped(line)}" for line in describe_engine(metrics.replay.get("engine"))]
    parts += ["", _escaped(_conditions_line(metrics))]
    return "\n".join(parts) + "\n"


def replace_results(document: str, markdown: str, where: str, part: str = "results") -> str:
    """`document` with `markdown` between the markers of `part`; PipelineError unless it has both once."""
    begin, end = (marker.format(part) for marker in _MARKERS)
    counts = document.count(begin), document.count(end)
    if counts != (1, 1) or document.index(begin) > document.index(end):
        raise PipelineError(
            f"{where}: found {counts[0]} × {begin} and {counts[1]} × {end}; "
            "expected each once, in this order, on lines of their own"
        )
    before, _, rest = document.partition(begin)
    after = rest.partition(end)[2]
    return f"{before}{begin}\n\n{markdown}\n{end}{after}"


def replace_in_file(path: Path, markdown: str, part: str = "results") -> None:
    """`replace_results` in the document at `path`, which is whole at every moment."""
    document = replace_results(path.read_text(encoding="utf-8"), markdown, str(path), part)
    with whole_file(path) as temporary:
        temporary.write_text(document, encoding="utf-8")


def _aligned(grid: Grid) -> list[str]:
    lines = [grid.header, *grid.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [_aligned_line(cells, widths) for cells in lines]


def _aligned_line(cells: tuple[str, ...], widths: list[int]) -> str:
    numbers = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return "  ".join([cells[0].ljust(widths[0]), *numbers])


def piped(grid: Grid) -> list[str]:
    rule = "|---|" + "---:|" * (len(grid.header) - 1)
    head, *body = (f"| {' | '.join(map(_escaped, cells))} |" for cells in (grid.header, *grid.rows))
    return [head, rule, *body]


def _escaped(text: str) -> str:
    """Free text, such as a processor's name, must not become Markdown or HTML."""
    for character in "\\|<>*`":
        text = text.replace(character, f"\\{character}")
    return text


def _conditions_line(metrics: Metrics) -> str:
    return "Conditions: " + "; ".join(f"{name} {value}" for name, value in list_conditions(metrics)) + "."
