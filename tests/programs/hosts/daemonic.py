"""Run a program inside a daemonic process of multiprocessing."""

import multiprocessing
import sys


def run(path):
    with open(path) as file:
        exec(compile(file.read(), path, "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    process = multiprocessing.Process(target=run, args=sys.argv[1:], daemon=True)
    process.start()
    process.join()
    sys.exit(process.exitcode)
