"""Building an engine by the name of its backend."""

from pipeline.engines.base import Engine, Spec


def build_engine(spec: Spec, batch_size: int) -> Engine:
    """The engine that `spec.runtime` names, compiled for batches of up to `batch_size` images."""
    return _engine_class(spec.runtime.backend)(spec, batch_size)


def _engine_class(backend: str) -> type[Engine]:
    """Imported when asked for: the packages of the other backends need not be installed."""
    match backend:
        case "openvino":
            from pipeline.engines.openvino import OpenVinoEngine

            return OpenVinoEngine
        case "compile":
            from pipeline.engines.compiled import CompiledEngine

            return CompiledEngine
        case "cudagraph":
            from pipeline.engines.cudagraph import CudaGraphEngine

            return CudaGraphEngine
        case _:
            from pipeline.engines.eager import EagerEngine

            return EagerEngine
