"""A proxy's formula as C++, for the pass to compute the score where it has the values at hand.

Behind a pass, which has pushed all other code out of the caches, a formula of some NumPy calls takes a tenth
of a millisecond and more. It is still written once: torch runs it on one image, every operation that it asks
for is noted, and each becomes a loop.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pipeline.proxies import Proxy

_HEAD = """#include <algorithm>
#include <cmath>

// What is no number comes last, as in NumPy.
static bool before(float a, float b) { return a < b || (b != b && a == a); }

extern "C" float score(const float* trace, const float* logits) {"""
# {0} is an element of the result, the others are those of the arguments.
_ELEMENTWISE = {
    "add": "{0} = {1} + {2};",
    "sub": "{0} = {1} - {2};",
    "mul": "{0} = {1} * {2};",
    "div": "{0} = {1} / {2};",
    "__rsub__": "{0} = {2} - {1};",
    "neg": "{0} = -{1};",
    "exp": "{0} = std::exp({1});",
    "log": "{0} = std::log({1});",
}
_POWERS = {2: "{0} = {1} * {1};", 0.5: "{0} = std::sqrt({1});"}
_ADD = "{0} += {1};"
# What a result begins with, and what every value does to it; what is no number stays.
_REDUCTIONS = {
    "sum": ("0", _ADD),
    "mean": ("0", _ADD),
    "amax": ("-INFINITY", "if ({1} > {0} || {1} != {1}) {0} = {1};"),
}


class UntoldError(Exception):
    """The formula asks for an operation that no loop is written for."""


def write_formula(proxy: Proxy, states: int, width: int, classes: int) -> str:
    """C++ of `float score(const float* trace, const float* logits)`, of one image's (L+1, D) and (C,).

    Raises UntoldError for operations that no proxy has asked for so far.
    """
    trace, logits = torch.ones(1, states, width), torch.ones(1, classes)
    source = _Source({"trace": trace, "logits": logits})
    with source:
        score = proxy(trace, logits)
    return "\n".join([_HEAD, *source.lines, f"  return {source.read(score, ['0'])};", "}", ""])


class _Source(TorchFunctionMode):
    """The lines of C++ that do what torch is asked for meanwhile, each thing once.

    A tensor is known by its memory, and read by its strides: a view is nothing to do. All tensors are kept,
    so that none takes another's memory.
    """

    def __init__(self, inputs: dict[str, Tensor]) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.names = {_memory(tensor): name for name, tensor in inputs.items()}
        self.done: dict[str, str] = {}
        self.kept: list[Any] = []

    def __torch_function__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result, name = function(*args, **(kwargs or {})), function.__name__
        self.kept.append(result)
        made = result[0] if isinstance(result, tuple) else result  # Of a sort the values, not their order.
        if isinstance(made, Tensor):
            known = _memory(made) in self.names
            # Else it copies, changes what is there, or asks for more than is read here.
            if known != (name == "__getitem__") or (kwargs and name != "asarray"):
                raise UntoldError(name)
            if not known:
                self._write(name, args, made)
        return result

    def read(self, value: Tensor | float, index: Sequence[str]) -> str:
        """The element of a tensor, whose last dimensions the index is for; or a number."""
        if not isinstance(value, Tensor):
            return f"{float(value)!r}f"
        # A dimension of one has the same element at every index, which is how torch repeats it.
        last = zip(value.stride()[::-1], value.shape[::-1], index[::-1], strict=False)
        steps = [f"{stride} * {place}" for stride, size, place in last if size > 1]
        return f"{self._name(value)}[{' + '.join([str(value.storage_offset()), *steps])}]"

    def _name(self, tensor: Tensor) -> str:
        name = self.names.get(_memory(tensor))
        if name is None:
            raise UntoldError("a tensor of its own")
        return name

    def _write(self, name: str, args: Any, result: Tensor) -> None:
        told = f"{name} {[self._tell(value) for value in args]}"
        target = self.done.get(told, f"t{len(self.done)}")
        self.names[_memory(result)] = target
        if told in self.done:
            return
        self.done[told] = target
        self.lines.append(f"  float {target}[{result.numel()}];")
        line = _POWERS.get(args[1]) if name == "pow" else _ELEMENTWISE.get(name)
        if line:
            self._each(result, line, *args)
        else:
            self._write_loops(name, args, result)

    def _write_loops(self, name: str, args: Any, result: Tensor) -> None:
        """What is more than a line for every element."""
        match name, args:
            case "asarray", (numbers,):
                values = ", ".join(self.read(number, []) for number in numbers)
                self.lines[-1] = f"  const float {self._name(result)}[] = {{{values}}};"
            case (("sum" | "mean" | "amax"), (value, int(dimension))):
                first, step = _REDUCTIONS[name]
                self._each(result, f"{{0}} = {first};")
                self._reduce(result, step, dimension, value)
                if name == "mean":
                    self._each(result, f"{{0}} /= {value.shape[dimension]};")
            case "matmul", (Tensor(ndim=2) as matrix, Tensor(ndim=1) as vector):
                self._each(result, "{0} = 0;")
                self._reduce(result, "{0} += {1} * {2};", 1, matrix, vector)
            case "sort", (value,):
                self._each(result, "{0} = {1};", value)
                row, length = self._name(result), value.shape[-1]
                for start in range(0, value.numel(), length):
                    self.lines.append(f"  std::sort({row} + {start}, {row} + {start + length}, before);")
            case "concatenate", (parts, int(dimension)):
                self._join(result, dimension, parts)
            case _:
                raise UntoldError(name)

    def _each(self, result: Tensor, line: str, *values: Tensor | float) -> None:
        """The line for every element of the result, and those of the values at its place."""
        index, loops = _loop_over(result)
        self.lines.append(loops + line.format(*(self.read(value, index) for value in (result, *values))))

    def _reduce(self, result: Tensor, line: str, dimension: int, *values: Tensor) -> None:
        """The line for every element of the first value, and that of the result, which lacks a dimension."""
        index, loops = _loop_over(values[0])
        elements = [self.read(value, index) for value in values]
        index.pop(dimension)
        self.lines.append(loops + line.format(self.read(result, index), *elements))

    def _join(self, result: Tensor, dimension: int, parts: Sequence[Tensor]) -> None:
        sizes = [part.shape[dimension] for part in parts]
        for part, size, end in zip(parts, sizes, itertools.accumulate(sizes), strict=True):
            self._each(result.narrow(dimension, end - size, size), "{0} = {1};", part)

    def _tell(self, value: Any) -> str:
        """What tells one argument from another."""
        if isinstance(value, Tensor):
            return f"{self._name(value)} {value.storage_offset()} {value.shape} {value.stride()}"
        return str([self._tell(part) for part in value] if isinstance(value, list | tuple) else value)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _loop_over(tensor: Tensor) -> tuple[list[str], str]:
    """An index, and the loops that make it run over all elements."""
    index = [f"i{dimension}" for dimension in range(tensor.ndim)]
    sizes = zip(index, tensor.shape, strict=True)
    return index, "  " + "".join(f"for (int {at} = 0; {at} < {size}; ++{at}) " for at, size in sizes)
