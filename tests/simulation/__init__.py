"""The scheduler of lanes against modelled servers, on a clock that jumps.

    Case ──> simulate ──> Result: seconds, requests, refusals, bytes, broken invariants
               │
               │   Desk (the job, the scheduler's thread) ──> the real Lanes
               │     │  ^
               │     v  │  the real messages, both ways
               │   Worker (what _transfer does, without libcurl)
               │     │  ^
               │     v  │
               │   Network: connections of a modelled Server, and the rate of each
               │
    ideal_seconds(Server, connections): what no client could be faster than

Nothing waits and nothing is random but by a seed: between two events every connection
has one rate, so the moment of the next event is computed, not looked for in small
steps. Only `Worker` knows what a worker does with a message, and only `Network` what a
server does with a connection.

What is left out: processors, disks and the start of processes (a second worker too),
packets that are lost, and the bytes that are on their way when a connection is cut.

`scripts/simulate` runs thousands of cases and sums them up; `--case` shows one of them,
message by message.
"""
