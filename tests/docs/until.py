"""Run a service until it says something, then end it as Ctrl-C does: `until TEXT COMMAND...`.

What it prints is passed on; an address that it prints is asked for. Its exit status must be 0.
"""

import re
import signal
import subprocess
import sys
import urllib.request


def main() -> int:
    wanted, *command = sys.argv[1:]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    found = False
    for line in process.stdout:
        print(line, end="", flush=True)
        if wanted in line and not found:
            found = True
            if address := re.search(r"http://127\.0\.0\.1:\d+/", line):
                urllib.request.urlopen(address[0], timeout=30).read()
            process.send_signal(signal.SIGINT)
    return process.wait() if found else 1


if __name__ == "__main__":
    sys.exit(main())
