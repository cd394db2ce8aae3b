"""Run a program as a cell of a Jupyter notebook, twice in one kernel."""

import sys

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
client.execute()
for cell in cells:
    for output in cell.outputs:
        stream = sys.stdout if output.get("name") == "stdout" else sys.stderr
        stream.write(output.get("text", str(output)))
