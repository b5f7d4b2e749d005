"""What crosses between the data service and its clients: values, and the messages of the feed.

In the order of a batch's way: ``values`` makes frames of it, ``arrays`` says what an array is in a
few bytes, ``messages`` is what both sides tell each other, ``carrying`` puts many batches into one
message, ``packing`` makes one buffer of frames for HTTP. ``limits`` is what a receiver accepts, and
``scanning`` looks at bytes before anything is made of them.

Rules:
- nothing here is ever unpickled, and nothing that arrives names code;
- whatever is wrong with bytes that arrive is a `WireError`, and no other exception;
- a claim of size is checked before anything is allocated for it.
"""
