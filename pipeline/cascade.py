"""The policies, run for real: the static ones, and low first with the high pass where needed.

Every call starts with canvases on the host and ends with answers on the host; that is what gets timed.
"""

import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.answers import NEEDS, Answers, PolicyName
from pipeline.engines.base import Coming, Engine, Prediction, Spec, describe_transform, one_torch_thread
from pipeline.engines.build import build_engines
from pipeline.params.model import Role
from pipeline.policy import Policy, check_made_for, decide, decide_one, proxy_of
from pipeline.runtime import Runtime
from pipeline.vit import Weights


class Cascade:
    """The engines by role, each running batches of its own size, and the policy that links low and high.

    deadline_ms: longest that an escalated image waits for others to fill its batch, looked at after every
    low batch; None: until the end.
    """

    def __init__(
        self, engines: Mapping[Role, Engine], policy: Policy, deadline_ms: float | None = None
    ) -> None:
        self.engines, self.policy, self.deadline_ms = engines, policy, deadline_ms
        self.waiting = (
            _Waiting(engines["low"], engines["high"]) if {"low", "high"} <= engines.keys() else None
        )

    @property
    def policies(self) -> tuple[PolicyName, ...]:
        """Those that these engines can run."""
        return tuple(name for name, roles in NEEDS.items() if set(roles) <= self.engines.keys())

    def answer(self, name: PolicyName, canvases: Tensor) -> Answers:
        """Host uint8 (N, 3, S, S) to answers, in the batches of the roles."""
        if canvases.shape[0] == 1:
            return self._answer_one(name, canvases)
        if name == "adaptive":
            return self._adaptive(canvases)
        passes = _run_batches(self.engines[NEEDS[name][0]], canvases)
        parts = [found.top1 for _batch, found in passes]
        return Answers(np.concatenate(parts), np.full(len(canvases), name == "static_high"))

    def _answer_one(self, name: PolicyName, canvas: Tensor) -> Answers:
        """In few calls: a pass pushes their code out of the caches, so that each takes a while."""
        first = self.engines[NEEDS[name][0]]
        uploaded = first.upload(canvas)
        top1, proxy = first.predict(uploaded)
        if name != "adaptive":
            return Answers(top1, np.array([name == "static_high"]))
        assert proxy is not None
        escalated = decide_one(self.policy, float(proxy[0]))
        if escalated:
            top1 = self.engines["high"].predict(uploaded).top1
        return Answers(top1, np.array([escalated]))

    def _adaptive(self, canvases: Tensor) -> Answers:
        """Low in full batches; what escalates waits on the device until it fills a high batch."""
        waiting, count = self.waiting, len(canvases)
        assert waiting is not None
        waiting.forget()
        answers = Answers(np.empty(count, dtype=np.int64), np.zeros(count, dtype=bool))
        start = 0
        for batch, (top1, proxy) in _run_batches(self.engines["low"], canvases):
            assert proxy is not None
            escalated = decide(self.policy, proxy)
            end = start + len(batch)
            answers.top1[start:end] = top1
            answers.escalated[start:end] = escalated
            waiting.add(batch, start, np.flatnonzero(escalated))
            waiting.run_full()
            if self.deadline_ms is not None and waiting.waited_ms() >= self.deadline_ms:
                waiting.run_rest()
            start = end
        waiting.run_rest()
        waiting.take_answers(answers.top1)
        return answers


def _run_batches(engine: Engine, canvases: Tensor) -> Iterator[tuple[Tensor, Prediction]]:
    """Every batch, on the device, and what the engine predicts of it.

    A GPU has the next batch before anyone waits for the last, so that it never waits for the host.
    """
    under_way: deque[tuple[Tensor, Coming]] = deque()
    ahead = int(engine.runtime.device.type != "cpu")
    for part in canvases.split(engine.batch_size):
        batch = engine.upload(part)
        under_way.append((batch, engine.begin(batch)))
        if len(under_way) > ahead:
            batch, coming = under_way.popleft()
            yield batch, coming()
    for batch, coming in under_way:
        yield batch, coming()


