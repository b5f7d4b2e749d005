"""Who runs what: worker processes, what they wait for, how they end, and what becomes of their
failures.

The workers talk to each other and to the consumer directly; nobody relays. Every region of the
stream between a *head*, which numbers units of work, and a *merge*, which orders them again, is
bounded by credits that the merge gives to the head.
"""
