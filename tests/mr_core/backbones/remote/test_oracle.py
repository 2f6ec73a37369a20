"""The oracle against a real server: what is counted is what was served, whatever goes wrong."""

import threading

import numpy as np
import pytest

from mr_core.backbones.description import Preprocessing
from mr_core.backbones.remote import oracle as oracle_module
from mr_core.backbones.remote.cost import Cost, Limit
from mr_core.backbones.remote.description import remote_of
from mr_core.backbones.remote.oracle import Oracle
from mr_core.backbones.remote.transport import RemoteAccess
from mr_core.errors import CallBudgetSpent, JobCancelled, RemoteAnswerInvalid, RemoteNotAnswering, RemoteRefused
from mr_core.observer import Observer, Spent
from tests.remote_model import CLASSES, SIDE, serving_model


class Ledger(Observer):
    """Keeps what a database would."""

    def __init__(self):
        self.kept, self.noted, self.said, self.beats = {}, [], [], 0

    def record_spent(self, spent):
        self.noted.append(spent)

    def spent(self):
        return self.noted[-1] if self.noted else Spent()

    def save_checkpoint(self, name, checkpoint):
        self.kept[name] = checkpoint

    def load_checkpoint(self, name):
        return self.kept.get(name)

    def message(self, text, *, level="info"):
        self.said.append(text)

    def beat(self):
        self.beats += 1


@pytest.fixture(scope="module")
def server():
    with serving_model() as model:
        yield model


@pytest.fixture
def model(server):
    return server.forget()


@pytest.fixture
def slept():
    return []


@pytest.fixture
def make(model, slept):
    def make(**changes):
        description = model.description(**{"batch_size": 8, "timeout_s": 5, **changes})
        access = RemoteAccess(headers={"Authorization": "Bearer hidden"}, sleep=slept.append)
        return Oracle(remote_of(description), description.classes, description.preprocessing, access)

    return make


def canvases(n, seed=0):
    return np.random.default_rng(seed).random((n, 3, SIDE, SIDE), dtype=np.float32)


def test_answers_are_the_models_and_counts_are_what_was_served(make, model):
    oracle, ledger, asked = make(), Ledger(), canvases(20)
    oracle.begin(ledger, Limit())
    found = oracle.ask(asked)
    assert np.allclose(np.exp(found), model.probabilities(asked), atol=1e-5)
    assert (model.served, model.images) == (3, 20) == (oracle.spent.calls, oracle.spent.images)
    assert oracle.cost(20) == Cost(3, 20)
    assert model.headers[0]["Authorization"] == "Bearer hidden"
    assert [one.images for one in ledger.noted] == [8, 16, 20], "before each request, not after"


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "/v2/models/m/infer", "protocol": "open_inference"},
        {"url": "/v2/models/m/infer", "protocol": "open_inference", "layout": "nhwc", "output": "scores"},
        {"url": "/v2/models/m/infer", "protocol": "open_inference", "pixels": "uint8"},
        {"url": "/logits", "answer": "logits"},
        {"url": "/json", "pixels": "png"},
        {"url": "/json", "request": {"model": "m", "instances": "{images}"}},
    ],
)
def test_every_protocol_asks_and_reads_the_same(make, model, changes):
    url = model.url + changes["url"]
    found = make(**{**changes, "url": url}).ask(np.round(canvases(5) * 255).astype(np.float32) / 255)
    assert np.allclose(found, make().ask(np.round(canvases(5) * 255).astype(np.float32) / 255), atol=1e-4)


def test_the_rest_of_a_top_three_is_spread_evenly(make, model):
    found = np.exp(make(url=f"{model.url}/top", answer="top_k", answers="data", row="top").ask(canvases(4)))
    expected = model.probabilities(canvases(4))
    for row, whole in zip(found, expected, strict=True):
        best = np.argsort(-whole)[:3]
        assert np.allclose(row[best], whole[best], atol=1e-4)
        assert np.allclose(np.delete(row, best), (1 - whole[best].sum()) / 7, atol=1e-4)


def test_an_equal_canvas_is_asked_once(make, model):
    oracle = make()
    twice = np.concatenate([canvases(3), canvases(3)])
    first = oracle.ask(twice)
    assert (model.served, model.images) == (1, 3)
    assert np.array_equal(oracle.ask(twice), first)
    assert (model.images, oracle.spent.images) == (3, 3)
    assert np.array_equal(first[:3], first[3:])


def test_what_leaves_the_range_of_pixels_is_clamped(make, model):
    assert np.array_equal(make().ask(canvases(2) * 0 + 1), make().ask(canvases(2) * 0 + 7))


