"""Measurements of segdl beside other programs, and the long runs that try to break it.

    python -m bench              throughput, memory, plan, tasks, start-up, past 2**32
    python -m bench.killnine     rounds of SIGKILL and resume
    python -m bench.powercut     the power of a disk is cut, resume
    python -m bench.peers        the same faults for segdl and other programs
    python -m bench.stress       many tasks, random faults, random orders
    python -m bench.real_model   a published model, killed half-way, opened at the end

    bench/_server.py    nginx ────┐
    bench/_origin.py    origin ───┼──> segdl (`python -m segdl get`), curl, aria2c
    bench/_content.py   files ────┘         │
    bench/_processes.py wall, CPU, PSS <────┘──> bench/_report.py: Markdown and JSON

Everything here is started by the scripts in `scripts/`, runs on this machine alone,
and leaves nothing but the results in `bench/results/`. It is no part of the package.
"""
