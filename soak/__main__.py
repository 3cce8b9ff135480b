"""`python -m soak`: everything, or what is named; prints the figures and ends with status 1 where something was lost."""

import sys
import tempfile
from pathlib import Path

from soak import kills
from soak.processes import table


def main():
    with tempfile.TemporaryDirectory() as f:
        rows, problems = kills.run(Path(f), int(sys.argv[2]), whole=sys.argv[1] == "report")
        print(table("Killed", rows))
        print(problems)


main()
