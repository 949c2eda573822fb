import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.architecture import ARCHITECTURES, Architecture
from pipeline.backends import NATIVE, why_not
from pipeline.compiler import find_compiler, read_version
from pipeline.engines.base import TOLERANCE
from pipeline.engines.build import build_engine
from pipeline.engines.native import library
from pipeline.engines.native.clock import ClockedEngine
from pipeline.engines.native.library import find_unit, load_library, why_not_native
from pipeline.engines.native.pack import Packed
from pipeline.engines.native.resizing import find_taps
from pipeline.engines.native.units import UNITS
from pipeline.errors import PipelineError
from pipeline.fused import FusedViT
from pipeline.images import resize
from pipeline.learned import Learned
from pipeline.processor import count_cores, processor_flags
from pipeline.proxies import cls_change, library_of, margin, step_lengths
from pipeline.vit import draw_weights
from tests.machines import skip_unless
from tests.made import canvases, spec

CPU = torch.device("cpu")
IMAGES = canvases(9)
# What differs from static_vit: a head of one tile, hidden values that are no whole number of chunks, classes
# that fill no tile, one block that is first and last, more images to a piece than a tile has rows, a norm
# before the blocks, registers, another GELU.
SHAPES = [
    Architecture("narrow", 4, 64, 3, 2, 10, local=2),
    Architecture("single", 8, 96, 1, 1, 16, local=1),
    Architecture("coarse", 32, 64, 2, 1, 17),
    ARCHITECTURES["static_vit_local"],
    Architecture("clip", 16, 64, 2, 1, 10, pre_norm=True, epsilon=1e-5, quick_gelu=True),
    Architecture("registers", 8, 64, 2, 1, 10, registers=4),
]


@pytest.fixture(scope="session")
def compiled():
    """Every unit in the usual cache, compiled side by side, then with a clock those that run here."""
    if find_compiler() is None:
        pytest.skip("needs a C++ compiler")
    there = [unit for unit in UNITS.values() if processor_flags().issuperset(unit.instructions)]
    jobs = [*((unit, False) for unit in UNITS.values()), *((unit, True) for unit in there)]
    with ThreadPoolExecutor(count_cores()) as pool:
        return list(pool.map(lambda job: library._compile_pass(*job), jobs))


@pytest.fixture(params=NATIVE)
def backend(request):
    """Every variant of the pass that this machine can run."""
    if find_compiler():
        request.getfixturevalue("compiled")
    skip_unless(request.param)
    return request.param


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "CACHE", tmp_path / "cache")


@pytest.fixture
def afresh(monkeypatch, tmp_path):
    """As in a new process of a machine that has all instructions."""
    flags = {name for unit in UNITS.values() for name in unit.instructions}
    monkeypatch.setattr(library, "processor_flags", lambda: flags)
    for function in (library._why_no_library, load_library):
        function.cache_clear()
    yield tmp_path
    for function in (library._why_no_library, load_library):
        function.cache_clear()


def of_shape(shape, backend, precision="float32", threads=2, size_px=64):
    asked = spec(size_px, "eager")
    runtime = replace(asked.runtime, backend=backend, precision=precision, threads=threads)
    return replace(asked, weights=draw_weights(shape, 0, 64), runtime=runtime)


def redrawn(weights):
    """With what else starts as next to nothing: norms that multiply by one and add none, registers."""
    torch.manual_seed(1)
    faint = {name: value for name, value in weights.state.items() if "norm" in name or name == "reg_token"}
    changed = {name: value + 0.5 * torch.randn_like(value) for name, value in faint.items()}
    return replace(weights, state={**weights.state, **changed})


