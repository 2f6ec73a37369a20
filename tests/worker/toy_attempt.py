"""`worker.attempt` with the toy kind among the job kinds."""

import mr_core.jobs
from mr_core.registry import tagged_union
from tests.worker.toy import ToySpec
from worker.attempt import run_and_exit

mr_core.jobs.AnyJobSpec = tagged_union({**mr_core.jobs.JOB_KINDS, "toy": ToySpec})

if __name__ == "__main__":
    run_and_exit()
