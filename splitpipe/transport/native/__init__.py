"""What moving a message needs of C: in C where a compiler was there, else in Python.

``kernel`` picks one of the two; ``twin`` is the one in Python, and says what both mean. The other,
``_kernel``, is built from the C files here: ``writing.c`` and ``reading.c`` (trees of plain values
as bytes and back), ``draining.c`` (slots that come back).
"""