def relative_errors(found, expected):
    return [float((a - b).abs().max() / b.abs().max()) for a, b in zip(found[:3], expected[:3], strict=True)]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_any_shape_on_any_number_of_threads_answers_as_eager(backend, shape, threads, precision):
    skip_unless(backend, precision)
    eager = build_engine(of_shape(shape, "eager"), len(IMAGES))
    engine = build_engine(of_shape(shape, backend, precision, threads), len(IMAGES))
    for count in (len(IMAGES), 1, 4):  # What an earlier pass left behind must not matter.
        errors = relative_errors(engine.run(IMAGES[:count]), eager.run(IMAGES[:count]))
        assert all(0 < error < TOLERANCE[precision] for error in errors)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_how_many_threads_share_an_image_changes_no_bit(backend, precision, shape):
    skip_unless(backend, precision)
    alone, *others = (build_engine(of_shape(shape, backend, precision, count), 2) for count in (1, 2, 3))
    for image in IMAGES[:2].split(1):
        expected = alone.run(image)
        for engine in others:
            assert all(map(torch.equal, engine.run(image)[:3], expected[:3]))


@pytest.mark.parametrize("local", [0, 2])
def test_an_image_of_fewer_tokens_than_there_are_threads_leaves_some_idle(backend, local):
    """Five tokens on eight: image by image, so that what an earlier one left would show."""
    shape = Architecture("few", 32, 64, 2, 2, 10, local=local)
    eager = build_engine(of_shape(shape, "eager"), 1)
    engine = build_engine(of_shape(shape, backend, threads=8), 1)
    for image in IMAGES.split(1):
        assert max(relative_errors(engine.run(image), eager.run(image))) < 5e-5


@pytest.mark.parametrize("shape", SHAPES[-2:], ids=lambda shape: shape.name)
def test_norms_and_registers_are_those_of_the_weights(backend, shape):
    asked = of_shape(shape, "eager")
    asked = replace(asked, weights=redrawn(asked.weights))
    expected = build_engine(asked, 4).run(IMAGES[:4])
    engine = build_engine(replace(asked, runtime=replace(asked.runtime, backend=backend)), 4)
    for count in (4, 1):
        found = engine.run(IMAGES[:count])
        assert max(relative_errors(found, [value[:count] for value in expected[:3]])) < 5e-5


@pytest.mark.parametrize("registers", [4, 15])
def test_threads_resize_what_their_tokens_show(backend, registers):
    """Of one image, each a part; with 15 registers the tokens at 64 px fill vectors of 16."""
    shape = Architecture("registers", 16, 64, 2, 1, 10, registers=registers)
    for size_px in (32, 64):
        asked = of_shape(shape, "eager", threads=3, size_px=size_px)
        asked = replace(asked, weights=redrawn(asked.weights))
        expected = build_engine(asked, 1).run(IMAGES[:1])
        engine = build_engine(replace(asked, runtime=replace(asked.runtime, backend=backend)), 1)
        assert max(relative_errors(engine.run(IMAGES[:1]), expected)) < 5e-5


def test_float32_is_nearer_than_bfloat16_products_could_be(backend):
    shape = ARCHITECTURES["static_vit_local"]
    expected = build_engine(of_shape(shape, "eager"), 4).run(IMAGES[:4])
    error = max(relative_errors(build_engine(of_shape(shape, backend), 4).run(IMAGES[:4]), expected))
    assert error < (5e-5 if backend == "amx" else 5e-6)
    if not why_not(backend, CPU, "bfloat16"):
        rough = build_engine(of_shape(shape, backend, "bfloat16"), 4).run(IMAGES[:4])
        assert max(relative_errors(rough, expected)) > 100 * error


def eight_bits(values):
    """The nearest of 255 numbers a row, from the largest value's negative to itself."""
    scale = values.abs().amax(dim=-1, keepdim=True) / 127
    return (values / scale).round() * scale


