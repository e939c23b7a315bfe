"""Condensing by an OpenAI-compatible service: a real HTTP server on this machine, well-behaved and not."""

from __future__ import annotations

import datetime
import ipaddress
import json
import logging
import random
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from diffii.contexts.answers import parse_suffixes
from diffii.contexts.endpoint import Endpoint, condense_by_endpoint, messages
from diffii.errors import ConfigError, ModelError

SECRET = "sk-a-secret-nobody-may-see"
CAPTIONS = ["a bird on a branch", "a bird over water"]


class Service:
    """Gives the prepared replies in turn, the last one for ever: (status, what it says, headers)."""

    def __init__(self) -> None:
        self.replies: list[tuple[int, Any, dict[str, str]]] = []
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.requests.append((self.path, dict(self.headers), body))
                status, content, headers = service.replies[min(len(service.requests), len(service.replies)) - 1]
                if status == 0:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def says(self, text: str) -> Service:
        return self.replies_with(200, {"choices": [{"message": {"role": "assistant", "content": text}}]})

    def replies_with(self, status: int, content: Any = b"", headers: dict[str, str] | None = None) -> Service:
        self.replies.append((status, content, headers or {}))
        return self

    def endpoint(self, **settings: Any) -> Endpoint:
        return Endpoint(**{"url": self.url, "model": "small", "wait": 0.0, **settings})


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    found = Service()
    thread = threading.Thread(target=found.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join()


def ask(service: Service, limit: int = 10, **settings: Any) -> list[str]:
    return condense_by_endpoint(CAPTIONS, "bird", service.endpoint(**settings), limit)


# -- the way it should go ---------------------------------------------------------------------------------------------


def test_captions_go_out_and_suffixes_come_back(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    service.says('["sitting on a branch", "flying over water"]')
    assert ask(service) == ["sitting on a branch", "flying over water"]
    path, headers, body = service.requests[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == f"Bearer {SECRET}"
    assert body["model"] == "small" and "bird" in body["messages"][0]["content"]
    assert body["messages"][1]["content"] == "a bird on a branch\na bird over water"


def test_the_key_comes_from_the_variable_that_is_named(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("OTHER_KEY", "other")
    service.says('["on grass"]')
    ask(service, key_variable="OTHER_KEY")
    ask(service, key_variable="")
    assert [headers.get("Authorization") for _, headers, _ in service.requests] == ["Bearer other", None]


def test_a_login_in_netrc_does_not_take_the_keys_place(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password something\n")
    monkeypatch.setenv("NETRC", str(netrc))
    service.says('["on grass"]')
    ask(service)
    assert "Authorization" not in service.requests[0][1]


def test_at_most_200_captions_are_sent_the_same_in_any_order() -> None:
    captions = [f"a bird number {number}" for number in range(1000)]
    sent = messages(captions, "bird", 10)
    random.Random(0).shuffle(captions)
    assert messages([*captions, *captions, " "], "bird", 10) == sent
    assert len(sent[1]["content"].splitlines()) == 200
    with pytest.raises(ConfigError, match="no caption"):
        messages(["", " "], "bird", 10)


# -- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("passing", [429, 500, 503, 0])
def test_a_passing_failure_is_tried_again(service: Service, passing: int) -> None:
    service.replies_with(passing).replies_with(passing).says('["on grass"]')
    assert ask(service) == ["on grass"]
    assert len(service.requests) == 3


def test_a_service_that_stays_down_is_one_error_that_names_the_rule(service: Service) -> None:
    service.replies_with(503)
    with pytest.raises(ModelError, match=r"no answer in 3 tries \(status 503\).*captions\.condense=rule"):
        ask(service, tries=3)
    assert len(service.requests) == 3
    service.server.server_close()
    with pytest.raises(ModelError, match=r"no answer in 2 tries \(ConnectionError\)"):
        ask(service, tries=2)


def test_a_service_that_never_answers_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        endpoint = Endpoint(url=url, model="small", read_timeout=0.1, tries=2, wait=0.0)
        with pytest.raises(ModelError, match=r"2 tries \(ReadTimeout\)"):
            condense_by_endpoint(CAPTIONS, "bird", endpoint)


@pytest.mark.parametrize(
    ("status", "says"), [(400, "400"), (401, "is the key in OPENAI_API_KEY right"), (404, "end with the version")]
)
def test_a_refusal_is_not_repeated_and_hides_the_key(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, status: int, says: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    service.replies_with(status, {"error": {"message": f"Incorrect API key provided: {SECRET}"}})
    with caplog.at_level(logging.DEBUG), pytest.raises(ModelError, match=says) as caught:
        ask(service)
    assert len(service.requests) == 1
    assert SECRET not in str(caught.value) and SECRET not in caplog.text
    assert caught.value.__cause__ is None and caught.value.__context__ is None


def test_a_redirection_is_not_followed(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    service.replies_with(307, headers={"Location": service.url + "/elsewhere"})
    with pytest.raises(ModelError, match="a redirection"):
        ask(service)
    assert len(service.requests) == 1


@pytest.mark.parametrize("content", [b"<html>", {"choices": []}, {"choices": [{"message": {"content": None}}]}, []])
def test_another_protocol_is_said_so(service: Service, content: Any) -> None:
    service.replies_with(200, content)
    with pytest.raises(ModelError, match="does not answer as the OpenAI chat completions do"):
        ask(service)


def test_a_key_is_asked_for_and_never_sent_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY holds no key"):
        condense_by_endpoint(CAPTIONS, "", Endpoint(url="https://models.invalid/v1", model="small"))
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with pytest.raises(ConfigError, match="in the clear") as caught:
        condense_by_endpoint(CAPTIONS, "", Endpoint(url="http://models.invalid/v1", model="small"))
    assert SECRET not in str(caught.value)
    monkeypatch.setenv("OPENAI_API_KEY", "two\nlines")
    with pytest.raises(ConfigError, match="no key"):
        condense_by_endpoint(CAPTIONS, "", Endpoint(url="https://models.invalid/v1", model="small"))


def test_a_certificate_that_nobody_vouches_for_is_refused(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate = tmp_path / "server.pem"
    certificate.write_bytes(self_signed())
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    service.server.socket = tls.wrap_socket(service.server.socket, server_side=True)
    service.says('["on grass"]')
    secure = service.url.replace("http:", "https:")
    with pytest.raises(ModelError, match=r"certificate of https://127.* cannot be verified"):
        ask(service, url=secure)
    assert not service.requests
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert ask(service, url=secure) == ["on grass"]


def self_signed() -> bytes:
    """Key and certificate of 127.0.0.1, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a service")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(
            name, name, key.public_key(), 1, now - datetime.timedelta(1), now + datetime.timedelta(1)
        )
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    return key.private_bytes(pem, *plain) + certificate.public_bytes(pem)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"url": "api.openai.com"}, "no http"),
        ({"url": "file:///etc/passwd"}, "no http"),
        ({"url": "https://me:secret@host/v1"}, "no user, password or query"),
        ({"model": ""}, "name the model"),
        ({"tries": 0}, "positive"),
        ({"read_timeout": 0.0}, "positive"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Endpoint(**{"url": "https://host/v1", "model": "small", **wrong})


# -- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        '["on grass", "at night"]',
        '```json\n["on grass", "at night"]\n```',
        "on grass\nat night",
        "1. on grass\n2. at night",
        "- On grass.\n- at night\n- on grass\n",
        '* "on grass"\n* "at night"',
    ],
)
def test_lists_in_all_usual_shapes_are_read(answer: str) -> None:
    assert parse_suffixes(answer, 10, "it") == ["on grass", "at night"]


def test_no_more_than_the_limit_is_taken() -> None:
    assert parse_suffixes(json.dumps([f"on rock {n}" for n in range(20)]), 3, "it") == [
        f"on rock {n}" for n in range(3)
    ]


@pytest.mark.parametrize(
    "answer",
    ["", "[]", '{"suffixes": ["on grass"]}', '["on grass", 3]', '["on grass"', "Here are the suffixes:\n- on grass",
     "I am sorry, but I cannot help you with that request because there is too little said about the photos.",
     '["on\\u0007 grass"]', "- \n- on grass", '["on grass", ""]'],
)  # fmt: skip
def test_anything_else_is_an_error(answer: str) -> None:
    with pytest.raises(ModelError, match=r"answer of it is no list of suffixes.*captions\.condense=rule"):
        parse_suffixes(answer, 10, "it")
