import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.testing import CompileCounter
from torchvision.transforms.v2 import functional

from pipeline.architecture import ARCHITECTURES, Architecture
from pipeline.backends import NATIVE, why_not
from pipeline.compiler import find_compiler
from pipeline.engines import openvino
from pipeline.engines.base import TOLERANCE, Answer, halvings, split_evenly
from pipeline.engines.build import build_engine, build_engines
from pipeline.engines.compiled import compile_parts, fused_model
from pipeline.engines.cudagraph import captured_sizes, list_models, split_cheapest
from pipeline.engines.eager import EagerEngine
from pipeline.errors import PipelineError
from pipeline.fused import FusedViT
from pipeline.images import resize
from pipeline.learned import Learned
from pipeline.planes import split_float32
from pipeline.proxies import PROXIES, cls_change
from pipeline.vit import TracedViT, draw_weights, own_name
from tests.machines import skip_unless
from tests.made import canvases, engine, runtime, spec, weights

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
CPU = torch.device("cpu")
IMAGES = canvases(11)
LOCAL = draw_weights(ARCHITECTURES["static_vit_local"], 0, 64)
# Where it is not the network that is tested.
SHALLOW = draw_weights(Architecture("shallow", 4, 64, 4, 2, 10), 0, 64)
# A compiler takes minutes for every shape; the other engines are tested in full.
ENGINES = [
    ("amx", "float32"),
    ("amx", "bfloat16"),
    ("avx512", "float32"),
    ("avx512", "bfloat16"),
    ("avx512", "int8"),
    ("avx2", "float32"),
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
    ("eager", "bfloat16"),
]


@pytest.fixture(scope="module")
def build():
    """Engines by backend, precision and size, each built once."""
    built = {}

    def get(backend, precision, size_px):
        skip_unless(backend, precision)
        key = backend, precision, size_px
        if key not in built:
            built[key] = build_engine(spec(size_px, backend, precision), batch_size=8)
        return built[key]

    return get


def largest_error(found, expected):
    return max(
        float((a - b).abs().max() / b.abs().max()) for a, b in zip(found[:3], expected[:3], strict=True)
    )


def test_the_low_input_is_the_canvas_resized():
    small = functional.resize(IMAGES, [32, 32], antialias=True)
    expected = TracedViT(weights(), 32)(small)
    for a, b in zip(engine(32).run(IMAGES)[:3], expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("backend", "precision"), ENGINES)
@pytest.mark.parametrize("size_px", [32, 48, 64])
def test_an_engine_answers_as_eager_within_its_tolerance(build, backend, precision, size_px):
    found = build(backend, precision, size_px).run(IMAGES[:8])
    expected = engine(size_px).run(IMAGES[:8])
    assert all(value.dtype == torch.float32 for value in found)
    error = largest_error(found, expected)
    assert 0 < error < TOLERANCE[precision]
    torch.testing.assert_close(found.proxy, expected.proxy, rtol=TOLERANCE[precision], atol=0)


