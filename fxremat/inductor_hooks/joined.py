"""The C++ kernels of a graph, compiled in a few files instead of one each.

A file costs the compiler half a second before it reads the first loop. Kernels that are small and
many, as planning wants them, would take twice as long to compile as those of plain `torch.compile`.
"""
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportUnknownParameterType=false
# pyright: reportMissingParameterType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import contextlib
import functools
import re
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

# Two processors gain less by a file each than the second file costs, below so many kernels.
KERNELS_A_FILE = 16


@dataclass(frozen=True, eq=False)
class Waiting:
    """A kernel that is asked for and not compiled yet."""

    types: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class Bindings:
    """Inductor's template of what Python calls, in parts.

    `each` and `row` are there once a kernel, with `{entry_func}` its name in Python, the others
    once a file.
    """

    head: str
    each: str
    table: str
    row: str
    tail: str

    @staticmethod
    @functools.cache
    def of(template: str) -> Bindings | None:
        """Its parts; None where it isn't written as expected."""
        found = re.fullmatch(
            r"(?P<head>.*?)(?P<each>static PyObject\* \{entry_func\}_py\(.*?)"
            r"(?P<table>static PyMethodDef py_methods\[\] = \{\{\s*)"
            r"(?P<row>\{\{\"\{entry_func\}\", \{entry_func\}_py, METH_VARARGS, \"\"\}\},\n)"
            r"(?P<tail>.*)",
            template,
            re.DOTALL,
        )
        return None if found is None else Bindings(**found.groupdict())


@contextlib.contextmanager
def joining_kernels() -> Generator[None, None, None]:
    """Within, on this thread, a wrapper's C++ kernels are compiled together.

    Call with the lock of the hooks held: methods of Inductor's are replaced.
    """
    from torch._inductor.async_compile import AsyncCompile, kernel_code_log

    thread = threading.get_ident()
    bind, wait = AsyncCompile.cpp_pybinding, AsyncCompile.wait

    def cpp_pybinding(self: Any, argtypes: list[str], source_code: str) -> Any:
        if threading.get_ident() != thread or not can_join(source_code):
            return bind(self, argtypes, source_code)
        kernel_code_log.info("CPP+Bindings Kernel:\n%s", source_code)
        return Waiting(tuple(argtypes), source_code)

    def wait_for_all(self: Any, scope: dict[str, Any]) -> None:
        if threading.get_ident() == thread:
            names = [name for name, value in scope.items() if isinstance(value, Waiting)]
            kernels = compile_together([scope[name] for name in names], self.submit)
            scope.update(zip(names, kernels, strict=True))
        wait(self, scope)

    AsyncCompile.cpp_pybinding, AsyncCompile.wait = cpp_pybinding, wait_for_all
    try:
        yield
    finally:
        AsyncCompile.cpp_pybinding, AsyncCompile.wait = bind, wait


def can_join(source: str) -> bool:
    """Whether a kernel may stand in one file with others: it defines no macros."""
    from torch._inductor.codecache import CppPythonBindingsCodeCache

    if Bindings.of(CppPythonBindingsCodeCache.suffix_template) is None:
        return False
    directives = set(re.findall(r"^\s*#\s*(\w+)", source, re.MULTILINE))
    return directives <= {"include", "pragma"} and source.count('extern "C"') == 1


def compile_together(
    kernels: Sequence[Waiting], submit: Callable[..., Any]
) -> list[Callable[..., Any]]:
    """The functions of kernels, from about as many files as compile at once.

    `submit` runs one compilation, perhaps in another process.
    """
    from torch._inductor.async_compile import get_compile_threads
    from torch._inductor.codecache import CppPythonBindingsCodeCache

    if not kernels:
        return []
    files = max(1, min(get_compile_threads(), len(kernels) // KERNELS_A_FILE))
    parts = [kernels[first::files] for first in range(files)]
    submit_fn = submit if files > 1 else None
    loads = [
        CppPythonBindingsCodeCache.load_async(joined_source(part), "cpu", submit_fn=submit_fn)
        for part in parts
    ]
    functions = dict[Waiting, Callable[..., Any]]()
    for part, load in zip(parts, loads, strict=True):
        module = load()
        functions |= {each: getattr(module, f"kernel_{k}") for k, each in enumerate(part)}
    return [functions[kernel] for kernel in kernels]


def joined_source(kernels: Sequence[Waiting]) -> str:
    """One file of C++ for several kernels: each in a namespace of its own, then all bindings."""
    from torch._inductor.codecache import CppPythonBindingsCodeCache as Alone

    bindings = Bindings.of(Alone.suffix_template)
    assert bindings is not None
    includes, bodies, calls = dict[str, None](), list[str](), list[str]()
    for k, kernel in enumerate(kernels):
        lines = kernel.source.replace('extern "C"', "").splitlines()
        includes |= dict.fromkeys(line for line in lines if _is_include(line))
        body = "\n".join(line for line in lines if not _is_include(line))
        bodies.append(f"namespace kernel_{k} {{\n{body}\n}}")
        arguments = ", ".join(
            f"parse_arg<{kind.replace('const ', '')}>(args, {place})"
            for place, kind in enumerate(kernel.types)
        )
        call = Alone.call_entry_function.format(arguments)
        calls.append(
            bindings.each.format(
                entry_func=f"kernel_{k}",
                arg_len=len(kernel.types),
                call_entry_func=f"kernel_{k}::{call}",
            )
        )
    rows = "".join(bindings.row.format(entry_func=f"kernel_{k}") for k in range(len(kernels)))
    extra = Alone.extra_parse_arg.format(array_len=-1)
    head = bindings.head.format(entry_func=Alone.entry_function, extra_parse_arg=extra)
    tail = bindings.tail.format(entry_func=Alone.entry_function)
    table = bindings.table.format()
    return "\n".join([*includes, *bodies, head, *calls, table + rows + tail])


def _is_include(line: str) -> bool:
    return line.lstrip().startswith("#include")
