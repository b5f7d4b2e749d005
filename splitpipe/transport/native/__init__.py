"""Trees of plain values as bytes and back: in C where a compiler was there, else in Python.

``tree`` picks one of the two; ``twin`` is the one in Python, and says what both mean. The other,
``_tree``, is built from the C files here: ``writing.c`` and ``reading.c``.
"""
