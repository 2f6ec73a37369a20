"""`worker.attempt` with the toy kind among the job kinds."""

from tests.worker import toy
from worker.attempt import run_and_exit

toy.register()

if __name__ == "__main__":
    run_and_exit()
