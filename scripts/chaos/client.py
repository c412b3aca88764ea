"""A command for an outside judge: has the server beside it run ``distil`` in a fork, and ends with its code.

    python -S -E client.py SOCKET OUTPUT_DIR

Isolated (``-S -E``), so that the judge's hook sits in the fork alone. Needs the standard library.
"""

import glob
import json
import os
import re
import socket
import sys
import tempfile


def main(server: str, output: str) -> int:
    """The exit code of the run, 128 more than the signal's number for one that was killed."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as line:
        log = os.path.join(folder, "log")
        line.connect(server)
        line.sendall(json.dumps([dict(os.environ), output, log]).encode() + b"\n")
        code = int(line.recv(100))
        with open(log, encoding="utf-8") as file:
            said = file.read()
        print(said[-1500:])
    if "Done before" in said:  # killed in its report: there was nothing to go on with
        print("Done at its last step, 4")
        return code
    for path in glob.glob(f"{output}/*/*/run.log"):
        with open(path, encoding="utf-8") as file:
            print(*re.findall(r"Going on from checkpoint-\d+", file.read())[-1:])
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
