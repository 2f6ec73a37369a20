"""What a job on a remote backbone costs at least, worked out by hand."""

import pytest

from mr_core.backbones.remote.cost import Cost, Limit
from mr_core.errors import CallBudgetSpent
from mr_core.job_spec import JobSpec
from mr_core.jobs.remote_rules import PartSizes, asking, evaluation_cost, least_cost, require

SIZES = PartSizes(train=50, validation=12, test=7, plain=(62, 7))


def spec(**changes):
    return JobSpec.parse({"kind": "reprogram", "dataset": "ds_1", "backbone": "remote:api", **changes})


def test_asking_fills_requests():
    assert asking(0, 16) == Cost(0, 0)
    assert asking(16, 16) == Cost(1, 16)
    assert asking(17, 16) == Cost(2, 17)


def test_least_of_a_training():
    averaged = spec(trainer={"kind": "zeroth_order", "directions": 3, "batch_size": 20})
    assert evaluation_cost(SIZES, 16) == Cost(1 + 1, 19)
    calls = 4 + 1 + 2 * 4 + 1 + 1 + 1
    assert least_cost(averaged, SIZES, 16) == Cost(calls, 69 + 80 + 12 + 19)
    assert least_cost(averaged, SIZES, 16, fits=True) == Cost(calls + 4, 69 + 80 + 12 + 19 + 50)
    whole = spec(trainer={"kind": "spsa", "draws": 2, "batch_size": 200})
    assert least_cost(whole, SIZES, 16) == Cost(4 + 1 + 4 * 4 + 1 + 2, 69 + 4 * 50 + 12 + 19)
    unselected = {**whole.trainer.model_dump(), "selection": "last"}
    assert least_cost(spec(trainer=unselected), SIZES, 16) == Cost(4 + 1 + 4 * 4 + 2, 69 + 4 * 50 + 19)
    head = spec(input_transform={"kind": "identity"})
    assert least_cost(head, SIZES, 16, fits=True) == Cost(5, 69)


def test_says_which_limit_is_too_small():
    require(Limit(calls=2, images=20), Cost(2, 20), what="it")
    require(Limit(), Cost(10**9, 10**9), what="it")
    for limit, param in (
        (Limit(calls=1), "budget.max_calls"),
        (Limit(images=19), "budget.max_images"),
        (Limit(calls=1, images=20), "budget.max_calls"),
    ):
        with pytest.raises(CallBudgetSpent, match="it take at least 2 calls with 20 images") as error:
            require(limit, Cost(2, 20), what="it")
        assert error.value.param == param
