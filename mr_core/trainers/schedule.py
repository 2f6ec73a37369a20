"""Learning rates by step."""

import math

from mr_core.trainers.fields import StepsByOptimizer

MILESTONES = (0.5, 0.72)  # of the epochs, arXiv:2211.11635
DECAY = 0.1


def learning_rate(spec: StepsByOptimizer, *, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step, counted from 0 over all epochs; a function of nothing else, so it resumes anywhere.

    `multi_step` and `constant` change between epochs, the first of which always has the whole rate; `cosine` with every
    step down to 0 after the last (Loshchilov and Hutter, 2017, arXiv:1608.03983, equation 5, without restarts). The
    warm-up rises in equal steps to the schedule's start, whose own course begins after it (arXiv:2203.17274).
    """
    if step < spec.warmup_steps:
        return spec.learning_rate * (step + 1) / (spec.warmup_steps + 1)
    if spec.schedule == "multi_step":
        epoch = step // steps_per_epoch
        drops = sum(epoch >= max(1, int(milestone * spec.epochs)) for milestone in MILESTONES)
        return spec.learning_rate * DECAY**drops
    if spec.schedule == "cosine":
        total = max(1, spec.epochs * steps_per_epoch - spec.warmup_steps)
        return spec.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - spec.warmup_steps) / total))
    return spec.learning_rate
