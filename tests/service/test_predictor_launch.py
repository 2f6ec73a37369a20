import fcntl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from service import predictor_launch
from service.errors import TransientError
from service.predictor_launch import ensure_predictor
from service.settings import Settings


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def predictor():
    """The address of something that answers /health."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def supervised(tmp_path):
    """A data folder that an `mr up` holds."""
    with predictor_launch.lock(tmp_path).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield Settings(data_dir=tmp_path)


def test_one_of_the_settings_that_answers_is_taken(predictor):
    settings = Settings(predictor_urls=f"http://127.0.0.1:9,{predictor}")
    assert {ensure_predictor(settings) for _ in range(5)} == {predictor}


def test_none_of_the_settings_answers():
    with pytest.raises(TransientError, match="no predictor answers at"):
        ensure_predictor(Settings(predictor_urls="http://127.0.0.1:9"))


def test_without_mr_up_and_without_a_setting_it_says_what_to_do(tmp_path):
    with pytest.raises(TransientError, match="MR_PREDICTOR_URLS"):
        ensure_predictor(Settings(data_dir=tmp_path))


def test_the_embedded_one_is_asked_for_and_waited_for(supervised, predictor):
    folder = supervised.data_dir
    starting = threading.Timer(0.3, lambda: predictor_launch.address(folder).write_text(predictor))
    starting.start()
    assert ensure_predictor(supervised) == predictor
    assert predictor_launch.wanted(folder).exists()
    starting.join()


def test_an_embedded_one_that_does_not_answer_is_given_up(supervised):
    predictor_launch.address(supervised.data_dir).write_text("http://127.0.0.1:9")
    with pytest.raises(TransientError, match="did not answer within 0 s"):
        ensure_predictor(supervised, timeout_s=0.2)
