"""A real small model behind HTTP on this machine: it counts what it serves, and can be told to misbehave."""

import base64
import io
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import torch
from PIL import Image

from mr_core.backbones.description import BackboneDescription, Preprocessing
from mr_core.backbones.loading import load_backbone
from mr_core.backbones.remote.description import RemoteDescription, remote_backbone

SIDE = 32
CLASSES = tuple(f"class {i}" for i in range(10))


class RemoteModel:
    """`served` and `images` count what was computed, `received` every request; `faults` are used up one a request."""

    def __init__(self, url):
        self.url = url
        self.served = self.images = self.received = 0
        self.faults, self.headers, self.received_at = [], [], []
        self.lock = threading.Lock()
        description = BackboneDescription(id="served", library="builtin", architecture="cifar_resnet20", random_seed=3)
        self.model = load_backbone(description)
        # Random weights prefer one class whatever they see; against the mean over noise they tell images apart.
        noise = torch.rand(64, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            logits = self.model(noise, "source_logits")
        self.usual, self.scale = logits.mean(0), 1 / logits.std()

    def forget(self):
        """As new: nothing counted, no faults to come."""
        self.served = self.images = self.received = 0
        for kept in (self.faults, self.headers, self.received_at):
            kept.clear()
        return self

    @torch.no_grad()
    def probabilities(self, pixels):
        """`(n, 10)` of pixels `(n, 3, 32, 32)` in [0, 1]."""
        logits = self.model(torch.from_numpy(np.ascontiguousarray(pixels)).float(), "source_logits")
        return ((logits - self.usual) * self.scale / 10).double().softmax(1).numpy()

    def description(self, backbone_id="remote:api", *, size=SIDE, classes=CLASSES, **changes):
        values = {"url": f"{self.url}/json", "protocol": "json", "answer": "probabilities", **changes}
        plain = Preprocessing(size=size, mean=(0, 0, 0), std=(1, 1, 1), interpolation="bilinear")
        return remote_backbone(backbone_id, RemoteDescription(**values), classes=classes, preprocessing=plain)


@contextmanager
def serving_model():
    """The model on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with model.lock:
                model.received += 1
                model.received_at.append(time.monotonic())
                model.headers.append(dict(self.headers))
                fault = model.faults.pop(0) if model.faults else None
            answer(self, model, json.loads(body), fault)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # a client that did not wait
    model = RemoteModel(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield model
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(handler, model, request, fault):
    if isinstance(fault, tuple) and fault[0] in (400, 401, 429, 503):
        return reply(handler, fault[0], b"no", {"Retry-After": fault[1]} if len(fault) > 1 else {})
    pixels = pixels_of(request)
    with model.lock:
        model.served += 1
        model.images += len(pixels)
    if fault == "close":
        return handler.connection.close()
    if isinstance(fault, tuple) and fault[0] == "late":
        time.sleep(fault[1])
    if fault == 500:
        return reply(handler, 500, b"Traceback: secrets of the server", {})
    if fault == "empty":
        return reply(handler, 200, b"", {})
    if fault == "malformed":
        return reply(handler, 200, b'{"predictions": [[0.1, 0.', {})
    rows = model.probabilities(pixels)
    if fault == "fewer classes":
        rows = rows[:, :9] / rows[:, :9].sum(1, keepdims=True)
    if fault == "bad sum":
        rows = rows * 1.05
    if fault == "nan":
        rows = rows * np.nan
    if fault == "no rows":
        rows = rows[:0]
    return reply(handler, 200, json.dumps(body_of(handler.path, rows)).encode(), {})


def pixels_of(request):
    if "inputs" in request and isinstance(request["inputs"], list) and isinstance(request["inputs"][0], dict):
        tensor = request["inputs"][0]
        values = np.array(tensor["data"], dtype=np.float64).reshape(tensor["shape"])
        if tensor["shape"][1] != 3:
            values = values.transpose(0, 3, 1, 2)
        return values / (255 if tensor["datatype"] == "UINT8" else 1)
    images = request.get("images", request.get("instances"))
    if isinstance(images[0], str):
        decoded = [np.asarray(Image.open(io.BytesIO(base64.b64decode(image)))) for image in images]
        return np.stack(decoded).transpose(0, 3, 1, 2) / 255
    return np.array(images, dtype=np.float64)


def body_of(path, rows):
    if path == "/top":
        order = np.argsort(-rows, axis=1)[:, :3]
        listed = zip(rows, order, strict=True)
        top = [[{"label": CLASSES[i], "score": row[i]} for i in best] for row, best in listed]
        return {"data": [{"top": row} for row in top]}
    if path == "/logits":
        return {"predictions": (np.log(rows) + 3).tolist()}
    if path == "/v2/models/m/infer":
        output = {"name": "scores", "shape": list(rows.shape), "datatype": "FP32", "data": rows.reshape(-1).tolist()}
        return {"model_name": "m", "outputs": [output]}
    return {"predictions": rows.tolist()}


def reply(handler, status, body, headers):
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