@dataclass(frozen=True)
class Bench:
    """All that cascades are built from; each gets engines of its own. batch_size: the largest allowed.

    sizes_px: pixels by role; the canvases have the high size.
    """

    weights: Weights
    sizes_px: Mapping[Role, int]
    runtime: Runtime
    policy: Policy
    batch_size: int
    deadline_ms: float | None = None

    def spec(self, role: Role) -> Spec:
        """The low pass alone is asked for the proxy: nobody reads that of another."""
        proxy = proxy_of(self.policy) if role == "low" else None
        return Spec(self.weights, self.sizes_px["high"], self.sizes_px[role], self.runtime.of(role), proxy)

    def check_policy(self, path: Path) -> None:
        """Refuse a policy, read from `path`, that was fitted under other conditions than these.

        The backend may differ: at one precision they agree to rounding, and replay counts decisions that
        differ.
        """
        running = {
            "weights_sha256": self.weights.sha256,
            "transform": describe_transform(self.weights.normalisation),
            "precision": self.runtime.precision,
            "low_precision": self.runtime.low_precision,
            "low_px": self.sizes_px["low"],
            "high_px": self.sizes_px["high"],
        }
        check_made_for(self.policy, running, path)

    def build(self, batch_sizes: Mapping[Role, int]) -> Cascade:
        """The engines of the roles named, each compiled for its batch."""
        specs = {role: self.spec(role) for role in batch_sizes}
        return Cascade(build_engines(specs, batch_sizes), self.policy, self.deadline_ms)


class _Waiting:
    """Canvases on the device that wait for a high pass, and the rows of the answers that it will fill.

    Room for the largest number that can wait, allocated once.
    """

    def __init__(self, low: Engine, high: Engine) -> None:
        self.high = high
        self.room = low.batch_size + high.batch_size - 1
        self.canvases: Tensor | None = None
        self.rows: list[int] = []
        self.under_way: list[tuple[list[int], Coming]] = []
        self.since_s = self.added_s = 0.0

    def forget(self) -> None:
        """What a call left that ended in an error."""
        self.rows, self.under_way = [], []

    def waited_ms(self) -> float:
        """How long the first of them has waited; 0 where none does."""
        return (time.perf_counter() - self.since_s) * 1e3 if self.rows else 0.0

    def add(self, batch: Tensor, start: int, chosen: NDArray[np.intp]) -> None:
        """Take the `chosen` of `batch`, whose first row is `start`."""
        if not len(chosen):
            return
        if self.canvases is None:
            self.canvases = batch.new_empty((self.room, *batch.shape[1:]))
        self.added_s = time.perf_counter()
        if not self.rows:
            self.since_s = self.added_s
        first = len(self.rows)
        self.rows.extend((start + chosen).tolist())
        into = self.canvases[first : len(self.rows)]
        with one_torch_thread():
            if len(chosen) == len(batch):
                into.copy_(batch)
            else:
                torch.index_select(batch, 0, _send(chosen, batch.device), out=into)

    def run_full(self) -> None:
        while len(self.rows) >= self.high.batch_size:
            self._run(self.high.batch_size)

    def run_rest(self) -> None:
        if self.rows:
            self._run(len(self.rows))

    def take_answers(self, top1: NDArray[np.int64]) -> None:
        """Wait for all high passes, and put their answers into their rows."""
        under_way, self.under_way = self.under_way, []
        for rows, coming in under_way:
            top1[rows] = coming().top1

    def _run(self, count: int) -> None:
        assert self.canvases is not None
        now, self.rows = self.rows[:count], self.rows[count:]
        self.under_way.append((now, self.high.begin(self.canvases[:count])))
        if self.rows:
            with one_torch_thread():
                rest = self.canvases[count : count + len(self.rows)].clone()
                self.canvases[: len(rest)].copy_(rest)
            self.since_s = self.added_s  # A full batch is run at once, so what is left came last.


def _send(rows: NDArray[np.intp], device: torch.device) -> Tensor:
    """From pinned memory where there is a GPU: of other memory it would first do all that is queued."""
    numbers = torch.from_numpy(rows)
    return numbers if device.type == "cpu" else numbers.pin_memory().to(device, non_blocking=True)
