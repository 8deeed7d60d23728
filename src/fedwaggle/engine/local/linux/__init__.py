"""A pool of worker processes for Linux, forked from one that has imported the app.

::

    the server's process            the fork server             a worker
    pool ──────────────────────▶ fork_server ── workers ─────▶ worker
     │                                                           ▲
     ├── task_queue: tasks in shared memory, taken by whichever worker is free
     ├── shared_memory: payloads, written once and read by every worker
     └── client_output: what clients print, a line at a time

``protocol`` has every message between these processes; ``sending`` packs what goes to a worker.

``setup`` is what a worker knows before its first task; ``launch`` is how these processes begin and
``leaving`` how they end.
"""
