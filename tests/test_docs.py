"""Every example in a public docstring, in README.md and in the guides runs."""

import doctest
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import fastreg

HOUSE = Path(__file__).parent.parent


def public() -> dict[str, object]:
    """Functions, modules' classes and their methods, by dotted name."""
    found = {}
    for name in fastreg.__all__:
        thing = getattr(fastreg, name)
        found[name] = thing
        if inspect.ismodule(thing):
            for inner in thing.__all__:
                found[f"{name}.{inner}"] = getattr(thing, inner)
    for name, thing in list(found.items()):
        if inspect.isclass(thing):
            found |= {f"{name}.{m}": f for m, f in vars(thing).items() if inspect.isroutine(f) and f.__doc__}
    return found


@pytest.mark.parametrize("name", public())
def test_docstring_examples(name):
    run(inspect.getdoc(public()[name]) or "", name)


PAGES = ["README.md", "docs/index.md", *(f"docs/guide/{p.name}" for p in sorted((HOUSE / "docs/guide").glob("*.md")))]


def blocks(page: str, peers: bool) -> list[str]:
    """The page's programs: those that need packages which the tests do without (`make peers`), or the others."""
    found = re.findall(r"^(<!-- peers -->\n)?```python\n(.*?)^```", (HOUSE / page).read_text(), re.M | re.S)
    return [code for mark, code in found if bool(mark) == peers]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, peers=False)])
def test_page_examples(page):
    for block in blocks(page, peers=False):
        if ">>>" in block:
            run(block, page)
        else:
            exec(compile(block, page, "exec"), {})


def run(source: str, name: str) -> None:
    test = doctest.DocTestParser().get_doctest(source, {}, name, None, None)
    with np.printoptions(legacy=False):
        results = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS).run(test)
    assert results.failed == 0
