"""Download a file, and be called while it comes and when it is there."""

import json
import os

from segdl import DownloadEngine

calls = []


def on_progress(task):
    calls.append(["progress", task.progress])


def on_completion(task):
    calls.append(["completion", task.status, task.error, task.file_path])


engine = DownloadEngine(max_workers=2, progress_interval=0.05)
engine.register_progress_callback(on_progress)
engine.register_completion_callback(on_completion)
engine.download(os.environ["URL"], os.environ["DIRECTORY"], filename="callbacks.bin")
engine.shutdown(wait=True)

print(json.dumps({"calls": calls}))
