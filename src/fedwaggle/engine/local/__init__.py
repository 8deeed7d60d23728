"""The local engine: any Flower app, unmodified, in this process and a pool of workers.

::

    run          starts the pool, calls the ServerApp with a grid, and ends all of it
     ├ grid      what the ServerApp sees: Flower's ``Grid``
     │  ├ in_flight   which message is where, and the state of each node
     │  └ replies     those that have arrived and were not pulled yet
     └ pool      the seam: tasks in, replies or losses out
        ├ linux/       worker processes, forked from one that has imported the app
        └ in_process   this process, one client after the other

``client`` answers one message, in any pool.

``messages`` turns Flower's messages into plain values, ``frames`` turns values into bytes,
``fast_arrays`` speeds up Flower's own conversions, ``seeding`` seeds what nobody seeded.
"""