def test_eight_bits_are_those_of_the_formula(monkeypatch):
    """Layers of the blocks alone, hidden values in parts of 192: as eager with rounded numbers.

    Of one block, and of the images that come nearest: in others a number lies on the border of two.
    """
    needed, shape = set(UNITS["avx512_int8"].instructions), SHAPES[1]
    if not needed <= library.processor_flags():
        pytest.skip(f"the processor has not all of {', '.join(sorted(needed))}")
    monkeypatch.setattr(library, "processor_flags", lambda: needed)  # No bfloat16 for the attention.
    whole = F.linear

    def rounded(values, weight, bias):
        if len(weight) == shape.classes:
            return whole(values, weight, bias)
        parts = [weight.shape[1]] if weight.shape[1] == shape.width else 192
        pairs = zip(values.split(parts, dim=-1), weight.split(parts, dim=1), strict=True)
        return sum(whole(eight_bits(value), eight_bits(part)) for value, part in pairs) + bias

    expected = build_engine(of_shape(shape, "eager"), 9).run(IMAGES).embedding
    found = build_engine(of_shape(shape, "avx512", "int8"), 9).run(IMAGES).embedding
    model = FusedViT(of_shape(shape, "eager").weights, 64, None)
    monkeypatch.setattr(F, "linear", rounded)
    _, formula, _ = model(IMAGES)
    errors, roundings = ((formula - other).abs().amax(dim=1) for other in (found, expected))
    assert errors.median() < 0.1 * roundings.median()
    assert errors.min() < 1e-4 < 1e-3 < roundings.min()


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_a_clock_changes_no_answer_and_adds_up_to_the_passes(backend, precision):
    skip_unless(backend, precision)
    asked = of_shape(ARCHITECTURES["static_vit_local"], backend, precision)
    expected = build_engine(asked, 9).run(IMAGES)
    clocked = ClockedEngine(asked, 9)
    for count in (1, 9):
        clocked.take_clock()  # What the warm-up took.
        started_s = time.perf_counter()
        found = clocked.run(IMAGES[:count])
        taken_s = time.perf_counter() - started_s
        for mine, other in zip(found[:3], expected[:3], strict=True):
            torch.testing.assert_close(mine, other[:count], rtol=1e-3, atol=1e-4)
        parts_s = clocked.take_clock()
        assert all(value > 0 for name, value in parts_s.items() if name != "waiting")
        assert 0 <= parts_s["waiting"] < sum(parts_s.values()) <= taken_s
    assert sum(clocked.take_clock().values()) == 0


@pytest.mark.parametrize("proxy", [cls_change, margin, Learned(tuple(np.linspace(-1, 1, 38)), 0.5)])
def test_the_pass_computes_the_proxy_of_its_own_trace(backend, proxy):
    asked = of_shape(ARCHITECTURES["static_vit"], backend, size_px=32)
    engine = build_engine(replace(asked, proxy=proxy), len(IMAGES))
    assert engine.packed.model.score
    for count in (len(IMAGES), 1, 3):
        answer = engine.run(IMAGES[:count]).each(torch.clone)
        torch.testing.assert_close(answer.proxy, proxy(answer.trace, answer.logits), rtol=1e-4, atol=1e-5)
        assert engine.predict(IMAGES[:count]).proxy.tolist() == answer.proxy.tolist()


def test_a_formula_that_cannot_be_told_is_left_to_numpy(backend):
    def some_steps(trace, _logits):
        lengths = step_lengths(trace)
        return library_of(lengths).sum(lengths[:, [3, 7]], -1)

    engine = build_engine(replace(of_shape(SHAPES[3], backend), proxy=some_steps), 3)
    assert not engine.packed.model.score
    answer = engine.run(IMAGES[:3])
    torch.testing.assert_close(answer.proxy, some_steps(answer.trace, answer.logits))


