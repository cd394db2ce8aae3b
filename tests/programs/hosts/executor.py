"""Run a program inside a ProcessPoolExecutor."""

import sys
from concurrent.futures import ProcessPoolExecutor


def run(path):
    with open(path) as file:
        exec(compile(file.read(), path, "exec"), {"__name__": "__main__"})
    sys.stdout.flush()


if __name__ == "__main__":
    with ProcessPoolExecutor(max_workers=1) as executor:
        executor.submit(run, sys.argv[1]).result()
