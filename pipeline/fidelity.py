"""How far an engine's answers lie from those of eager PyTorch in float32 on the same images."""

from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from pipeline.cascade import Bench
from pipeline.engines.base import TOLERANCE, Answer, Engine, join
from pipeline.engines.build import build_engine
from pipeline.engines.eager import EagerEngine
from pipeline.params.model import Role
from pipeline.policy import Policy, decide


def compare_with_eager(bench: Bench, canvases: Tensor) -> dict[str, Any]:
    """Errors by role and, of the low pass, the share of equal decisions; host canvases (N, 3, S, S).

    Each role's largest error of `measure_errors` is held against the tolerance of its precision; told are
    both of the role that comes nearest to it, or lies furthest beyond.
    """
    found: dict[str, Any] = {"images": len(canvases)}
    errors: dict[Role, float] = {}
    roles: tuple[Role, ...] = ("low", "high")
    for role in roles:
        reference, answer = _answers(bench, role, canvases)
        found[role] = measure_errors(answer, reference)
        errors[role] = float(np.max(list(found[role].values())))  # NaN where one is.
        same = answer.logits.argmax(1) == reference.logits.argmax(1)
        found[role]["top1_agreement"] = float(same.float().mean())
        if role == "low":
            found["decision_agreement"] = _equal_decisions(bench.policy, answer, reference)
    tolerances = {role: TOLERANCE[bench.runtime.of(role).precision] for role in errors}
    shares = [errors[role] / tolerances[role] for role in roles]
    worst = roles[int(np.argmax(shares))]  # NaN where one is.
    found |= {"tolerance": tolerances[worst], "largest_error": errors[worst], "largest_error_role": worst}
    return found | {"within_tolerance": int(errors[worst] <= tolerances[worst])}


def _answers(bench: Bench, role: Role, canvases: Tensor) -> tuple[Answer, Answer]:
    spec = bench.spec(role)
    eager = replace(spec, runtime=replace(spec.runtime, backend="eager", precision="float32"))
    engines = EagerEngine(eager, bench.batch_size), build_engine(spec, bench.batch_size)
    reference, answer = (run_all(engine, canvases) for engine in engines)
    return reference, answer


def run_all(engine: Engine, canvases: Tensor) -> Answer:
    """Of host canvases (N, 3, S, S), batch by batch; on the host."""
    parts = canvases.split(engine.batch_size)
    return join([engine.run(engine.upload(part)).each(lambda value: value.cpu().clone()) for part in parts])


def measure_errors(answer: Answer, reference: Answer) -> dict[str, float]:
    """Of logits, embedding and trace: the largest difference as a share of the largest value."""
    return {
        name: _error(getattr(answer, name), getattr(reference, name))
        for name in ("logits", "embedding", "trace")
    }


def _error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def _equal_decisions(policy: Policy, answer: Answer, reference: Answer) -> float:
    assert answer.proxy is not None
    assert reference.proxy is not None
    same = decide(policy, answer.proxy.numpy()) == decide(policy, reference.proxy.numpy())
    return float(same.mean())