def test_a_score_that_cannot_be_compiled_is_left_to_numpy(backend, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(library, "CACHE", tmp_path / "file" / "cache")

    def shifted(trace, logits):
        return cls_change(trace, logits) + 12.5  # Of no other test, so not compiled yet.

    engine = build_engine(replace(of_shape(SHAPES[3], backend), proxy=shifted), 3)
    assert not engine.packed.model.score
    answer = engine.run(IMAGES[:3])
    torch.testing.assert_close(answer.proxy, shifted(answer.trace, answer.logits))


def test_pixels_of_all_values_are_taken_as_they_are(backend):
    shape = SHAPES[0]
    extremes = torch.arange(256, dtype=torch.uint8).repeat(3 * 64 * 64 // 256).view(1, 3, 64, 64)
    images = torch.cat(
        [extremes, extremes.flip(3), torch.full_like(extremes, 255), torch.zeros_like(extremes)]
    )
    expected = build_engine(of_shape(shape, "eager"), 4).run(images)
    found = build_engine(of_shape(shape, backend), 4).run(images)
    assert max(relative_errors(found, expected)) < TOLERANCE["float32"]


def test_canvases_of_any_memory_layout_are_the_same_images(backend):
    engine = build_engine(of_shape(SHAPES[0], backend), 3)
    expected = engine.run(IMAGES[:3]).each(torch.clone)
    turned = IMAGES[:3].contiguous(memory_format=torch.channels_last)
    for mine, other in zip(engine.run(turned), expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=0)


# Random weights make small values: here are the large ones.
FUNCTIONS = """
#include <cmath>
#include <cstdio>
#include "functions.h"
#include "products.h"
float first(vit::Lanes x) {
  alignas(64) float values[vit::kLanes];
  vit::store(values, x);
  return values[0];
}
template <bool fine> void check() {
  float gelu = 0, quick = 0, power = 0;
  for (float x = -40; x < 40; x += 1e-3f) {
    const double found = first(vit::gelu<fine>(vit::all(x)));
    gelu = std::fmax(gelu, std::fabs(found / x - std::erfc(-x / std::sqrt(2.0)) / 2));
    const double other = first(vit::quick_gelu<fine>(vit::all(x)));
    quick = std::fmax(quick, std::fabs(other / x - 1 / (1 + std::exp(-1.702 * x))));
  }
  for (float x = -125; x <= 0; x += 1e-2f) {
    const double found = first(vit::power_of_two<fine>(vit::all(x)));
    power = std::fmax(power, std::fabs(found / std::exp2(x) - 1));
  }
  std::printf("%g %g %g ", gelu, quick, power);
}
int main() { check<vit::kFine<PLANES>>(); }
"""


# Of the integral that GELU multiplies with, of the sigmoid in its place, and of exponentials.
NEARNESS = {"float32": (5e-7, 5e-7, 3e-7), "bfloat16": (1e-4, 1e-4, 8e-5)}


@pytest.mark.parametrize("precision", NEARNESS)
def test_gelu_and_exponentials_are_as_near_as_they_say(backend, precision, tmp_path):
    skip_unless(backend, precision)
    unit = find_unit(backend, precision)
    (tmp_path / "check.cpp").write_text(FUNCTIONS)
    folders = (library.SOURCES, *(library.SOURCES / folder for folder in unit.folders))
    defined = f"-DPLANES={unit.layouts[precision].planes}"
    options = ["-std=c++20", "-O1", defined, *unit.flags, *(f"-I{folder}" for folder in folders)]
    command = [find_compiler(), *options, str(tmp_path / "check.cpp"), "-o", str(tmp_path / "check")]
    subprocess.run(command, check=True, capture_output=True)
    told = subprocess.run([tmp_path / "check"], check=True, capture_output=True, text=True).stdout
    found = [float(error) for error in told.split()]
    for error, allowed in zip(found, NEARNESS[precision], strict=True):
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


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize(("canvas_px", "size_px"), [(64, 32), (64, 48), (48, 40), (96, 32), (20, 16)])
def test_the_engine_sees_the_resized_image_to_the_pixel(backend, canvas_px, size_px, count):
    """Not near: the same numbers as of an engine that is given the image as torch resizes it."""
    images = torch.randint(0, 256, (count, 3, canvas_px, canvas_px), dtype=torch.uint8)
    asked = replace(of_shape(SHAPES[0], backend, size_px=size_px), canvas_px=canvas_px)
    found = build_engine(asked, count).run(images)
    expected = build_engine(replace(asked, canvas_px=size_px), count).run(resize(images, size_px))
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=0)


@pytest.mark.parametrize(
    "canvases",
    [IMAGES[:1, :, :32], IMAGES[:1, :1], IMAGES[:1].float(), IMAGES],
    ids=["size", "channels", "type", "count"],
)
def test_memory_that_is_no_canvas_is_not_read(backend, canvases):
    engine = build_engine(of_shape(SHAPES[0], backend), 3)
    with pytest.raises(ValueError, match=r"expected up to 3 of \(3, 64, 64\) torch.uint8"):
        engine.run(canvases)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_is_told_to_build_its_own_engine_and_can():
    """It has none of the threads that the engine's passes would wait for."""
    backend = next((name for name in NATIVE if why_not(name, CPU, "float32") is None), None)
    if backend is None:
        pytest.skip("needs a native engine")
    asked = of_shape(SHAPES[2], backend)
    engine = build_engine(asked, 1)
    expected = engine.run(IMAGES[:1]).logits.clone()
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        same = False
        try:
            torch.set_num_threads(1)  # Those of torch's own are not there, either.
            with pytest.raises(PipelineError, match="before its process forked"):
                engine.run(IMAGES[:1])
            same = torch.equal(build_engine(asked, 1).run(IMAGES[:1]).logits, expected)
        finally:
            os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_no_images_have_no_answers(backend):
    found = build_engine(of_shape(SHAPES[0], backend), 3).run(IMAGES[:0])
    assert [len(value) for value in found[:3]] == [0, 0, 0]


def test_engines_of_all_units_share_one_team():
    """Idle threads of a second team would look for work on the cores of the first."""
    kinds = [(backend, precision) for backend in NATIVE for precision in ("float32", "bfloat16", "int8")]
    there = [kind for kind in kinds if why_not(kind[0], CPU, kind[1]) is None]
    if len(there) < 2:
        pytest.skip("the processor runs one kind of pass")
    asked = [spec(32, *kind) for kind in there]
    first = build_engine(asked[0], 2)
    threads = set(Path("/proc/self/task").iterdir())
    engines = [first, *(build_engine(each, 2) for each in asked[1:])]
    assert set(Path("/proc/self/task").iterdir()) <= threads
    alone = [engine.run(IMAGES[:2]).each(torch.clone) for engine in engines]
    for count in (2, 1, 2):
        for engine, expected in zip(engines, alone, strict=True):
            found = engine.run(IMAGES[:count])
            torch.testing.assert_close(found.logits, expected.logits[:count], rtol=1e-3, atol=1e-3)


def test_a_user_without_a_home_is_a_reason(afresh, monkeypatch):
    if find_compiler() is None:
        pytest.skip("needs a C++ compiler")
    monkeypatch.setattr(library, "CACHE", Path("~nobody-of-this-name/cache"))
    assert "home" in why_not_native("avx2", "float32")


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("amx", Architecture("odd", 4, 72, 1, 1, 10), "a multiple of 32; odd has 72 and 72"),
        ("amx", Architecture("thin", 4, 64, 1, 4, 10), "64 and 16"),
        ("avx512", Architecture("thin", 4, 64, 1, 8, 10), "a multiple of 16; thin has 64 and 8"),
        ("avx2", Architecture("thin", 4, 64, 1, 8, 10), "a multiple of 16; thin has 64 and 8"),
        ("avx512_bf16", Architecture("thin", 4, 64, 1, 8, 10), "a multiple of 16; thin has 64 and 8"),
        ("avx512_int8", Architecture("wide", 16, 1280, 1, 16, 10), "a width of 1024 at most; wide has 1280"),
    ],
)
def test_a_model_that_fills_no_tiles_is_refused(name, shape, words):
    with pytest.raises(PipelineError, match=words):
        Packed(draw_weights(shape, 0, 64), 64, 64, next(iter(UNITS[name].layouts.values())))


