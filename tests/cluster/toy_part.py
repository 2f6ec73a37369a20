"""A part of the service, as `cli.part` runs it, that knows the toy kind; its workers start attempts that do too."""

import functools
import sys

from tests.worker import toy

toy.register()

from cli.main import main  # noqa: E402 - what it imports has to find the kind registered
from cli.part import stop_with_parent  # noqa: E402

TOY_ATTEMPT = (sys.executable, "-m", "tests.worker.toy_attempt")

if __name__ == "__main__":
    stop_with_parent(int(sys.argv[1]))
    if sys.argv[2] == "worker":
        import worker.main

        worker.main.run_worker = functools.partial(worker.main.run_worker, command=TOY_ATTEMPT)
    sys.exit(main(sys.argv[2:]))
