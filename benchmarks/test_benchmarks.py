"""`pytest --benchmark-only`: fastreg against fastreg.reference, for every row at its vector sizes or its shapes."""

import functools
import sys

import numpy as np
import pytest
import rows

import fastreg
import fastreg.reference

__test__ = "--benchmark-only" in sys.argv  # plain pytest collects nothing here

CALLS = [
    pytest.param(row, shape, id=f"{row.name}-{'x'.join(map(str, shape))}")
    for row in rows.ROWS
    for shape in row.shapes
    if shape in rows.SIZES or len(shape) > 1
    if hasattr(fastreg, row.function) and row.traffic  # the reference of the others takes gigabytes
]


@functools.lru_cache(maxsize=1)  # for fastreg and then for the reference
def arguments(row, shape):
    inputs = row.inputs(np.random.default_rng(1), shape, np.float32)
    out = {"out": np.empty_like(next(iter(inputs.values())))} if row.out else {}
    return {**inputs, **row.options, **out}


@pytest.mark.parametrize("library", [fastreg, fastreg.reference], ids=["fastreg", "reference"])
@pytest.mark.parametrize(("row", "shape"), CALLS)
def test_call(benchmark, row, shape, library):
    benchmark.group = f"{row.name} {shape}"
    benchmark(getattr(library, row.function), **arguments(row, shape))
