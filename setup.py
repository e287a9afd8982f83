"""The one part that is compiled, where there is a compiler; all else stands in pyproject.toml."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "robult_edge._native",
            sources=["native/python.cpp"],
            depends=[
                "native/checks.hpp",
                "native/fusion.hpp",
                "native/lanes.hpp",
                "native/quantities.hpp",
            ],
            include_dirs=["native"],
            extra_compile_args=["-std=c++17", "-O3", "-fno-math-errno"],
            language="c++",
            optional=True,  # without it NumPy does the same, slower
        )
    ]
)
