"""Section `runtime`: what the forward passes run on."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.params.base import Section

Backend = Literal["auto", "eager", "amx", "avx512", "avx2", "openvino", "compile", "cudagraph"]
Precision = Literal["float32", "bfloat16", "int8"]


class RuntimeParams(Section):
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]
    backend: Backend
    precision: Precision
    low_precision: Precision | None = None
    batch_size: Annotated[int, Field(ge=1, le=65536)]
    threads: Annotated[int, Field(ge=1, le=1024)] | None
