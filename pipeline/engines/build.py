"""Building an engine by the name of its backend."""

from collections.abc import Mapping

from pipeline.engines.base import Engine, Spec
from pipeline.params.model import Role


def build_engine(spec: Spec, batch_size: int) -> Engine:
    """The engine that `spec.runtime` names, compiled for batches of up to `batch_size` images."""
    return _engine_class(spec.runtime.backend)(spec, batch_size)


def build_engines(specs: Mapping[Role, Spec], batch_sizes: Mapping[Role, int]) -> dict[Role, Engine]:
    """The engines of a cascade: `specs` for at least the roles of `batch_sizes`.

    Where single images go from low to high, the two share their weights if the backend can.
    """
    shared: dict[Role, Engine] = {}
    singles = batch_sizes.get("low") == batch_sizes.get("high") == 1
    alike = singles and specs["low"].runtime == specs["high"].runtime
    if alike and specs["low"].runtime.backend == "openvino":
        from pipeline.engines.openvino import build_pair

        shared["low"], shared["high"] = build_pair(specs["low"], specs["high"])
    return {role: shared.get(role) or build_engine(specs[role], size) for role, size in batch_sizes.items()}


def _engine_class(backend: str) -> type[Engine]:
    """Imported when asked for: the packages of the other backends need not be installed."""
    match backend:
        case "amx" | "avx512" | "avx2":
            from pipeline.engines.native.engine import NativeEngine

            return NativeEngine
        case "openvino":
            from pipeline.engines.openvino import OpenVinoEngine

            return OpenVinoEngine
        case "compile":
            from pipeline.engines.compiled import CompiledEngine

            return CompiledEngine
        case "cudagraph":
            from pipeline.engines.cudagraph import CudaGraphEngine

            return CudaGraphEngine
        case "eager":
            from pipeline.engines.eager import EagerEngine

            return EagerEngine
        case _:
            raise ValueError(f"no engine is called {backend!r}")
