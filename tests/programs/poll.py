"""Download a file, and look at the task until it is done."""

import json
import os
import time

from segdl import DownloadEngine

engine = DownloadEngine(max_workers=3)
task = engine.download(os.environ["URL"], os.environ["DIRECTORY"], "poll.bin")

seen = []
while task.status == "downloading":
    seen.append(task.progress)
    time.sleep(0.02)

print(
    json.dumps(
        {
            "status": task.status,
            "error": task.error,
            "path": task.file_path,
            "seen": seen,
            "progress": task.progress,
            "total_size": task.total_size,
            "downloaded_size": task.downloaded_size,
        }
    )
)
engine.shutdown()