def test_a_precision_that_no_unit_computes_is_refused(afresh):
    assert why_not_native("avx2", "bfloat16") == "it does not compute in it; use runtime.precision: float32"
    assert "use runtime.precision: bfloat16 or float32" in why_not_native("amx", "int8")
    for backend in ("eager", "openvino", "compile"):
        assert "use runtime.backend: avx512" in why_not(backend, CPU, "int8")


def test_every_native_backend_has_a_unit():
    assert {unit.backend for unit in UNITS.values()} == set(NATIVE)


def test_the_instructions_that_the_processor_lacks_are_named(afresh, monkeypatch):
    missing = {"amx_bf16", "avx512_bf16"}
    monkeypatch.setattr(library, "processor_flags", lambda: set(UNITS["amx"].instructions) - missing)
    assert (
        why_not_native("amx", "float32")
        == "the processor has no avx512_bf16, amx_bf16; use runtime.backend: auto"
    )


def test_vectors_without_pairs_multiply_float32_alone(compiled, afresh, monkeypatch):
    monkeypatch.setattr(library, "processor_flags", lambda: set(UNITS["avx512"].instructions))
    reason = why_not_native("avx512", "bfloat16")
    assert reason == "the processor has no avx512_bf16; use runtime.backend: auto"
    assert why_not_native("avx512", "float32") is None


