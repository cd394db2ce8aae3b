"""Measurements of segdl beside other programs, and the long runs that try to break it.

    python -m bench              segdl beside other downloaders: docs/performance.md
    python -m bench.delay        a relay that makes a server far away
    python -m bench.killnine     rounds of SIGKILL and resume
    python -m bench.powercut     the power of a disk is cut, resume
    python -m bench.peers        the same faults for segdl and other programs
    python -m bench.stress       many tasks, random faults, random orders
    python -m bench.real_model   a published model, killed half-way, opened at the end

    bench/_server.py    nginx ────┐
    bench/_origin.py    origin ───┼──> segdl (`python -m segdl get`), and the peers of
    bench/_content.py   files ────┘         │                         segdl/_peers.py
    bench/_measure.py   wall, CPU, PSS <────┘──> bench/_report.py: Markdown and JSON

A scenario of `python -m bench` is a `Scenario` (_scenario.py): a course (_course.py) on
which contenders (_contenders.py) race (_race.py) for a Section of the report, which
_publish.py writes into the document.

Everything here is started by the scripts in `scripts/`, runs on this machine alone,
and leaves nothing but the results in `bench/results/`. It is no part of the package.
"""
