"""How batches come to a client: what it knows, on which way they travel, and who moves them.

``session`` is what both sides agree on, as a value that is told what arrives and asked what to say;
``link`` is a way to the engine, ``zeromq`` and ``http`` are the two that there are, ``links``
chooses; ``feed`` moves messages between a session and its link while somebody waits for batches,
``keeper`` while nobody does.
"""
