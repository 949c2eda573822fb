"""What a processor can multiply matrices with: the variants that the pass is compiled in."""

from dataclasses import dataclass

import torch

from pipeline.engines.native.pack import Layout
from pipeline.params.runtime import Precision


@dataclass(frozen=True)
class Unit:
    """`folders` under `src` hold its C++; `instructions` are named as Linux names what a processor has."""

    name: str
    backend: str
    folders: tuple[str, ...]
    instructions: tuple[str, ...]
    flags: tuple[str, ...]
    layouts: dict[Precision, Layout]


_FLOAT32: dict[Precision, Layout] = {"float32": Layout(torch.float32, planes=1, depth=4, together=1)}
_AMX = Unit(
    "amx",
    "amx",
    ("amx", "bfloat16", "avx512"),
    ("amx_tile", "amx_bf16", "avx512_bf16"),
    ("-march=sapphirerapids",),
    {
        "bfloat16": Layout(torch.bfloat16, planes=1, depth=32, together=2),
        "float32": Layout(torch.bfloat16, planes=2, depth=32, together=2),
    },
)
_AVX512 = Unit(
    "avx512",
    "avx512",
    ("avx512", "float32", "vectors"),
    ("avx512f", "avx512bw", "avx512dq", "avx512vl"),
    ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"),
    _FLOAT32,
)
_AVX512_BF16 = Unit(
    "avx512_bf16",
    "avx512",
    ("avx512", "avx512_bf16", "bfloat16", "vectors"),
    (*_AVX512.instructions, "avx512_bf16"),
    (*_AVX512.flags, "-mavx512bf16"),
    {"bfloat16": Layout(torch.bfloat16, planes=1, depth=8, together=2)},
)
_AVX2 = Unit(
    "avx2",
    "avx2",
    ("avx2", "float32", "vectors"),
    ("avx2", "fma"),
    ("-mavx2", "-mfma"),
    _FLOAT32,
)
UNITS = {unit.name: unit for unit in (_AMX, _AVX512, _AVX512_BF16, _AVX2)}


def find_unit(backend: str, precision: Precision) -> Unit | None:
    """What a backend computes a precision with; None where it does not."""
    units = (unit for unit in UNITS.values() if unit.backend == backend and precision in unit.layouts)
    return next(units, None)
