"""Asks a remote model: in batches, within a budget, each canvas once, patiently."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mr_core.backbones.description import Preprocessing
from mr_core.backbones.remote.answers import decode
from mr_core.backbones.remote.cost import Cost, Limit
from mr_core.backbones.remote.description import RemoteDescription
from mr_core.backbones.remote.requests import encode, wire_images
from mr_core.backbones.remote.transport import NoReply, NotSent, RemoteAccess, Reply, retry_after_s
from mr_core.errors import CallBudgetSpent, RemoteNotAnswering, RemoteRefused
from mr_core.observer import Checkpoint, Observer, Spent

MAX_KEPT_BYTES = 64 * 2**20  # of answers, in memory and in the checkpoint
KEEP_EVERY_S = 30.0
LONGEST_WAIT_S = 300.0
_FIRST_WAIT_S, _LONGEST_BACKOFF_S = 1.0, 30.0
_CHECKPOINT = "answers"
_DIGEST_BYTES = 32


class Oracle:
    """A remote model's answers, `(n, n_classes)` log-probabilities of normalised canvases `(n, 3, s, s)`.

    A canvas that was asked before is answered from memory (64 MiB of answers; beyond them each new one takes the place
    of any other, so that a pass that is longer finds most of it again). What is spent is handed to the
    observer before each request goes out, so it is never less than what was served, whatever is killed when: a request
    counts unless the server refused it (4xx, 503) or was not reached. Any number of threads may ask at once.
    """

    def __init__(
        self, remote: RemoteDescription, classes: Sequence[str], preprocessing: Preprocessing, access: RemoteAccess
    ) -> None:
        self.remote = remote
        self.classes = tuple(classes)
        self.spent = Spent()
        self._preprocessing = preprocessing
        self._access = access
        self._observer = Observer()
        self._limit, self._held = Limit(), Cost()
        self._kept: dict[bytes, NDArray[np.float32]] = {}
        self._places: list[bytes] = []  # the keys of what is kept
        self._most_kept = max(1, MAX_KEPT_BYTES // (_DIGEST_BYTES + 4 * len(self.classes)))
        self._saved_at = time.monotonic()
        self._free_at = 0.0  # when the next request may go out
        self._lock = threading.Lock()

    def begin(self, observer: Observer, limit: Limit) -> None:
        """From here on a job asks: within its limit, from what its earlier attempts have spent and learnt."""
        self._observer, self._limit, self._held = observer, limit, Cost()
        self.spent = observer.spent()
        checkpoint = observer.load_checkpoint(_CHECKPOINT)
        if checkpoint is not None and checkpoint.arrays["answers"].shape[1] == len(self.classes):
            for key, answer in zip(checkpoint.arrays["keys"], checkpoint.arrays["answers"], strict=True):
                self._keep(key.tobytes(), answer)

    @contextmanager
    def holding_back(self, cost: Cost) -> Iterator[None]:
        """Inside, so much of the budget is left untouched, for what comes after."""
        self._held = cost
        try:
            yield
        finally:
            self._held = Cost()

    @property
    def limit(self) -> Limit:
        """What the job may spend in all."""
        return self._limit

    def cost(self, n_images: int) -> Cost:
        """Of asking for so many canvases at once."""
        return Cost(-(-n_images // self.remote.batch_size), n_images)

    def ask(self, canvases: NDArray[np.float32]) -> NDArray[np.float32]:
        """CallBudgetSpent before the request that would exceed the budget; RemoteError where no answer can be used."""
        images = wire_images(canvases, self.remote, self._preprocessing)
        keys = [sha256(image.tobytes()).digest() for image in images]
        with self._lock:
            answers = {key: self._kept[key] for key in keys if key in self._kept}
        first = {key: i for i, key in reversed(list(enumerate(keys))) if key not in answers}
        unknown = sorted(first.values())
        for start in range(0, len(unknown), self.remote.batch_size):
            chosen = unknown[start : start + self.remote.batch_size]
            rows = self._answer(images[chosen])
            for i, row in zip(chosen, rows, strict=True):
                answers[keys[i]] = row
                with self._lock:
                    self._keep(keys[i], row)
            self._save_sometimes()
        return np.stack([answers[key] for key in keys]) if keys else np.zeros((0, len(self.classes)), np.float32)

    def _answer(self, images: NDArray[np.float32] | NDArray[np.uint8]) -> NDArray[np.float32]:
        content = encode(images, self.remote)
        said = ""
        for attempt in range(self.remote.attempts):
            self._observer.beat()
            self._pace()
            self._spend(Cost(1, len(images)))
            wait_s = min(_FIRST_WAIT_S * 2**attempt, _LONGEST_BACKOFF_S)
            try:
                reply = self._post(content)
            except NotSent as error:
                self._spend(Cost(-1, -len(images)))
                said = str(error)
            except NoReply as error:
                said = str(error)
            else:
                if 200 <= reply.status < 300:
                    return decode(reply.body, self.remote, self.classes, n_images=len(images))
                said = f"it answered {reply.status}"
                if 300 <= reply.status < 500 or reply.status == 503:
                    self._spend(Cost(-1, -len(images)))
                if reply.status < 500 and reply.status not in (408, 429):
                    raise RemoteRefused(f"{said}: check its URL, its secret and what it is sent", param="backbone")
                wait_s = max(wait_s, self._asked_wait_s(reply))
            if attempt + 1 < self.remote.attempts:
                self._observer.message(f"the remote backbone: {said}; asked again in {wait_s:.0f} s", level="warning")
                self._sleep(wait_s)
        raise RemoteNotAnswering(
            f"the remote backbone did not answer in {self.remote.attempts} attempts; at last: {said}", param="backbone"
        )

    def _post(self, content: bytes) -> Reply:
        return self._access.send(
            self.remote.url,
            headers={"Content-Type": "application/json", "Accept": "application/json", **self._access.headers},
            content=content,
            timeout_s=self.remote.timeout_s,
        )

    def _spend(self, cost: Cost) -> None:
        """Note a request before it goes out; a negative cost takes it back, and is told with the next."""
        with self._lock:
            after = Cost(self.spent.calls, self.spent.images) + cost
            if cost.calls > 0 and not self._limit.without(self._held).bears(after):
                held = f", {self._held.images} images of it held back for the evaluation" if self._held.images else ""
                spent = f"{self.spent.calls} calls with {self.spent.images} images"
                raise CallBudgetSpent(f"the budget of {self._limit} is spent: {spent}{held}", param="budget")
            total = Spent(after.calls, after.images)
            if cost.calls > 0:
                self._observer.record_spent(total)
            self.spent = total

    def _pace(self) -> None:
        if self.remote.requests_per_second is None:
            return
        with self._lock:
            now = time.monotonic()
            at = max(now, self._free_at)
            self._free_at = at + 1 / self.remote.requests_per_second
        if at > now:
            self._sleep(at - now)

    def _asked_wait_s(self, reply: Reply) -> float:
        asked = retry_after_s(reply.headers) or 0.0
        if asked > LONGEST_WAIT_S:
            raise RemoteNotAnswering(
                f"the remote backbone answered {reply.status} and asks to wait {asked:.0f} s, longer than "
                f"{LONGEST_WAIT_S:.0f} s",
                param="backbone",
            )
        return asked

    def _sleep(self, seconds: float) -> None:
        """In pieces, between which the observer may cancel."""
        while seconds > 0:
            self._access.sleep(min(seconds, 1.0))
            seconds -= 1.0
            self._observer.beat()

    def _keep(self, key: bytes, answer: NDArray[np.float32]) -> None:
        if key not in self._kept:
            if len(self._places) < self._most_kept:
                self._places.append(key)
            else:
                place = int.from_bytes(key[:8]) % self._most_kept
                del self._kept[self._places[place]]
                self._places[place] = key
        self._kept[key] = answer

    def _save_sometimes(self) -> None:
        if time.monotonic() - self._saved_at < KEEP_EVERY_S:
            return
        with self._lock:
            keys, answers = list(self._kept), np.stack(list(self._kept.values()))
        digests = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), _DIGEST_BYTES)
        arrays: dict[str, NDArray[Any]] = {"keys": digests.copy(), "answers": answers}
        self._observer.save_checkpoint(_CHECKPOINT, Checkpoint(step=self.spent.calls, state={}, arrays=arrays))
        self._saved_at = time.monotonic()