def test_memory_of_answers_is_bounded(make, model, monkeypatch):
    monkeypatch.setattr(oracle_module, "MAX_KEPT_BYTES", 3 * (32 + 4 * len(CLASSES)))
    oracle = make()
    oracle.ask(canvases(8))
    oracle.ask(canvases(8)[-1:])
    assert model.images == 8, "the last answer is always kept"
    for canvas in canvases(8)[:-1]:
        oracle.ask(canvas[None])
    assert 8 + 5 <= model.images < 8 + 8


def test_a_pass_longer_than_the_memory_finds_most_of_it_again(make, model, monkeypatch):
    monkeypatch.setattr(oracle_module, "KEEP_EVERY_S", 0)
    monkeypatch.setattr(oracle_module, "MAX_KEPT_BYTES", 80 * (32 + 4 * len(CLASSES)))
    ledger, asked = Ledger(), canvases(100)
    first = make()
    first.begin(ledger, Limit())
    first.ask(asked)
    later = make()
    later.begin(ledger, Limit())
    for start in range(0, 100, 10):
        later.ask(asked[start : start + 10])
    assert 120 <= model.images <= 150


@pytest.mark.parametrize(("limit", "served"), [(Limit(images=20), 2), (Limit(calls=2), 2), (Limit(images=24), 3)])
def test_stops_before_the_request_that_would_exceed_the_budget(make, model, limit, served):
    oracle = make()
    oracle.begin(Ledger(), limit)
    for seed in range(served):
        oracle.ask(canvases(8, seed))
    with pytest.raises(CallBudgetSpent, match="is spent"):
        oracle.ask(canvases(8, 9))
    assert model.served == served == oracle.spent.calls
    assert limit.bears(Cost(model.served, model.images))


def test_what_is_held_back_can_be_spent_afterwards(make, model):
    oracle = make()
    oracle.begin(Ledger(), Limit(images=24))
    with oracle.holding_back(Cost(1, 8)), pytest.raises(CallBudgetSpent, match="8 images of it held back"):
        oracle.ask(canvases(24))
    assert model.images == 16
    oracle.ask(canvases(8, 7))
    assert model.images == 24


def test_a_later_attempt_goes_on_from_what_was_spent_and_learnt(make, model, monkeypatch):
    monkeypatch.setattr(oracle_module, "KEEP_EVERY_S", 0)
    ledger, limit = Ledger(), Limit(images=24)
    first = make()
    first.begin(ledger, limit)
    answers = first.ask(canvases(16))
    later = make()
    later.begin(ledger, limit)
    assert later.spent == Spent(2, 16)
    assert np.array_equal(later.ask(canvases(16)), answers)
    assert model.images == 16, "answers came with the checkpoint"
    later.ask(canvases(8, 1))
    with pytest.raises(CallBudgetSpent):
        later.ask(canvases(1, 2))
    assert model.images == 24


def test_a_killed_request_counts_though_nobody_saw_its_answer(make, model):
    ledger = Ledger()
    first = make()
    first.begin(ledger, Limit(images=16))
    model.faults.append(("late", 0))

    class Killed(BaseException):
        pass

    def die(*_, **__):
        raise Killed

    first._access = RemoteAccess(send=die)
    with pytest.raises(Killed):
        first.ask(canvases(8))
    later = make()
    later.begin(ledger, Limit(images=16))
    later.ask(canvases(8))
    with pytest.raises(CallBudgetSpent):
        later.ask(canvases(8, 1))
    assert model.images == 8


def test_waits_as_long_as_a_429_asks(make, model, slept):
    ledger, oracle = Ledger(), make()
    oracle.begin(ledger, Limit())
    model.faults += [(429, "7"), (503, "3")]
    oracle.ask(canvases(4))
    assert sum(slept) == 10
    assert ledger.beats == 3 + 10, "a cancel is heard before each request and while it waits"
    assert (model.served, model.received) == (1, 3)
    assert oracle.spent == Spent(1, 4), "refusals are not served"
    assert "answered 429; asked again in 7 s" in ledger.said[0]


def test_backs_off_without_retry_after_and_says_so_in_the_end(make, model, slept):
    model.faults += [(429,)] * 5
    oracle = make()
    with pytest.raises(RemoteNotAnswering, match=r"in 5 attempts; at last: it answered 429"):
        oracle.ask(canvases(1))
    assert sum(slept) == 1 + 2 + 4 + 8
    assert oracle.spent == Spent()


