import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.architecture import ARCHITECTURES, Architecture
from pipeline.backends import why_not
from pipeline.compiler import find_compiler
from pipeline.engines.amx import library
from pipeline.engines.amx.library import load_library, why_not_amx
from pipeline.engines.amx.pack import Packed
from pipeline.engines.amx.resizing import find_taps
from pipeline.engines.base import TOLERANCE
from pipeline.engines.build import build_engine
from pipeline.errors import PipelineError
from pipeline.images import resize
from pipeline.vit import draw_weights
from tests.made import canvases, spec

CPU = torch.device("cpu")
IMAGES = canvases(9)
# What differs from static_vit: a head of one tile, hidden values that are no whole number of chunks, classes
# that fill no tile, one block that is first and last, more images to a piece than a tile has rows.
SHAPES = [
    Architecture("narrow", 4, 64, 3, 2, 10, local=2),
    Architecture("single", 8, 96, 1, 1, 16, local=1),
    Architecture("coarse", 32, 64, 2, 1, 17),
    ARCHITECTURES["static_vit_local"],
]


@pytest.fixture
def _needs_amx():
    reason = why_not("amx", CPU, "float32")
    if reason:
        pytest.skip(reason)


@pytest.fixture
def afresh(monkeypatch, tmp_path):
    """As in a new process of a machine that has the instructions and an empty cache."""
    monkeypatch.setattr(library, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(library, "_processor_flags", lambda: set(library._INSTRUCTIONS))
    for function in (why_not_amx, load_library):
        function.cache_clear()
    yield tmp_path
    for function in (why_not_amx, load_library):
        function.cache_clear()


def of_shape(shape, precision="float32", threads=2, backend="amx", size_px=64):
    asked = spec(size_px, "eager", precision)
    runtime = replace(asked.runtime, backend=backend, threads=threads)
    return replace(asked, weights=draw_weights(shape, 0, 64), runtime=runtime)


def relative_errors(found, expected):
    return [float((a - b).abs().max() / b.abs().max()) for a, b in zip(found[:3], expected[:3], strict=True)]


@pytest.mark.usefixtures("_needs_amx")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_any_shape_on_any_number_of_threads_answers_as_eager(shape, threads, precision):
    eager = build_engine(of_shape(shape, backend="eager"), len(IMAGES))
    engine = build_engine(of_shape(shape, precision, threads), len(IMAGES))
    for count in (len(IMAGES), 1, 4):  # What an earlier pass left behind must not matter.
        errors = relative_errors(engine.run(IMAGES[:count]), eager.run(IMAGES[:count]))
        assert all(0 < error < TOLERANCE[precision] for error in errors)


@pytest.mark.usefixtures("_needs_amx")
def test_float32_is_nearer_than_one_bfloat16_product_could_be():
    shape = ARCHITECTURES["static_vit_local"]
    expected = build_engine(of_shape(shape, backend="eager"), 4).run(IMAGES[:4])
    once, thrice = (
        max(relative_errors(build_engine(of_shape(shape, precision), 4).run(IMAGES[:4]), expected))
        for precision in ("bfloat16", "float32")
    )
    assert thrice < 5e-5
    assert once > 100 * thrice


@pytest.mark.usefixtures("_needs_amx")
def test_pixels_of_all_values_are_taken_as_they_are():
    shape = SHAPES[0]
    extremes = torch.arange(256, dtype=torch.uint8).repeat(3 * 64 * 64 // 256).view(1, 3, 64, 64)
    images = torch.cat(
        [extremes, extremes.flip(3), torch.full_like(extremes, 255), torch.zeros_like(extremes)]
    )
    expected = build_engine(of_shape(shape, backend="eager"), 4).run(images)
    found = build_engine(of_shape(shape), 4).run(images)
    assert max(relative_errors(found, expected)) < TOLERANCE["float32"]


@pytest.mark.usefixtures("_needs_amx")
def test_canvases_of_any_memory_layout_are_the_same_images():
    engine = build_engine(of_shape(SHAPES[0]), 3)
    expected = engine.run(IMAGES[:3]).each(torch.clone)
    turned = IMAGES[:3].contiguous(memory_format=torch.channels_last)
    for mine, other in zip(engine.run(turned), expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=0)


# Random weights make small values: here are the large ones, for one plane and for two.
FUNCTIONS = """
#include <cmath>
#include <cstdio>
#include "lanes.h"
template <int planes> void check() {
  float gelu = 0, power = 0;
  for (float x = -40; x < 40; x += 1e-3f) {
    const double found = _mm512_cvtss_f32(vit::gelu<planes>(_mm512_set1_ps(x)));
    gelu = std::fmax(gelu, std::fabs(found / x - std::erfc(-x / std::sqrt(2.0)) / 2));
  }
  for (float x = -125; x <= 0; x += 1e-2f) {
    const double found = _mm512_cvtss_f32(vit::power_of_two<planes>(_mm512_set1_ps(x)));
    power = std::fmax(power, std::fabs(found / std::exp2(x) - 1));
  }
  std::printf("%g %g ", gelu, power);
}
int main() { check<1>(); check<2>(); }
"""


@pytest.mark.usefixtures("_needs_amx")
def test_gelu_and_exponentials_are_as_near_as_they_say(tmp_path):
    (tmp_path / "check.cpp").write_text(FUNCTIONS)
    options = ["-std=c++20", "-O1", "-march=sapphirerapids", f"-I{library.SOURCES}"]
    command = [find_compiler(), *options, str(tmp_path / "check.cpp"), "-o", str(tmp_path / "check")]
    subprocess.run(command, check=True, capture_output=True)
    told = subprocess.run([tmp_path / "check"], check=True, capture_output=True, text=True).stdout
    found = [float(error) for error in told.split()]
    for error, allowed in zip(found, (1e-4, 8e-5, 5e-7, 3e-7), strict=True):
        assert 0 < error < allowed


@pytest.mark.parametrize(
    ("from_px", "to_px"), [(64, 32), (64, 48), (48, 40), (224, 112), (224, 160), (96, 32), (32, 48)]
)
def test_the_weights_of_the_resize_give_the_pixels_that_torch_gives(from_px, to_px):
    images = torch.randint(0, 256, (4, 3, from_px, from_px), dtype=torch.uint8)
    first, weights, shift = find_taps(from_px, to_px)
    matrix = np.zeros((to_px, from_px), dtype=np.int64)
    np.put_along_axis(matrix, first[:, None] + np.arange(weights.shape[1]), weights, axis=1)
    found = images.numpy().astype(np.int64)
    for _ in range(2):  # Along the rows, then along the columns.
        found = np.clip((found @ matrix.T + (1 << (shift - 1))) >> shift, 0, 255).swapaxes(2, 3)
    torch.testing.assert_close(torch.from_numpy(found).to(torch.uint8), resize(images, to_px), rtol=0, atol=0)


@pytest.mark.usefixtures("_needs_amx")
@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize(("canvas_px", "size_px"), [(64, 32), (64, 48), (48, 40), (96, 32), (20, 16)])
def test_the_engine_sees_the_resized_image_to_the_pixel(canvas_px, size_px, count):
    """Not near: the same numbers as of an engine that is given the image as torch resizes it."""
    images = torch.randint(0, 256, (count, 3, canvas_px, canvas_px), dtype=torch.uint8)
    asked = replace(of_shape(SHAPES[0], "bfloat16", size_px=size_px), canvas_px=canvas_px)
    found = build_engine(asked, count).run(images)
    expected = build_engine(replace(asked, canvas_px=size_px), count).run(resize(images, size_px))
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=0)


@pytest.mark.usefixtures("_needs_amx")
@pytest.mark.parametrize(
    "canvases",
    [IMAGES[:1, :, :32], IMAGES[:1, :1], IMAGES[:1].float(), IMAGES],
    ids=["size", "channels", "type", "count"],
)
def test_memory_that_is_no_canvas_is_not_read(canvases):
    engine = build_engine(of_shape(SHAPES[0]), 3)
    with pytest.raises(ValueError, match=r"expected up to 3 of \(3, 64, 64\) torch.uint8"):
        engine.run(canvases)


def test_a_user_without_a_home_is_a_reason(afresh, monkeypatch):
    if find_compiler() is None:
        pytest.skip("needs a C++ compiler")
    monkeypatch.setattr(library, "CACHE", Path("~nobody-of-this-name/cache"))
    assert "home" in why_not_amx()


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (Architecture("odd", 4, 72, 1, 1, 10), "odd has 72 and 72"),
        (Architecture("thin", 4, 64, 1, 4, 10), "64 and 16"),
    ],
)
def test_a_model_that_fills_no_tiles_is_refused(shape, words):
    with pytest.raises(PipelineError, match=words):
        Packed(draw_weights(shape, 0, 64), 64, 64, 1)


