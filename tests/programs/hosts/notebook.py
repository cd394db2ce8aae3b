"""Run a program as a cell of a Jupyter notebook, twice in one kernel."""

import sys
import tempfile

import nbformat
from nbclient import NotebookClient

with open(sys.argv[1]) as file:
    source = file.read()
cells = [nbformat.v4.new_code_cell(source) for _ in range(2)]
client = NotebookClient(
    nbformat.v4.new_notebook(cells=cells),
    timeout=50,
    kernel_name="python3",
    # The kernel warns that the messages on its loopback sockets are not encrypted.
    extra_arguments=["--log-level=ERROR"],
)
with tempfile.TemporaryFile("w+") as log, client.setup_kernel(stderr=log):
    for index, cell in enumerate(cells):
        client.execute_cell(cell, index)
    # What a kernel that is ended says of its own sockets is not the program's.
    log.seek(0)
    sys.stderr.write(log.read())
for cell in cells:
    for output in cell.outputs:
        stream = sys.stdout if output.get("name") == "stdout" else sys.stderr
        stream.write(output.get("text", str(output)))
