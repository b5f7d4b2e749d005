"""Moving one message from one task to another.

Two seams that know nothing of each other: a *channel* carries small messages (in this process,
over a Unix socket pair, over ZeroMQ); a *payload* lies either inside the message or in an *arena*
of pooled shared memory, and then only its place travels.

This room knows neither storage nor pipelines: it moves lists of values.
"""
