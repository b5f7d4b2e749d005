"""Workers that are actors of a Ray cluster.

Responsible for: all that `executor="ray"` needs: finding the cluster, starting an actor for every
worker, joining it to its owner, and losing it well.

Rules:
- an actor runs the very loops that a process runs, over one `WorkerSpec`, and is replaced as one:
  plan, claims, merges and recovery know nothing of Ray;
- an actor on the owner's machine is handed the owner's channels and shared memory, over a socket
  that only this machine has (`nearby`). For one elsewhere a process beside the owner, its *relay*,
  holds those, and speaks to it over one encrypted connection (`relay`, `away`, `wire`);
- Ray places actors, starts them, ends them and says who they are. Nothing that they make goes
  through it: measured for a batch of 1 MB, that took 3.6 times as long as the connection does, and
  for a small message 40 times;
- Ray is imported when the first actor is wanted.
"""