def test_the_instructions_that_the_processor_lacks_are_named(afresh, monkeypatch):
    monkeypatch.setattr(library, "_processor_flags", lambda: {"amx_tile"})
    assert why_not_amx() == "the processor has no amx_bf16, avx512_bf16; use runtime.backend: auto"


def test_a_system_that_tells_no_instructions_has_none(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "_CPU_INFO", tmp_path / "none")
    assert library._processor_flags() == set()
    (tmp_path / "some").write_text("processor\t: 0\nflags\t\t: fpu amx_tile\nbugs\t\t: x\nflags\t\t: other\n")
    monkeypatch.setattr(library, "_CPU_INFO", tmp_path / "some")
    assert {"fpu", "amx_tile"} <= library._processor_flags()


def test_a_missing_compiler_is_named(afresh, monkeypatch):
    monkeypatch.setattr(library, "find_compiler", lambda: None)
    assert "install g++" in why_not_amx()


def test_what_does_not_compile_is_a_reason_and_leaves_nothing(afresh, monkeypatch):
    if find_compiler() is None:
        pytest.skip("needs a C++ compiler")
    sources = afresh / "src"
    sources.mkdir()
    (sources / "engine.cpp").write_text("int vit_run( { }\n")
    monkeypatch.setattr(library, "SOURCES", sources)
    assert "cannot compile the AMX pass" in why_not_amx()
    assert "engine.cpp:1" in why_not_amx()
    assert list(library.CACHE.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_a_reason(afresh, monkeypatch):
    if find_compiler() is None:
        pytest.skip("needs a C++ compiler")
    (afresh / "file").write_text("")
    monkeypatch.setattr(library, "CACHE", afresh / "file" / "cache")
    assert "Not a directory" in why_not_amx()


def test_the_library_is_compiled_once_for_the_same_sources(afresh, monkeypatch):
    if find_compiler() is None:
        pytest.skip("needs a C++ compiler")
    path = library._compile()
    compiled = path.read_bytes()
    monkeypatch.setattr(library.subprocess, "run", None)  # Not called again.
    assert library._compile() == path
    assert path.read_bytes() == compiled
