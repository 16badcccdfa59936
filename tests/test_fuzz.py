"""The corpus of the fuzzer: its first seeds, and those that once found something."""

import pytest
from fuzz import fuzz

FOUND: tuple[int, ...] = ()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first", range(0, 1000, 100))
def test_seeds(first):
    for seed in range(first, first + 100):
        fuzz(seed)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", FOUND)
def test_seeds_that_found_something(seed):
    fuzz(seed)