def test_a_missing_compiler_is_named(afresh, monkeypatch):
    monkeypatch.setattr(library, "find_compiler", lambda: None)
    assert "install g++" in why_not_native("amx", "float32")


def test_what_does_not_compile_is_a_reason_and_leaves_nothing(afresh, empty_cache, monkeypatch):
    if find_compiler() is None:
        pytest.skip("needs a C++ compiler")
    sources = afresh / "src"
    sources.mkdir()
    (sources / "engine.cpp").write_text("int vit_run( { }\n")
    monkeypatch.setattr(library, "SOURCES", sources)
    reason = why_not_native("amx", "float32")
    assert "cannot compile the pass for amx" in reason
    assert "engine.cpp:1" in reason
    assert list(library.CACHE.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_a_reason(afresh, monkeypatch):
    if find_compiler() is None:
        pytest.skip("needs a C++ compiler")
    (afresh / "file").write_text("")
    monkeypatch.setattr(library, "CACHE", afresh / "file" / "cache")
    reason = why_not_native("avx2", "float32")
    assert "Not a directory" in reason
    assert "set HOME to a folder that is" in reason


def test_a_compiler_that_does_not_run_is_none(monkeypatch, tmp_path):
    """A name on the PATH that stands for what is not installed, as those of ccache do."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for content in ("#!/bin/sh\nexit 1\n", "#!/no/such/shell\n"):
        (tmp_path / "g++").write_text(content)
        (tmp_path / "g++").chmod(0o755)
        read_version.cache_clear()
        assert find_compiler() is None
    read_version.cache_clear()


def test_the_library_is_compiled_once_for_the_same_sources(compiled, monkeypatch):
    assert len(set(compiled)) == len(compiled) >= len(UNITS)
    find_compiler()  # Which asks once for its version.
    monkeypatch.setattr(library.subprocess, "run", None)  # Not called again.
    assert [library._compile_pass(unit) for unit in UNITS.values()] == compiled[: len(UNITS)]


def test_another_version_of_the_compiler_compiles_anew(empty_cache, monkeypatch):
    if find_compiler() is None:
        pytest.skip("needs a C++ compiler")
    old = library._compile("nothing", "", ["-shared"])
    assert library._compile("nothing", "", ["-shared"]) == old
    monkeypatch.setattr(library, "read_version", lambda _compiler: "99")
    assert library._compile("nothing", "", ["-shared"]) != old