def test_a_wait_of_a_day_is_no_wait(make, model, slept):
    model.faults.append((429, "86400"))
    with pytest.raises(RemoteNotAnswering, match="asks to wait 86400 s"):
        make().ask(canvases(1))
    assert slept == []


def test_a_500_is_asked_again_and_counts(make, model):
    oracle = make()
    model.faults += [500, 500]
    oracle.ask(canvases(4))
    assert (model.served, model.images) == (3, 12) == (oracle.spent.calls, oracle.spent.images)


def test_a_500_that_stays_is_a_clear_error(make, model):
    oracle = make(attempts=2)
    model.faults += [500, 500]
    with pytest.raises(RemoteNotAnswering, match="at last: it answered 500") as error:
        oracle.ask(canvases(4))
    assert "secrets" not in error.value.detail
    assert model.served == oracle.spent.calls == 2


def test_a_late_answer_counts_and_is_asked_again(make, model):
    oracle = make(timeout_s=0.3, attempts=2)
    model.faults += [("late", 0.8)]
    oracle.ask(canvases(1))
    assert model.served == oracle.spent.calls == 2
    model.faults += [("late", 0.8), ("late", 0.8)]
    with pytest.raises(RemoteNotAnswering, match=r"no answer within 0\.3 s"):
        oracle.ask(canvases(1, 1))


def test_a_connection_that_breaks(make, model):
    oracle = make(attempts=1)
    model.faults.append("close")
    with pytest.raises(RemoteNotAnswering, match="the connection broke"):
        oracle.ask(canvases(1))
    assert model.served == oracle.spent.calls == 1


def test_nobody_there_costs_nothing(make):
    oracle = make(url="http://127.0.0.1:9/json", attempts=2)
    with pytest.raises(RemoteNotAnswering, match="no connection"):
        oracle.ask(canvases(1))
    assert oracle.spent == Spent()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("empty", "the answer is empty"),
        ("malformed", "the answer is not JSON"),
        ("fewer classes", "9 classes, and 10 were registered"),
        ("bad sum", r"add up to 1\.05, expected 1 within 0\.01"),
        ("nan", "holds nan"),
        ("no rows", "0 rows for 2 images"),
    ],
)
def test_an_answer_of_no_use_is_named_and_counts(make, model, fault, said):
    oracle = make()
    model.faults.append(fault)
    with pytest.raises(RemoteAnswerInvalid, match=said):
        oracle.ask(canvases(2))
    assert model.served == oracle.spent.calls == 1


def test_a_refusal_tells_neither_secret_nor_body(make, model):
    model.faults.append((401,))
    with pytest.raises(RemoteRefused, match="it answered 401") as error:
        make().ask(canvases(1))
    assert "hidden" not in str(error.value)
    assert "hidden" not in repr(RemoteAccess(headers={"Authorization": "Bearer hidden"}))


def test_requests_keep_their_distance(make, model, slept):
    make(requests_per_second=2, batch_size=2).ask(canvases(6))
    assert 0.9 < sum(slept) <= 1.5, "the second waits half a second, the third one more"


def test_a_cancel_ends_the_wait(make, model):
    class Cancelling(Ledger):
        def beat(self):
            raise JobCancelled

    oracle = make()
    oracle.begin(Cancelling(), Limit())
    model.faults.append((429, "60"))
    with pytest.raises(JobCancelled):
        oracle.ask(canvases(1))


def test_threads_share_one_budget(make, model):
    oracle = make(batch_size=1)
    oracle.begin(Ledger(), Limit(images=10))
    refused = []

    def ask(seed):
        try:
            oracle.ask(canvases(4, seed))
        except CallBudgetSpent:
            refused.append(seed)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert model.images == 10 == oracle.spent.images
    assert refused


def test_normalised_values_are_what_the_preprocessing_says(make, model):
    plain = model.description()
    shifted = Preprocessing(size=SIDE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), interpolation="bilinear")
    received = []

    def send(url, *, headers, content, timeout_s):
        import json

        from mr_core.backbones.remote.transport import Reply

        received.append(json.loads(content)["images"])
        return Reply(200, {}, json.dumps({"predictions": [[0.1] * 10]}).encode())

    oracle = Oracle(remote_of(plain), CLASSES, shifted, RemoteAccess(send=send))
    oracle.ask(np.full((1, 3, SIDE, SIDE), 99, np.float32))
    assert np.allclose(np.array(received[0])[0, :, 0, 0], [(1 - 0.5) / 0.2, (1 - 0.4) / 0.3, (1 - 0.3) / 0.4])
