"""Run a program on a thread; each download is begun by one more, which then ends."""

import sys
import threading

from segdl import DownloadEngine

download = DownloadEngine.download


def on_short_thread(*args, **kwargs):
    tasks = []
    thread = threading.Thread(
        target=lambda: tasks.append(download(*args, **kwargs)), daemon=True
    )
    thread.start()
    thread.join()
    return tasks[0]


DownloadEngine.download = on_short_thread
with open(sys.argv[1]) as file:
    code = compile(file.read(), sys.argv[1], "exec")
main = threading.Thread(target=exec, args=(code, {"__name__": "__main__"}))
main.start()
main.join()