@pytest.mark.parametrize("size_px", [32, 40, 64])
@pytest.mark.parametrize(("backend", "precision"), ENGINES)
def test_what_a_size_has_to_itself_is_what_runs(backend, precision, size_px):
    """Engines may keep what sizes share, and one of them is built before."""
    skip_unless(backend, precision)
    generator = torch.Generator().manual_seed(7)
    state = dict(weights().state)
    for own_px in (32, 64):
        tokens = (own_px // 4) ** 2 + 1
        state[own_name("pos_embed", own_px)] = torch.randn(1, tokens, 192, generator=generator)
        for name in ("patch_embed.proj.weight", "head.weight", "head.bias"):
            noise = torch.randn(state[name].shape, generator=generator)
            state[own_name(name, own_px)] = 0.1 * noise
    own = replace(weights(), state=state)
    build_engine(replace(spec(48, backend, precision), weights=own), 1)
    found = build_engine(replace(spec(size_px, backend, precision), weights=own), 4).run(IMAGES[:4])
    expected = EagerEngine(replace(spec(size_px), weights=own), 4).run(IMAGES[:4])
    assert 0 < largest_error(found, expected) < TOLERANCE[precision]
    shared = engine(size_px).run(IMAGES[:4])
    assert largest_error(expected, shared) > 2 * TOLERANCE[precision]


@pytest.mark.parametrize(("wrong_builds", "factor"), [(1, 2.0), (1, float("nan")), (100, 2.0)])
def test_a_build_of_openvinos_that_answers_batches_wrongly_is_not_used(monkeypatch, wrong_builds, factor):
    """As its streams did once, which could not be brought about again; on two threads, as two images run."""
    asked = replace(spec(32, "openvino"), runtime=replace(runtime(), backend="openvino", threads=2))
    wrong_state = {name: factor * value for name, value in weights().state.items()}
    other = openvino.convert(replace(spec(32, "openvino"), weights=replace(weights(), state=wrong_state)))
    calls = []

    def compile_wrongly(core, model, asked, size, how):
        calls.append(size)
        wrong = "NUM_STREAMS" in how and calls.count(2) <= wrong_builds and size == 2
        return compile_for(core, other if wrong else model, asked, size, how)

    compile_for = openvino.compile_for
    monkeypatch.setattr(openvino, "compile_for", compile_wrongly)
    if wrong_builds > 1:
        with pytest.raises(PipelineError, match="batches at 32 px are not answered as single images"):
            build_engine(asked, 4)
        return
    found = build_engine(asked, 4).run(IMAGES[:4])
    assert calls.count(2) == 2
    assert largest_error(found, engine(32).run(IMAGES[:4])) < TOLERANCE["float32"]


@pytest.mark.parametrize(("backend", "precision"), [("eager", "float32"), *ENGINES])
def test_what_a_policy_reads_is_what_the_pass_says(build, backend, precision):
    built = build(backend, precision, 32)
    for count in (1, 8):
        answer = built.run(IMAGES[:count]).each(torch.clone)
        prediction = built.predict(IMAGES[:count])
        assert prediction.top1.tolist() == answer.logits.argmax(1).tolist()
        assert prediction.proxy.tolist() == answer.proxy.tolist()


@pytest.mark.parametrize("part", ["query", "key", "value"])
@pytest.mark.parametrize(("backend", "precision"), [("eager", "float32"), *ENGINES])
def test_a_weight_that_is_no_number_makes_every_answer_none(backend, precision, part):
    """A score that is NaN escalates, and extraction stops at it: no engine may swallow one."""
    skip_unless(backend, precision)
    state = {name: value.clone() for name, value in SHALLOW.state.items()}
    state["blocks.1.attn.qkv.weight"][["query", "key", "value"].index(part) * 64] = float("nan")
    broken = replace(spec(32, backend, precision), weights=replace(SHALLOW, state=state))
    answer = build_engine(broken, 2).run(IMAGES[:2])
    assert answer.logits.isnan().all()
    assert answer.proxy.isnan().all()


def test_an_engine_that_does_not_exist_is_none():
    unknown = replace(spec(32), runtime=replace(runtime(), backend="opnvino"))
    with pytest.raises(ValueError, match="no engine is called 'opnvino'"):
        build_engine(unknown, 1)


def test_nothing_is_read_of_a_proxy_that_was_not_asked_for():
    for backend in ("eager", *NATIVE):
        if not why_not(backend, CPU, "float32"):
            silent = build_engine(replace(spec(32, backend), proxy=None), 2)
            assert silent.predict(IMAGES[:2]).proxy is None


@pytest.mark.parametrize(("backend", "precision"), ENGINES)
def test_blocks_that_see_their_neighbours_answer_as_eager(backend, precision):
    skip_unless(backend, precision)
    local = replace(spec(32, backend, precision), weights=LOCAL)
    found = build_engine(local, 3).run(IMAGES[:3])
    expected = build_engine(replace(spec(32), weights=LOCAL), 3).run(IMAGES[:3])
    assert 0 < largest_error(found, expected) < TOLERANCE[precision]


def test_a_last_block_that_sees_its_neighbours_answers_as_eager():
    last = draw_weights(Architecture("last", 8, 64, 2, 2, 10, local=2), 0, 64)
    expected = TracedViT(last, 64)(IMAGES[:3])
    for mine, other in zip(FusedViT(last, 64, None)(IMAGES[:3]), expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("drawn", [weights(), LOCAL])
def test_a_build_draws_no_numbers_that_would_be_overwritten(drawn):
    before = torch.get_rng_state()
    FusedViT(drawn, 32, None)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("backend", "precision"), ENGINES)
def test_sizes_with_heads_of_their_own_answer_as_eager(backend, precision):
    skip_unless(backend, precision)
    generator = torch.Generator().manual_seed(0)
    shapes = {"head_32px.weight": (200, 192), "head_32px.bias": (200,)}
    own = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    headed = replace(weights(), state={**weights().state, **own})
    for size_px in (32, 64):
        found, expected = (
            build_engine(replace(spec(size_px, *how), weights=headed), 3).run(IMAGES[:3])
            for how in ((backend, precision), ("eager", "float32"))
        )
        assert 0 < largest_error(found, expected) < TOLERANCE[precision]


@pytest.mark.parametrize("backend", [*NATIVE, "openvino"])
@pytest.mark.parametrize("count", range(1, 9))
def test_any_number_of_images_is_answered_as_one_by_one(build, backend, count):
    found = build(backend, "float32", 32)
    together = found.run(IMAGES[:count]).each(torch.clone)
    for row in range(count):
        alone = found.run(IMAGES[row : row + 1])
        for value, single in zip(together, alone, strict=True):
            torch.testing.assert_close(value[row : row + 1], single)


@pytest.mark.parametrize("backend", [*NATIVE, "openvino"])
@pytest.mark.parametrize("proxy", PROXIES)
def test_every_proxy_comes_with_the_answer(backend, proxy):
    skip_unless(backend)
    asked = replace(spec(32, backend), weights=SHALLOW, proxy=PROXIES[proxy])
    found = build_engine(asked, 3).run(IMAGES[:3])
    reference = EagerEngine(replace(spec(32), weights=SHALLOW), 3).run(IMAGES[:3])
    expected = PROXIES[proxy](reference.trace, reference.logits)
    torch.testing.assert_close(found.proxy, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("backend", [*NATIVE, "openvino"])
def test_the_learned_proxy_comes_with_the_answer(backend):
    skip_unless(backend)
    learned = Learned(tuple(np.random.default_rng(0).normal(size=38)), 0.5)
    found = build_engine(replace(spec(32, backend), proxy=learned), 3).run(IMAGES[:3])
    expected = learned(engine(32).run(IMAGES[:3]).trace, engine(32).run(IMAGES[:3]).logits)
    torch.testing.assert_close(found.proxy, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_the_compiled_engine_answers_as_eager():
    found = build_engine(spec(32, "compile"), batch_size=1).run(IMAGES[:1])
    assert 0 < largest_error(found, engine(32).run(IMAGES[:1])) < TOLERANCE["float32"]


def on_gpu(backend, precision, size_px=32):
    on_gpu = replace(runtime(), device=torch.device("cuda"), backend=backend, precision=precision)
    return replace(spec(size_px), runtime=on_gpu)


@needs_gpu
@pytest.mark.parametrize("count", [1, 3, 5, 7])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_captured_engine_answers_as_eager(precision, count):
    asked = on_gpu("cudagraph", precision)
    built = build_engine(asked, 7)
    # Whatever the engine let go of is written over: blocks of the sizes that the weights of its models have.
    states = [fused_model(asked).state_dict().values() for _ in list_models(asked)]
    spoiled = [torch.full_like(value, float("nan")) for values in states for value in values]
    found = built.run(built.upload(IMAGES[:count])).each(torch.clone)
    # On the same device: another one's resize rounds some pixels otherwise.
    eager = build_engine(on_gpu("eager", "float32"), 7)
    assert largest_error(found, eager.run(eager.upload(IMAGES[:count]))) < TOLERANCE[precision]
    prediction = built.predict(built.upload(IMAGES[:count]))
    assert prediction.top1.tolist() == found.logits.argmax(1).tolist()
    assert prediction.proxy.tolist() == found.proxy.tolist()
    assert all(value.isnan().all() for value in spoiled)


@needs_gpu
@pytest.mark.parametrize("model", range(3))
def test_every_model_that_could_be_captured_answers_as_eager(model):
    captured = on_gpu("cudagraph", "float32")
    images = resize(IMAGES.to("cuda"), 32)
    for count in (1, 3):
        with torch.no_grad():
            logits = list_models(captured)[model](images[:count])[0]
        eager = build_engine(on_gpu("eager", "float32"), 4)
        expected = eager.run(eager.upload(IMAGES[:count])).logits
        assert float((logits - expected).abs().max() / expected.abs().max()) < TOLERANCE["float32"]


@needs_gpu
def test_two_parts_answer_as_one():
    built = build_engine(on_gpu("cudagraph", "float32"), 8)
    whole = built.run(built.upload(IMAGES[:8])).each(torch.clone)
    built.parts = lambda count: [4, count - 4]
    parts = built.run(built.upload(IMAGES[:8]))
    assert largest_error(parts, whole) < TOLERANCE["float32"]
    prediction = built.predict(built.upload(IMAGES[:8]))
    assert prediction.top1.tolist() == whole.logits.argmax(1).tolist()
    assert prediction.proxy.tolist() == parts.proxy.tolist()


@needs_gpu
@pytest.mark.parametrize("backend", ["eager", "cudagraph"])
def test_what_is_begun_stays_as_it_was(backend):
    built = build_engine(on_gpu(backend, "float32"), 4)
    uploaded = [built.upload(part) for part in IMAGES[:8].split(2)]
    expected = [built.predict(part) for part in uploaded]
    coming = [built.begin(built.upload(part)) for part in IMAGES[:8].split(2)]
    for wait, prediction in zip(coming, expected, strict=True):
        assert wait().proxy.tolist() == prediction.proxy.tolist()


def test_a_model_of_split_numbers_answers_as_eager():
    for size_px in (32, 64):
        model = FusedViT(weights(), size_px, cls_change, split=True)
        found = Answer(*model(resize(IMAGES, size_px)))
        assert 0 < largest_error(found, engine(size_px).run(IMAGES)) < TOLERANCE["float32"]


@torch._dynamo.config.patch(recompile_limit=99, fail_on_recompile_limit_hit=True)
@torch.no_grad()
def test_a_model_compiled_in_parts_answers_as_eager_and_compiles_few():
    counter = CompileCounter()
    for size_px in (32, 64):
        model = compile_parts(FusedViT(weights(), size_px, cls_change), counter)
        for count in (11, 1, 2, 5):
            found = Answer(*model(resize(IMAGES[:count], size_px)))
            assert largest_error(found, engine(size_px).run(IMAGES[:count])) < TOLERANCE["float32"]
    # Embedding, first block, those between, last, end: for each size, for one image and for more.
    assert counter.frame_count <= 2 * 2 * 5


@pytest.mark.parametrize("compiled", [False, True])
def test_a_number_is_split_to_a_hundred_thousandth_of_itself(compiled):
    if compiled and find_compiler() is None:
        pytest.skip("torch.compile needs a C++ compiler")
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(10_000, generator=generator) * 10.0 ** torch.arange(-5, 5).repeat(1000)
    split = torch.compile(split_float32) if compiled else split_float32
    high, low = split(values)
    assert high.dtype == low.dtype == torch.bfloat16
    torch.testing.assert_close(high.float() + low.float(), values, rtol=2**-16, atol=0)
    assert low.any()
    for part in split_float32(torch.tensor([float("nan"), float("inf"), -float("inf")]))[1]:
        assert part.isnan()


def test_what_fills_no_captured_size_runs_in_two_where_that_takes_less():
    seconds = {1: 1.0, 2: 1.1, 3: 1.3, 4: 1.5, 6: 2.2, 8: 2.9, 16: 5.6, 24: 8.4, 32: 11.0}
    assert split_cheapest(32, seconds) == [32]
    assert split_cheapest(24, seconds) == [24]
    assert split_cheapest(17, seconds) == [16, 1]  # 6.6 s, not 8.4
    assert split_cheapest(23, seconds) == [23]  # In 24.
    assert split_cheapest(5, seconds) == [5]  # In 6: two parts would take 2.5 s.
    for count in range(1, 33):
        assert sum(split_cheapest(count, seconds)) == count


def test_batches_are_put_together_from_halvings():
    assert halvings(64) == [64, 32, 16, 8, 4, 2, 1]
    assert halvings(11) == [11, 5, 2, 1]


def test_a_captured_size_holds_any_batch_with_at_most_a_third_idle():
    assert captured_sizes(32) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32]
    for batch_size in (1, 5, 96, 256):
        sizes = captured_sizes(batch_size)
        assert sizes[-1] == batch_size
        for count in range(1, batch_size + 1):
            size = next(size for size in sizes if size >= count)
            # Of few images one can be half of them.
            assert size - count <= max(1, size / 3)


def test_a_prime_number_of_queries_becomes_divisible_and_changes_nothing():
    """257 tokens at 64 px: one query more; 65 at 32 px are 5 times 13 already."""
    asked = []
    images = resize(IMAGES, 64)
    plain, divisible = (FusedViT(weights(), 64, None, divisible=wanted) for wanted in (False, True))
    attention = F.scaled_dot_product_attention

    def spy(query, *rest, **options):
        asked.append(query.shape[2])
        return attention(query, *rest, **options)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(F, "scaled_dot_product_attention", spy)
        expected, found = plain(images), divisible(images)
        FusedViT(weights(), 32, None, divisible=True)(resize(IMAGES, 32))
    assert set(asked) == {257, 258, 65, 1}
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other)


def test_a_batch_is_split_so_that_every_thread_has_equally_much():
    sizes = [8, 4, 2, 1]
    assert list(split_evenly(16, sizes, 2)) == [(0, 8), (8, 8)]
    assert list(split_evenly(7, sizes, 2)) == [(0, 2), (2, 2), (4, 1), (5, 1), (6, 1)]
    assert list(split_evenly(6, [2, 1], 1)) == [(0, 2), (2, 2), (4, 2)]
    assert list(split_evenly(3, sizes, 16)) == [(0, 1), (1, 1), (2, 1)]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_engines_that_share_their_weights_answer_as_those_that_do_not(build, precision):
    skip_unless("openvino", precision)
    specs = {role: spec(size_px, "openvino", precision) for role, size_px in (("low", 32), ("high", 64))}
    specs["high"] = replace(specs["high"], proxy=None)  # As in a cascade, where nobody reads it.
    pair = build_engines(specs, {"low": 1, "high": 1})
    # In turns, as a cascade runs them: neither writes what the other reads.
    for image in IMAGES[:3].split(1):
        answers = {role: engine.run(image) for role, engine in pair.items()}
        for role, size_px in (("low", 32), ("high", 64)):
            expected = build("openvino", precision, size_px).run(image)
            for name in ("logits", "embedding", "trace", *(["proxy"] if role == "low" else [])):
                torch.testing.assert_close(getattr(answers[role], name), getattr(expected, name))


def test_only_single_images_of_low_and_high_share_their_weights():
    specs = {role: spec(px, "openvino") for role, px in (("low", 32), ("mid", 48), ("high", 64))}
    engines = build_engines(specs, dict.fromkeys(specs, 1))
    assert list(engines) == ["low", "mid", "high"]
    compiled = {role: engine.single.get_compiled_model() for role, engine in engines.items()}
    assert [len(model.inputs) for model in compiled.values()] == [3, 1, 3]
    apart = build_engines(specs, {"low": 2, "high": 1})
    assert [len(engine.single.get_compiled_model().inputs) for engine in apart.values()] == [1, 1]


def test_an_image_larger_than_its_canvas_is_no_pass():
    with pytest.raises(ValueError, match="an image of 72 px from a canvas of 64 px"):
        spec(72)
