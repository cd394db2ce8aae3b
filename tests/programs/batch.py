"""Download several files, two at a time."""

import json
import os

from segdl import DownloadEngine

urls = os.environ["URLS"].split()

with DownloadEngine(max_workers=2) as engine:
    tasks = [
        engine.download(url, os.environ["DIRECTORY"], priority=number)
        for number, url in enumerate(urls)
    ]
    first = [task.status for task in tasks]
    engine.wait(tasks)
    print(
        json.dumps(
            {
                "first": first,
                "last": [task.status for task in engine.get_all_tasks()],
                "errors": [task.error for task in tasks],
                "paths": [task.file_path for task in tasks],
                "bytes": engine.stats.get_completed_bytes(),
            }
        )
    )
