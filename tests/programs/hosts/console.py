"""Type a program into an interactive console, line by line."""

import code
import sys

# A console shows the value of an expression; the program's own output is wanted only.
sys.displayhook = lambda _: None
console = code.InteractiveConsole({"__name__": "__main__"})
with open(sys.argv[1]) as file:
    for line in file.read().splitlines():
        console.push(line)
console.push("")
