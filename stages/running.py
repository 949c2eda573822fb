"""What a stage runs images through: the model under the parameters of a run, with a fitted policy."""

from collections.abc import Collection
from pathlib import Path

from pipeline.cascade import Bench
from pipeline.checkpoint import load_weights
from pipeline.params.model import ModelParams, ResolutionParams, Role
from pipeline.params.runtime import RuntimeParams
from pipeline.policy import read_policy
from pipeline.runtime import resolve_runtime
from stages.common import ParamsFile


def read_bench(
    params: ParamsFile, policy: Path, roles: Collection[Role], deadline_ms: float | None = None
) -> Bench:
    """Of those of the roles that `resolutions` has; the policy is not checked yet."""
    options = params.section("runtime", RuntimeParams)
    sizes = params.section("resolutions", ResolutionParams)
    weights = load_weights(params.section("model", ModelParams), sizes.high)
    runtime = resolve_runtime(options, weights.architecture)
    sizes_px = {role: size_px for role, size_px in sizes.by_role().items() if role in roles}
    return Bench(weights, sizes_px, runtime, read_policy(policy), options.batch_size, deadline_ms)
