"""Locating, copying and verifying records in bulk: in C where a compiler was there, else in Python.

``kernel`` picks one of the two; ``twin`` is the one in Python, and says what both mean. The other,
``_kernel``, is built from the C files here: ``crc32c.c`` (checksums, copying while checking),
``column.c`` (records of a mapped column), ``cold.c`` (records that are still on the disk).
"""
