"""Builds the compiled modules. Everything declarative is in pyproject.toml.

Switches, from the environment:
    FASTREG_DEBUG=1            -O0 -g, no optimisation
    FASTREG_SANITIZE=address   -fsanitize=… (address, undefined, thread; several with commas)
    FASTREG_COVERAGE=1         gcov counters
    FASTREG_WERROR=1           warnings of the C core are errors
"""

import os
import sys
import sysconfig
from glob import glob
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CORE = sorted(glob("csrc/*.c"))
HEADERS = sorted(glob("csrc/*.h") + glob("csrc/*.def") + glob("csrc/kernels/*"))
SEEN_BY_CYTHON = ["csrc/fastreg.h", "csrc/kernels.def"]
# One wheel for every CPython from 3.11 on; free-threaded builds have no stable ABI.
LIMITED_API = not sysconfig.get_config_var("Py_GIL_DISABLED")


def switch(name):
    return os.environ.get(f"FASTREG_{name}", "")


def extension(pyx):
    """A module of its own for each .pyx; the C core is linked into the one behind the runtime."""
    module = ".".join(Path(pyx).with_suffix("").parts)
    core = module == "fastreg.fastreg_runtime"
    return Extension(
        module,
        [pyx] + (CORE if core else []),
        include_dirs=["csrc", numpy.get_include()],
        depends=HEADERS if core else SEEN_BY_CYTHON,
        define_macros=[
            ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
            ("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION"),
            ("_GNU_SOURCE", None),
        ]
        + ([("Py_LIMITED_API", "0x030B0000")] if LIMITED_API else []),
        py_limited_api=LIMITED_API,
    )


class BuildExt(build_ext):
    """The compiler's flags: exact IEEE arithmetic, no contraction, no fast-math, see CONTRIBUTING.md."""

    def build_extensions(self):
        if self.compiler.compiler_type == "msvc":
            compile_args, link_args = ["/O2", "/std:c11", "/fp:precise"], []
        else:
            compile_args = ["-O3", "-g0", "-std=c11", "-fvisibility=hidden", "-ffp-contract=off"]
            compile_args += ["-fno-math-errno", "-fno-trapping-math"]
            link_args = ["-pthread"] if sys.platform != "win32" else []
            if switch("DEBUG"):
                compile_args += ["-O0", "-g"]
            if switch("SANITIZE"):
                link_args += [f"-fsanitize={switch('SANITIZE')}"]
                compile_args += [*link_args, "-fno-sanitize-recover=all", "-g", "-O1"]  # more takes minutes a file
            if switch("COVERAGE"):
                compile_args += ["-O0", "--coverage"]  # an optimised line counts for another
                link_args += ["--coverage"]
            if switch("WERROR"):
                compile_args += ["-Wall", "-Wextra", "-Werror", "-Wno-unused-function"]
        for e in self.extensions:
            e.extra_compile_args, e.extra_link_args = compile_args, link_args
        super().build_extensions()


setup(
    ext_modules=cythonize(
        [extension(pyx) for pyx in sorted(glob("fastreg/*.pyx"))],
        compiler_directives={
            "language_level": 3,
            "binding": True,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "freethreading_compatible": True,
        },
        **({"force": True, "build_dir": "build/coverage/c"} if switch("COVERAGE") else {}),
    ),
    cmdclass={"build_ext": BuildExt},
    options={"build_ext": {"parallel": True}} | ({"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED_API else {}),
)
