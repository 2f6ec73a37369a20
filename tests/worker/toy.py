"""A job kind for the tests: a chain of digests, one a step, with a checkpoint each; misbehaves once where asked."""

import ctypes
import hashlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Literal

import numpy as np

import mr_core.job_spec
import mr_core.jobs
from mr_core.errors import SpecError
from mr_core.jobs.base import JobSpec
from mr_core.jobs.outcome import AdapterContent, Artifact, JobOutcome, SpectrumContent
from mr_core.observer import Checkpoint
from mr_core.registry import tagged_union


class ToySpec(JobSpec):
    """Hashes the seed `steps` times over."""

    kind: Literal["toy"] = "toy"
    steps: int = 6
    step_s: float = 0.0
    at_step: int = 3
    once: str | None = None  # a file; once it is there the job behaves
    end_gate: str | None = None  # a file that the job waits for after its last step
    behaviour: Literal["none", "hang", "deaf", "exit", "segfault", "memory", "grow", "impossible", "bug", "scratch"] = (
        "none"
    )

    def run(self, context):
        observer = context.observer
        observer.phase("training")
        checkpoint = observer.load_checkpoint("training")
        digest = bytes(checkpoint.arrays["digest"]) if checkpoint else hashlib.sha256(str(self.seed).encode()).digest()
        start = checkpoint.step if checkpoint else 0
        for step in range(start, self.steps):
            if step == self.at_step and self._misbehaves():
                getattr(self, f"_{self.behaviour}")(context)
            time.sleep(self.step_s)
            digest = hashlib.sha256(digest).digest()
            observer.metrics({"step": step + 1, "value": digest[0] / 255})
            state = {"digest": digest.hex()}
            arrays = {"digest": np.frombuffer(digest, dtype=np.uint8).copy()}
            observer.save_checkpoint("training", Checkpoint(step + 1, state, arrays))
            observer.progress(step + 1, self.steps)
        while self.end_gate and not Path(self.end_gate).exists():
            time.sleep(0.02)
        return JobOutcome(
            result={"digest": digest.hex(), "started_at_step": start, "threads": os.environ.get("OMP_NUM_THREADS")},
            adapter=AdapterContent(config=json.dumps({"seed": self.seed}).encode(), weights=digest),
            spectrum=SpectrumContent(np.array([2.0, 1.0]), np.array([0.75, 1.0]), {"n_samples": 2}),
            artifacts=(Artifact("plots/curves.svg", "image/svg+xml", b"<svg/>"),),
        )

    def _misbehaves(self):
        if self.behaviour == "none" or (self.once and Path(self.once).exists()):
            return False
        if self.once:
            Path(self.once).touch()
        return True

    def _hang(self, context):
        time.sleep(120)

    def _deaf(self, context):
        ctypes.PyDLL(None).sleep(120)  # keeps the interpreter's lock: no thread of this process runs

    def _exit(self, context):
        os._exit(3)

    def _segfault(self, context):
        os.kill(os.getpid(), signal.SIGSEGV)

    def _memory(self, context):
        raise MemoryError

    def _grow(self, context):
        blocks = []
        while True:
            blocks.append(np.ones(2**22))

    def _impossible(self, context):
        raise SpecError("cannot be", param="steps")

    def _bug(self, context):
        raise KeyError("secret detail")

    def _scratch(self, context):
        (context.scratch / "images.npy").write_bytes(b"0" * 1000)
        subprocess.Popen(["sleep", "120"])
        time.sleep(120)


class ToyParentSpec(JobSpec):
    """Toy jobs as its parts, of one step, two steps, ...; then one more that reads their answers."""

    kind: Literal["toy_parent"] = "toy_parent"
    parts: int = 3
    fails: int | None = None

    def run(self, context):
        context.observer.phase("training")
        first = {}
        for n in range(self.parts):
            behaviour = "impossible" if n == self.fails else "none"
            first[f"first-{n}"] = ToySpec(dataset=self.dataset, steps=n + 1, at_step=0, behaviour=behaviour)
        ends = context.sub_jobs.run(first, context)
        n_right = sum(end.status == "succeeded" for end in ends.values())
        last = context.sub_jobs.run({"last": ToySpec(dataset=self.dataset, steps=n_right)}, context)
        answers = {name: end.result["digest"] if end.result else end.error for name, end in {**ends, **last}.items()}
        return JobOutcome(result=answers)


def register():
    """Have this process know the kinds; before anything imports the union of kinds by name."""
    mr_core.jobs.JOB_KINDS["toy"] = ToySpec
    mr_core.jobs.JOB_KINDS["toy_parent"] = ToyParentSpec
    mr_core.job_spec.AnyJobSpec = mr_core.jobs.AnyJobSpec = tagged_union(mr_core.jobs.JOB_KINDS)
