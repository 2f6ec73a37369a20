"""Runs any program tied to a parent, as `cli.part` runs a part: `tied PARENT_PID PROGRAM ARGUMENT...`."""

import os
import sys

from cli.part import stop_with_parent

if __name__ == "__main__":
    stop_with_parent(int(sys.argv[1]))  # what it asked of the kernel holds for the program that comes next, too
    os.execv(sys.argv[2], sys.argv[2:])
