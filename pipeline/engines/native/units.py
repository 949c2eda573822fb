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


_SINGLES = Layout(torch.float32, planes=1, depth=4, together=1)
_PAIRS = Layout(torch.bfloat16, planes=1, depth=8, together=2)
_AVX512 = Unit(
    "avx512",
    "avx512",
    ("avx512", "float32", "plain", "vectors"),
    ("avx512f", "avx512bw", "avx512dq", "avx512vl"),
    ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"),
    {"float32": _SINGLES},
)
_AVX512_BF16 = Unit(
    "avx512_bf16",
    "avx512",
    ("avx512", "avx512_bf16", "bfloat16", "plain", "vectors"),
    (*_AVX512.instructions, "avx512_bf16"),
    (*_AVX512.flags, "-mavx512bf16"),
    {"bfloat16": _PAIRS},
)
_AMX = Unit(
    "amx",
    "amx",
    ("amx", "bfloat16", "plain", "avx512"),
    (*_AVX512_BF16.instructions, "amx_tile", "amx_bf16"),
    (*_AVX512_BF16.flags, "-mamx-tile", "-mamx-bf16", "-mtune=sapphirerapids"),
    {
        "bfloat16": Layout(torch.bfloat16, planes=1, depth=32, together=2),
        "float32": Layout(torch.bfloat16, planes=2, depth=32, together=2),
    },
)
# What is not in 8 bits is in bfloat16 where the processor multiplies it.
_AVX512_BF16_INT8 = Unit(
    "avx512_bf16_int8",
    "avx512",
    ("avx512", "avx512_bf16", "bfloat16", "int8", "vectors"),
    (*_AVX512_BF16.instructions, "avx512_vnni"),
    (*_AVX512_BF16.flags, "-mavx512vnni"),
    {"int8": _PAIRS._replace(quantises=True)},
)
_AVX512_INT8 = Unit(
    "avx512_int8",
    "avx512",
    ("avx512", "float32", "int8", "vectors"),
    (*_AVX512.instructions, "avx512_vnni"),
    (*_AVX512.flags, "-mavx512vnni"),
    {"int8": _SINGLES._replace(quantises=True)},
)
_AVX2 = Unit(
    "avx2",
    "avx2",
    ("avx2", "float32", "plain", "vectors"),
    ("avx2", "fma"),
    ("-mavx2", "-mfma"),
    {"float32": _SINGLES},
)
# Of one backend and precision, the better one first.
UNITS = {unit.name: unit for unit in (_AMX, _AVX512, _AVX512_BF16, _AVX512_BF16_INT8, _AVX512_INT8, _AVX2)}
