"""A shim: what describes splitpipe stands in setup.cfg; here is only what is compiled.

All of it is optional: where no compiler is, splitpipe installs without, and its twins in Python
give the same results.
"""

import numpy
from setuptools import Extension, setup

NATIVE = "splitpipe/storage/native"
MOVING = "splitpipe/transport/native"
FLAGS = ["-O3", "-fvisibility=hidden"]

setup(
    ext_modules=[
        Extension(
            "splitpipe.storage.native._kernel",
            sources=[
                f"{NATIVE}/{name}.c"
                for name in ("module", "column", "cold", "crc32c", "decode", "iterate", "permute")
            ],
            depends=[f"{NATIVE}/{name}.h" for name in ("column", "crc32c", "gil")],
            extra_compile_args=FLAGS,
            optional=True,
        ),
        Extension(
            "splitpipe.transport.native._kernel",
            sources=[f"{MOVING}/{name}.c" for name in ("module", "draining", "reading", "writing")],
            depends=[f"{MOVING}/tree.h"],
            include_dirs=[numpy.get_include()],
            extra_compile_args=FLAGS,
            optional=True,
        ),
    ]
)
