"""OpenVINO without its telemetry: import `ov` and `opset` from here, and nowhere else."""

import sys

# It reports its use to its makers unless the package that does so is missing: so it is, here.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino as ov  # noqa: E402
from openvino import opset13 as opset  # noqa: E402

__all__ = ["opset", "ov"]
