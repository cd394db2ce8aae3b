"""Pause a download in the middle, and go on later."""

import json
import os
import time

from segdl import DownloadEngine

engine = DownloadEngine()
task = engine.download(os.environ["URL"], os.environ["DIRECTORY"], "pause.bin")

while task.status == "downloading" and task.downloaded_size == 0:
    time.sleep(0.02)

paused = engine.pause_task(task.id)
status = task.status
resumed = engine.resume_task(task.id)

while task.status in ("pending", "downloading"):
    time.sleep(0.02)

print(
    json.dumps(
        {
            "paused": paused,
            "while_paused": status,
            "resumed": resumed,
            "status": task.status,
            "error": task.error,
            "path": task.file_path,
        }
    )
)
engine.shutdown()
