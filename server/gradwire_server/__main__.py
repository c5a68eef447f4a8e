"""`python -m gradwire_server` runs a server; its settings are given as flags."""

from __future__ import annotations

import sys

from gradwire_server.process.supervisor import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
