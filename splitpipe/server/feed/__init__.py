"""Delivery: each batch of an iteration to whom it is due, exactly once.

Responsible for: who has had what (`ledger`, `sharing`), that it is known after a crash
(`journal`), that batches are there when they are wanted (`tape`), the process that hands them out
(`engine`), and the supervision of such processes in the server (`engines`).
"""
