"""The corpus of the fuzzer: its first seeds, and those that once found something."""

import pytest
from fuzz import fuzz

FOUND: tuple[int, ...] = ()
CORPUS = [range(first, first + 100) for first in range(0, 1000, 100)] + [range(seed, seed + 1) for seed in FOUND]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seeds", CORPUS, ids=str)
def test_seeds(seeds):
    for seed in seeds:
        fuzz(seed)
