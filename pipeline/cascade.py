"""The policies, run for real: static low, static high, and low first with the high pass where needed.

Every call starts with canvases on the host and ends with answers on the host; that is what gets timed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.engine import EagerEngine
from pipeline.params.model import Role
from pipeline.policy import Policy, decide
from pipeline.proxies import get_proxy
from pipeline.runtime import Runtime
from pipeline.vit import Pass, Weights

PolicyName = Literal["static_low", "static_high", "adaptive"]
POLICIES: tuple[PolicyName, ...] = ("static_low", "static_high", "adaptive")
# The engines that each policy runs.
NEEDS: Mapping[PolicyName, tuple[Role, ...]] = {
    "static_low": ("low",),
    "static_high": ("high",),
    "adaptive": ("low", "high"),
}


class Answers(NamedTuple):
    """top1 (N,) int64 class indices and escalated (N,) booleans, in the order of the input."""

    top1: NDArray[np.int64]
    escalated: NDArray[np.bool_]


@dataclass(frozen=True)
class Cascade:
    """The engines by role, those that the policies to be run need, each with the batch that it runs."""

    engines: Mapping[Role, EagerEngine]
    policy: Policy
    batch_sizes: Mapping[Role, int]

    def answer(self, name: PolicyName, canvases: Tensor) -> Answers:
        """Host uint8 (N, 3, S, S) to answers, in the batches of the roles."""
        if name == "adaptive":
            return self._adaptive(canvases)
        (role,) = NEEDS[name]
        engine = self.engines[role]
        top1 = [_top1(engine.run(engine.upload(part))) for part in canvases.split(self.batch_sizes[role])]
        return Answers(np.concatenate(top1), np.full(len(canvases), name == "static_high"))

    def _adaptive(self, canvases: Tensor) -> Answers:
        """Low in full batches; what escalates waits on the device until it fills a high batch."""
        low, step, count = self.engines["low"], self.batch_sizes["low"], len(canvases)
        answers = Answers(np.empty(count, dtype=np.int64), np.zeros(count, dtype=bool))
        waiting = _Waiting(self.engines["high"], self.batch_sizes["high"], answers.top1)
        for start in range(0, count, step):
            batch = low.upload(canvases[start : start + step])
            top1, proxy = self._to_host(low.run(batch))
            escalated = decide(self.policy, proxy)
            answers.top1[start : start + len(batch)] = top1
            answers.escalated[start : start + len(batch)] = escalated
            waiting.add(batch, start, np.flatnonzero(escalated))
        waiting.run_rest()
        return answers

    def _to_host(self, result: Pass) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Top-1 and proxy of a low pass in one transfer, and so with one synchronisation."""
        proxy = get_proxy(self.policy.proxy)(result.trace, result.logits)
        both = torch.stack([result.logits.argmax(1).float(), proxy]).cpu().numpy()
        return both[0].astype(np.int64), both[1]


@dataclass(frozen=True)
class Bench:
    """All that cascades are built from; each gets engines of its own. batch_size: the largest allowed."""

    weights: Weights
    sizes_px: Mapping[Role, int]
    runtime: Runtime
    policy: Policy
    batch_size: int

    def build(self, roles: tuple[Role, ...]) -> Cascade:
        engines = {role: EagerEngine(self.weights, self.sizes_px[role], self.runtime) for role in roles}
        return Cascade(engines, self.policy, dict.fromkeys(roles, self.batch_size))


class _Waiting:
    """Canvases on the device that wait for a high pass, and the rows of `top1` that it will fill."""

    def __init__(self, high: EagerEngine, batch_size: int, top1: NDArray[np.int64]) -> None:
        self.high, self.batch_size, self.top1 = high, batch_size, top1
        self.canvases: list[Tensor] = []
        self.rows: list[int] = []

    def add(self, batch: Tensor, start: int, chosen: NDArray[np.intp]) -> None:
        """Take the `chosen` of `batch`, whose first row is `start`; run as soon as a batch is full."""
        if not len(chosen):
            return
        all_of_it = len(chosen) == len(batch)
        self.canvases.append(batch if all_of_it else batch[torch.from_numpy(chosen).to(batch.device)])
        self.rows.extend((start + chosen).tolist())
        while len(self.rows) >= self.batch_size:
            self._run()

    def run_rest(self) -> None:
        if self.rows:
            self._run()

    def _run(self) -> None:
        together = self.canvases[0] if len(self.canvases) == 1 else torch.cat(self.canvases)
        now, self.rows = self.rows[: self.batch_size], self.rows[self.batch_size :]
        self.top1[now] = _top1(self.high.run(together[: self.batch_size]))
        self.canvases = [together[self.batch_size :]] if self.rows else []


def _top1(result: Pass) -> NDArray[np.int64]:
    top1: NDArray[np.int64] = result.logits.argmax(1).cpu().numpy()
    return top1
