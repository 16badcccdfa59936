"""The site: `make docs`. Pictures and the API's pages are made anew at each build, by fastreg itself."""

import inspect
import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

import fastreg
import fastreg.nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

project = "fastreg"
author = "the fastreg authors"
version = release = fastreg.__version__
extensions = ["sphinx.ext.autodoc", "numpydoc", "myst_parser"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]  # links to files of the repository that are no pages of the site
numpydoc_show_class_members = False
autodoc_member_order = "bysource"
default_role = "code"
exclude_patterns = ["_build", "made/report.md"]
html_theme = "pydata_sphinx_theme"
html_title = "fastreg"
html_theme_options = {
    "show_prev_next": False,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "header_links_before_dropdown": 8,
}
html_sidebars = {
    page: [] for page in ("index", "conventions", "dropout-mapping", "reproducibility", "performance", "trust")
}
html_css_files = ["site.css"]
html_static_path = ["static"]

FAMILIES = {
    "_prox": "Thresholds, proximal operators, projections",
    "_optim": "Fused updates",
    "_dropout": "Dropout",
    "_norm": "Normalisation",
    "_losses": "Losses and activations",
    "_boxes": "Boxes",
    "_distances": "Norms and distances",
    "fastreg_runtime": "Runtime",
}


def titled(title: str, *paragraphs: str) -> str:
    return "\n\n".join((title + "\n" + "=" * len(title), *paragraphs)) + "\n"


def write_api(place: Path) -> None:
    """A page for each family of functions and each module of objects, of what `__all__` names and nothing else."""
    pages: dict[str, str] = {}
    functions: dict[str, list[str]] = {family: [] for family in FAMILIES}
    for name in fastreg.__all__:
        if not inspect.ismodule(thing := getattr(fastreg, name)):
            functions.setdefault(thing.__module__.removeprefix("fastreg."), []).append(name)
    for family, names in functions.items():
        if names:
            entries = [f".. autofunction:: fastreg.{name}" for name in names]
            pages[f"functions-{family.strip('_')}"] = titled(FAMILIES.get(family, family), *entries)
    for module in (fastreg.penalties, fastreg.optim, fastreg.nn):
        members = [
            f".. autoclass:: {module.__name__}.{m}\n   :members:"
            if inspect.isclass(getattr(module, m))
            else f".. autofunction:: {module.__name__}.{m}"
            for m in module.__all__
        ]
        pages[module.__name__.removeprefix("fastreg.")] = titled(
            module.__name__, (module.__doc__ or "").strip(), *members
        )
    place.mkdir(parents=True, exist_ok=True)
    for page, text in pages.items():
        (place / f"{page}.rst").write_text(text)
    toc = ".. toctree::\n   :maxdepth: 1\n\n" + "\n".join(f"   {page}" for page in pages)
    about = (
        "Every public function, with its formula, convention, errors and an example; the tests run the examples. "
        "All functions take anything that NumPy can view as an array, and every layout of it."
    )
    (place / "index.rst").write_text(titled("API reference", about, toc))


def write_report(place: Path) -> None:
    """The latest report, where somebody has run `make bench`."""
    report = HERE.parent / "benchmarks" / "REPORT.md"
    missing = "No report has been made in this tree yet: `make bench` writes one.\n"
    text = report.read_text() if report.exists() else missing
    # The page has a title of its own; pictures beside the report are copied with it.
    for picture in report.parent.glob("*.svg") if report.exists() else ():
        (place / picture.name).write_bytes(picture.read_bytes())
    (place / "report.md").write_text("\n".join("#" * line.startswith("#") + line for line in text.splitlines()) + "\n")


def make(app: object) -> None:
    import figures

    made = HERE / "made"
    made.mkdir(exist_ok=True)
    figures.draw(made)
    write_api(made / "api")
    write_report(made)


def name_authors(app: object, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """A reference that begins with an initial, "D. L. Donoho", is no item D of a list."""
    lines[:] = [re.sub(r"^(\s*\.\. \[\w+\] )([A-Z]\.)", r"\1\\\2", line) for line in lines]


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", make)
    app.connect("autodoc-process-docstring", name_authors, priority=100)  # before numpydoc
