"""A shim: what describes splitpipe stands in setup.cfg; here is only what is compiled.

The kernel is optional: where no compiler is, splitpipe installs without it and reads through its
twin in Python, with the same results.
"""

from setuptools import Extension, setup

NATIVE = "splitpipe/storage/native"

setup(
    ext_modules=[
        Extension(
            "splitpipe.storage.native._kernel",
            sources=[
                f"{NATIVE}/{name}.c"
                for name in ("module", "column", "cold", "crc32c", "decode", "iterate", "permute")
            ],
            depends=[f"{NATIVE}/{name}.h" for name in ("column", "crc32c", "gil")],
            extra_compile_args=["-O3", "-fvisibility=hidden"],
            optional=True,
        )
    ]
)
