"""A real server on loopback that misbehaves on purpose: what is tried again, what fails, what stops."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from aiohttp import web
from PIL import Image

from captioning.captioners.base import Answer, CaptionerUnusable, CaptionFailure, Generated
from captioning.captioners.chat_client import ChatClient, Server, proxy_of
from captioning.captioners.chat_reply import (
    PictureRefused,
    ServerBusy,
    check_model,
    message_of,
    read_reply,
    retry_after_s,
    status_error,
)
from captioning.captioners.endpoint import EndpointCaptioner, picture_uri
from captioning.captioners.make import make_captioner
from captioning.recaption import Recaptioner
from engine.dataset import Dataset
from engine.paid import Paid
from schemas.captioners import Caption, Endpoint
from tests.captioning import chat_server as server_that
from tests.captioning.chat_server import Behaviour, ChatServer
from tests.captioning.questions import asked

PROMPT = "What is it?"
KEY = "sk-top-secret-9f2c"


def picture(tag: int, size: tuple[int, int] = (32, 24)) -> Image.Image:
    return Image.new("RGB", size, (tag, 100, 100))


def captioner(server: ChatServer | str, **knobs: Any) -> EndpointCaptioner:
    url = server if isinstance(server, str) else server.url
    quick = {"retries": 2, "backoff_s": 0.01, "timeout_s": 5, "concurrency": 4}
    section = {"url": url, "model": "tiny", "prompt": PROMPT} | quick | knobs
    return EndpointCaptioner(Endpoint.from_mapping(section))


def ask(server: ChatServer | str, tags: list[int], **knobs: Any) -> list[Answer]:
    return asked(captioner(server, **knobs), [picture(tag) for tag in tags], range(len(tags)))


def test_every_picture_gets_its_answer_with_prompt_and_seed() -> None:
    with ChatServer() as server:
        made = captioner(server, temperature=0.5, max_tokens=77)
        answers = asked(made, [picture(tag) for tag in (200, 40, 120)], [7, 2**53 - 1, 9])
    assert answers == [
        Generated(f"{PROMPT} 200 7", True, 5),
        Generated(f"{PROMPT} 40 {2**53 - 1}", True, 5),
        Generated(f"{PROMPT} 120 9", True, 5),
    ]
    body = server.bodies[0]
    assert {name: body[name] for name in ("model", "max_tokens", "temperature")} == {
        "model": "tiny",
        "max_tokens": 77,
        "temperature": 0.5,
    }


def test_as_many_requests_are_in_flight_as_the_recipe_says() -> None:
    with ChatServer(delay_s=0.05) as server:
        answers = ask(server, [20] * 24, concurrency=6)
    assert len(answers) == 24
    assert server.most_in_flight == 6
    assert server.asked.total() == 24


def test_a_picture_is_sent_no_larger_than_image_px() -> None:
    with ChatServer() as server:
        pictures = [picture(20, (256, 128)), picture(40, (40, 50)), picture(60, (3, 900))]
        asked(captioner(server, image_px=64, concurrency=1), pictures, [0, 1, 2])
    assert sorted(server.sizes) == sorted([(64, 32), (40, 50), (1, 64)])
    assert picture_uri(picture(20), Endpoint(image_px=64)).startswith("data:image/jpeg;base64,/9j/")


@pytest.mark.parametrize(
    "bad",
    [
        server_that.status(429, Retry_After="0"),
        server_that.status(500),
        server_that.status(503),
        server_that.cut_connection,
        server_that.cut_reply,
        server_that.bad_json,
        server_that.no_choices,
    ],
    ids=["429", "500", "503", "cut connection", "cut reply", "bad json", "no choices"],
)
def test_a_passing_error_is_tried_again(bad: Behaviour) -> None:
    with ChatServer({40: server_that.first(2, bad)}) as server:
        answers = ask(server, [20, 40, 60])
    assert answers == [Generated(f"{PROMPT} {tag} {seed}", True, 5) for seed, tag in enumerate((20, 40, 60))]
    assert server.asked == {20: 1, 40: 3, 60: 1}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (server_that.status(429, "slow down"), "the server says 429: slow down, 3 times"),
        (server_that.status(500, "oops"), "the server says 500: oops, 3 times"),
        (server_that.cut_connection, "the connection was cut"),
        (server_that.bad_json, "the reply is no chat completion: <html>gateway</html>, 3 times"),
        (server_that.no_choices, "the reply is no chat completion"),
    ],
    ids=["429", "500", "cut connection", "bad json", "no choices"],
)
def test_a_lasting_error_fails_its_picture_alone(bad: Behaviour, reason: str) -> None:
    with ChatServer({40: bad}) as server:
        answers = ask(server, [20, 40, 60])
    assert [type(answer) for answer in answers] == [Generated, CaptionFailure, Generated]
    assert isinstance(answers[1], CaptionFailure) and reason in answers[1].reason
    assert server.asked == {20: 1, 40: 3, 60: 1}


def test_a_server_that_hangs_is_waited_for_so_long_and_no_longer() -> None:
    with ChatServer({40: server_that.hang}) as server:
        begun = time.perf_counter()
        answers = ask(server, [20, 40], timeout_s=0.3, retries=1)
        took = time.perf_counter() - begun
    assert answers[1] == CaptionFailure("no answer within 0.3 s, 2 times")
    assert isinstance(answers[0], Generated)
    assert server.asked[40] == 2
    assert 0.6 <= took < 3


def test_a_list_of_models_that_never_comes_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captioning.captioners.chat_client.MODELS_TIMEOUT_S", 0.2)

    async def hang(*_: object) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    monkeypatch.setattr(ChatServer, "_list", hang)
    with ChatServer(models=listed()) as server:
        begun = time.perf_counter()
        assert isinstance(ask(server, [20], timeout_s=20)[0], Generated)
    assert time.perf_counter() - begun < 5


def test_a_slow_server_is_no_failure() -> None:
    with ChatServer(delay_s=0.3) as server:
        assert all(isinstance(answer, Generated) for answer in ask(server, [20, 40], timeout_s=2))


def test_the_wait_of_a_retry_after_header_is_kept() -> None:
    with ChatServer({40: server_that.first(1, server_that.status(429, Retry_After="1"))}) as server:
        begun = time.perf_counter()
        ask(server, [40])
        assert 1 <= time.perf_counter() - begun < 3


def test_waits_grow_and_are_spread() -> None:
    waits = ChatClient(captioner("http://127.0.0.1:1/v1", backoff_s=1)._section, "", ())
    for attempt, least in enumerate((1, 2, 4, 8, 16, 32, 60, 60)):
        found = {waits._wait_s(attempt, seed) for seed in range(50)}
        assert min(found) >= least and max(found) <= 1.5 * least and len(found) > 40
    assert 100 <= waits._wait_s(0, 1, 100.0) <= 150
    assert waits._wait_s(0, 1, 1e9) <= 450


@pytest.mark.parametrize("code", [400, 413, 422])
def test_a_picture_that_is_refused_is_not_tried_again(code: int) -> None:
    with ChatServer({40: server_that.status(code, "image too odd\nTraceback ...")}) as server:
        answers = ask(server, [20, 40, 60])
    assert answers[1] == CaptionFailure(f"the server says {code}: image too odd")
    assert server.asked[40] == 1
    assert isinstance(answers[0], Generated) and isinstance(answers[2], Generated)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (401, "caption.endpoint.api_key_env names the variable"),
        (403, "its key does not allow this"),
        (404, "check caption.endpoint.url"),
        (307, "the server has moved, set caption.endpoint.url to its new address"),
    ],
)
def test_a_mistake_in_the_recipe_stops_at_once(code: int, advice: str) -> None:
    with ChatServer({tag: server_that.status(code, "not you") for tag in (20, 40)}) as server:
        with pytest.raises(CaptionerUnusable) as stopped:
            ask(server, [20, 40])
        assert max(server.asked.values()) == 1
    message = str(stopped.value)
    assert message.startswith(f"{server.url}: the server says {code}: not you") and advice in message
    assert "\n" not in message


def test_a_server_that_is_not_there_is_named_in_one_line() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(CaptionerUnusable, match=rf"http://127\.0\.0\.1:{port}/v1: no server answers there \(.*{port}"):
        ask(f"http://127.0.0.1:{port}/v1", [20, 40])


def test_an_empty_caption_is_an_answer() -> None:
    with ChatServer({40: server_that.empty}) as server:
        assert ask(server, [40]) == [Generated("", True, 5)]
    assert server.asked[40] == 1


def test_a_caption_that_was_cut_says_so() -> None:
    with ChatServer({40: server_that.cut_short}) as server:
        (answer,) = ask(server, [40])
    assert isinstance(answer, Generated) and not answer.ended


def test_a_caption_that_was_held_back_is_a_failure() -> None:
    with ChatServer({40: server_that.filtered}) as server:
        assert ask(server, [40]) == [CaptionFailure("the server's content filter held the text back")]


# ------------------------------------------------------------------------------------------------ before the first


def listed(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"object": "list", "data": list(entries)}


@pytest.mark.parametrize(
    ("models", "knobs", "said"),
    [
        (
            listed({"id": "qwen"}, {"id": "llava"}),
            {},
            "has no model tiny; set caption.endpoint.model to one of llava",
        ),
        (listed({"id": "tiny", "max_model_len": 512}), {"max_tokens": 512}, "max_tokens=512 leaves no room"),
        (listed({"id": "tiny:latest", "max_model_len": 64}), {"max_tokens": 900}, "gives tiny 64 tokens"),
        (401, {}, "the server says 401"),
    ],
)
def test_a_mistake_that_the_server_s_models_show_stops_before_the_first_picture(
    models: object, knobs: dict[str, Any], said: str
) -> None:
    with ChatServer(models=models) as server:
        with pytest.raises(CaptionerUnusable, match=said) as stopped:
            ask(server, [20, 40], **knobs)
        assert not server.asked and str(stopped.value).startswith(server.url)


@pytest.mark.parametrize(
    ("models", "model"),
    [
        (listed({"id": "tiny", "max_model_len": 4096}), "tiny"),
        (listed({"id": "tiny:7b"}), "tiny"),
        (listed({"id": "org/tiny"}), "org/tiny:fast"),
        (listed({"id": "cached"}), "/models/tiny"),
        (listed(), "tiny"),
        (["what?"], "tiny"),
        ({"data": [{"name": "no id"}]}, "tiny"),
        ({"data": None}, "tiny"),
        (listed({"id": "tiny", "max_model_len": -1}), "tiny"),
        (listed({"id": "tiny", "max_model_len": 0}), "tiny"),
        (403, "tiny"),
        (500, "tiny"),
        (None, "tiny"),
    ],
    ids=str,
)
def test_a_server_whose_models_say_nothing_else_is_asked(models: object, model: str) -> None:
    with ChatServer(models=models) as server:
        assert isinstance(ask(server, [20], model=model)[0], Generated)


def test_the_models_are_asked_for_once() -> None:
    with ChatServer() as server:
        made = captioner(server)
        assert isinstance(asked(made, [picture(20)], [0])[0], Generated)
        server.models = 401
        assert isinstance(asked(made, [picture(40)], [0])[0], Generated)


def test_nothing_is_sent_where_there_is_no_question() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        assert asked(captioner(f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"), [], []) == []


@pytest.mark.parametrize(
    "error",
    [
        {"message": "max_tokens=5000 cannot be greater than max_model_len=1024 (parameter=max_tokens, value=5000)"},
        {"message": "too many", "param": "max_tokens"},
    ],
)
def test_a_refusal_that_is_about_the_request_stops_at_the_first_picture(error: dict[str, str]) -> None:
    async def refuses(server: ChatServer, request: web.Request, text: str, times: int) -> web.StreamResponse:
        return web.json_response({"error": error}, status=400)

    with ChatServer(dict.fromkeys(range(0, 256, 20), refuses)) as server:
        with pytest.raises(CaptionerUnusable, match=r"max_tokens"):
            ask(server, [20] * 80, concurrency=1)
        assert server.asked[20] <= 2


# ------------------------------------------------------------------------------------------------ several servers


def test_a_request_goes_to_the_server_with_the_fewest_in_flight() -> None:
    with ChatServer(delay_s=0.01) as fast, ChatServer(delay_s=0.1) as slow:
        answers = ask(fast, [20] * 40, urls=[slow.url, fast.url], concurrency=4)
    assert all(isinstance(answer, Generated) for answer in answers)
    assert fast.asked[20] > 2 * slow.asked[20] > 0
    assert slow.most_in_flight <= 2


@pytest.mark.parametrize("bad", [server_that.status(503), server_that.cut_connection, server_that.bad_json])
def test_a_server_that_fails_is_left_out_and_asked_again_later(bad: Behaviour) -> None:
    ill = {20: server_that.first(3, bad)}
    with ChatServer(ill, delay_s=0.01) as dies, ChatServer(delay_s=0.01) as stays:
        answers = ask(dies, [20] * 60, urls=[stays.url], concurrency=2, backoff_s=0.02)
    assert all(isinstance(answer, Generated) for answer in answers)
    assert dies.asked[20] > 3, "it was asked again once it worked"
    assert dies.asked[20] + stays.asked[20] <= 60 + 3


def test_a_server_that_is_not_there_costs_no_picture_and_little_time() -> None:
    with socket.socket() as free, ChatServer(delay_s=0.01) as stays:
        free.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        begun = time.perf_counter()
        answers = ask(gone, [20] * 20, urls=[stays.url], backoff_s=30, concurrency=4)
        assert time.perf_counter() - begun < 5
    assert all(isinstance(answer, Generated) for answer in answers)
    assert stays.asked[20] == 20


def test_a_server_that_fails_stays_out_from_part_to_part() -> None:
    with ChatServer({20: server_that.status(503)}) as dies, ChatServer() as stays:
        made = captioner(dies, urls=[stays.url], backoff_s=30, concurrency=2)
        for _ in range(4):
            assert isinstance(asked(made, [picture(20)] * 4, range(4))[0], Generated)
    assert dies.asked[20] <= 2 and stays.asked[20] == 16


def test_a_server_without_https_stops_the_job_at_once() -> None:
    with ChatServer() as server:
        begun = time.perf_counter()
        with pytest.raises(CaptionerUnusable, match=r"no https there .* write http://"):
            ask(server.url.replace("http", "https"), [20] * 3, backoff_s=30)
        assert time.perf_counter() - begun < 5


def test_servers_that_are_all_gone_are_all_named() -> None:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        urls = [f"http://127.0.0.1:{free.getsockname()[1]}/v1" for free in (one, other)]
        with pytest.raises(CaptionerUnusable, match=rf"{urls[0]}, {urls[1]}: no server answers there"):
            ask(urls[0], [20], urls=urls[1:])


def test_one_of_the_addresses_is_enough() -> None:
    section = Endpoint.from_mapping({"urls": ["http://a:1/v1/", "http://b:2/v1/chat/completions", "http://a:1/v1"]})
    assert section.servers() == ["http://a:1/v1", "http://b:2/v1"]
    assert Caption.from_mapping({"captioner": "endpoint", "endpoint": {"urls": ["http://a:1/v1"], "model": "m"}})
    assert not {"url", "urls"} & section.knobs().keys()
    with pytest.raises(ValueError, match="no key, user or query belongs in it"):
        Endpoint.from_mapping({"urls": ["http://key@a:1/v1"]})


# ------------------------------------------------------------------------------------------------ in a job


def part_of(
    part: Callable[..., pa.Table], jpeg: Callable[[Image.Image], bytes], ids: list[str], tags: list[int]
) -> dict[str, pa.Table]:
    return {
        "proxies": part("proxies", image_id=ids, jpeg=[jpeg(picture(tag)) for tag in tags]),
        "selection": part("selection", image_id=ids, kept=[True] * len(ids)),
    }


def test_a_row_names_the_server_s_version_and_another_version_asks_nothing_again(
    part: Callable[..., pa.Table],
    jpeg: Callable[[Image.Image], bytes],
    image_ids: Callable[[int], list[str]],
    tmp_path: Path,
) -> None:
    def version(name: str) -> Behaviour:
        async def answer(server: ChatServer, request: web.Request, text: str, times: int) -> web.StreamResponse:
            return server_that.completion(f"A dog on a lawn beside {text.split()[-2]} trees.", system_fingerprint=name)

        return answer

    inputs = part_of(part, jpeg, image_ids(3), [20, 40, 60])
    few = inputs | {"selection": part("selection", image_id=image_ids(3), kept=[True, False, False])}
    paid = Paid.of(Dataset(tmp_path), "captions", 0)
    with ChatServer(dict.fromkeys((20, 40, 60), version("vllm-1"))) as server:
        Recaptioner(lambda: captioner(server), 1)(few, lambda *_: None, paid)
        server.behaviours = dict.fromkeys((20, 40, 60), version("vllm-2"))
        table = Recaptioner(lambda: captioner(server), 1)(inputs, lambda *_: None, paid)["captions"]
        assert server.asked == {20: 1, 40: 1, 60: 1}
    assert table["revision"].to_pylist() == ["vllm-1", "vllm-2", "vllm-2"]


@pytest.mark.slow
def test_refused_answers_do_not_let_the_requests_in_flight_fall(
    part: Callable[..., pa.Table], jpeg: Callable[[Image.Image], bytes], image_ids: Callable[[int], list[str]]
) -> None:
    async def uneven(server: ChatServer, request: web.Request, text: str, times: int) -> web.StreamResponse:
        seed = int(text.split()[-1])
        await asyncio.sleep(0.02 + seed % 7 / 100)
        return server_that.completion("I'm sorry, but I cannot." if seed % 3 == 0 else "A dog lies on a lawn.")

    inputs = part_of(part, jpeg, image_ids(150), [20] * 150)
    with ChatServer({20: uneven}) as server:
        made = captioner(server, temperature=1.0, concurrency=8)
        table = Recaptioner(lambda: made, 2)(inputs, lambda *_: None)["captions"]
    assert table["reason"].null_count > 120, "refused answers were asked for again"
    begun, ended = server.levels[8][0], server.levels[-8][0]
    levels = [pair for pair in zip(server.levels, server.levels[1:], strict=False) if begun <= pair[0][0] < ended]
    busy_s = sum(level * (until - since) for (since, level), (until, _) in levels)
    assert busy_s / (8 * (ended - begun)) > 0.7, "it fell to one at the end of every batch before"


# ------------------------------------------------------------------------------------------------ the key


def test_the_key_goes_to_the_server_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    part: Callable[..., pa.Table],
    jpeg: Callable[[Image.Image], bytes],
    image_ids: Callable[[int], list[str]],
) -> None:
    monkeypatch.setenv("SIGMA_TEST_KEY", f" {KEY}\n")
    caplog.set_level(logging.DEBUG)

    async def describes(server: ChatServer, request: web.Request, text: str, times: int) -> web.StreamResponse:
        return server_that.completion("A dog on a lawn.")

    behaviours = {
        20: describes,
        40: server_that.status(400, f"Bearer {KEY} may not"),
        60: server_that.status(500, f"lost {KEY}"),
        80: describes,
    }
    tags = [20, 40, 60, 80]
    inputs = part_of(part, jpeg, image_ids(4), tags)
    with ChatServer(behaviours) as server:
        made = captioner(server, api_key_env="SIGMA_TEST_KEY")
        table = Recaptioner(lambda: made, 1)(inputs, lambda *_: None)["captions"]
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    assert table["reason"].to_pylist() == [None, "captioner_failed", "captioner_failed", None]
    assert "*** may not" in caplog.text and "lost ***" in caplog.text
    printed = capfd.readouterr()
    for text in (caplog.text, printed.out, printed.err, str(table.to_pylist()), repr(vars(made)["parameters"])):
        assert KEY not in text


def test_a_key_in_the_error_that_stops_the_job_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGMA_TEST_KEY", KEY)
    said = f"{'x' * 190} {KEY}"  # where the message is cut, the key must not begin
    with ChatServer({20: server_that.status(401, said)}) as server, pytest.raises(CaptionerUnusable) as stopped:
        ask(server, [20], api_key_env="SIGMA_TEST_KEY")
    assert "xxx ***" in str(stopped.value) and KEY[:4] not in str(stopped.value)
    assert KEY not in str(stopped.value) and stopped.value.__cause__ is None


def test_without_a_key_none_is_sent() -> None:
    with ChatServer() as server:
        ask(server, [20])
    assert "Authorization" not in server.headers[0]


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIGMA_TEST_KEY", raising=False)
    with pytest.raises(ValueError, match="the environment variable SIGMA_TEST_KEY is not set"):
        captioner("http://127.0.0.1:1/v1", api_key_env="SIGMA_TEST_KEY")
    monkeypatch.setenv("SIGMA_TEST_KEY", "two words")
    with pytest.raises(ValueError, match="what SIGMA_TEST_KEY holds is no key") as refused:
        captioner("http://127.0.0.1:1/v1", api_key_env="SIGMA_TEST_KEY")
    assert "two words" not in str(refused.value)


# ------------------------------------------------------------------------------------------------ its parts


def test_a_row_says_model_prompt_and_parameters() -> None:
    section = {"url": "http://127.0.0.1:1/v1", "model": "org/qwen", "temperature": 0.3}
    made = make_captioner(Caption.from_mapping({"captioner": "endpoint", "endpoint": section}))
    assert (made.name, made.revision, made.retries_help) == ("org/qwen", None, True)
    assert made.prompt == "Describe this image and its style in a very detailed manner"
    assert made.parameters == {
        "api": "chat/completions",
        "image_px": 1024,
        "jpeg_quality": 90,
        "max_tokens": 512,
        "temperature": 0.3,
    }


def test_requests_to_this_machine_bypass_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert proxy_of("http://example.org/v1") == "http://127.0.0.1:1"
    for host in ("localhost:8000", "127.0.0.1:8000", "[::1]:8000"):
        assert proxy_of(f"http://{host}/v1") is None
    monkeypatch.setenv("no_proxy", "example.org")
    assert proxy_of("http://example.org/v1") is None
    with ChatServer() as server:
        assert isinstance(ask(server, [20])[0], Generated)


def test_a_retry_after_header_is_a_number_or_a_date() -> None:
    assert retry_after_s(None) is None
    assert retry_after_s("2.5") == 2.5
    assert retry_after_s("-1") == 0
    assert retry_after_s("soon") is None and retry_after_s("nan") is None
    in_a_minute = datetime.now(UTC) + timedelta(seconds=60)
    assert 55 < (retry_after_s(format_datetime(in_a_minute, usegmt=True)) or 0) <= 60
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0


def test_a_servers_error_is_shown_in_one_bounded_line() -> None:
    assert message_of(b'{"error": {"message": "first\\nsecond"}}') == "first"
    assert message_of(b'{"message": "old vllm"}') == "old vllm"
    assert message_of(b'{"detail": "fastapi"}') == "fastapi"
    assert message_of(b"") == "nothing"
    assert len(message_of(b"x" * 5000)) < 210


def test_text_in_parts_is_joined() -> None:
    parts = b'{"choices": [{"message": {"content": [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]}}]}'
    assert read_reply(parts) == Generated("a b", True, None)


def test_a_refusal_in_a_field_of_its_own_is_the_text() -> None:
    reply = b'{"choices": [{"message": {"content": null, "refusal": "I cannot help with that."}}]}'
    assert read_reply(reply).text == "I cannot help with that."


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"choices": ' + b"[" * 100_000, b'{"a":' * 100_000], ids=len)
def test_json_that_is_nested_too_deep_is_no_reply(content: bytes) -> None:
    with pytest.raises(ServerBusy, match="no chat completion"):
        read_reply(content)
    check_model(content, "tiny", 100)
    assert isinstance(status_error(400, content), PictureRefused)


@pytest.mark.parametrize("half", [rb"\ud83d", rb"\udc00", b"\xed\xa0\xbd"])
def test_half_a_letter_in_a_reply_is_left_out(half: bytes) -> None:
    reply = b'{"choices": [{"message": {"content": "A %s dog."}}], "system_fingerprint": "v%s1"}' % (half, half)
    assert read_reply(reply) == Generated("A  dog.", revision="v1")


@pytest.mark.parametrize("count", [2**31, -1, "20", 1e3, None])
def test_a_count_of_tokens_that_can_be_none_is_none(count: object) -> None:
    reply = {"choices": [{"message": {"content": "A dog."}}], "usage": {"completion_tokens": count}}
    assert read_reply(json.dumps(reply).encode()) == Generated("A dog.")


@pytest.mark.parametrize(
    ("ending", "ended"),
    [("stop", True), ("eos", True), ("end_turn", True), ("length", False), ("max_tokens", False),
     ("model_context_window_exceeded", False)],
)  # fmt: skip
def test_a_finished_text_ended_or_was_cut(ending: str, ended: bool) -> None:
    reply = {"choices": [{"message": {"content": "A dog."}, "finish_reason": ending}]}
    assert read_reply(json.dumps(reply).encode()) == Generated("A dog.", ended, None)


@pytest.mark.parametrize("ending", ["error", "abort", None, "tool_calls", "unknown", 3, ["stop"], "", "cancelled"])
def test_a_text_that_the_server_did_not_finish_is_asked_for_again(ending: Any) -> None:
    async def unfinished(server: ChatServer, request: web.Request, text: str, times: int) -> web.StreamResponse:
        return server_that.completion("A brown dog runs along a", ending)

    with ChatServer({40: server_that.first(1, unfinished), 60: unfinished}) as server:
        answers = ask(server, [40, 60])
    assert answers[0] == Generated(f"{PROMPT} 40 0", True, 5)
    assert isinstance(answers[1], CaptionFailure) and "did not finish the text" in answers[1].reason
    assert server.asked == {40: 2, 60: 3}


def test_further_fields_go_to_the_server_and_into_the_parameters() -> None:
    thinking = {"chat_template_kwargs": {"enable_thinking": False}}
    knobs: dict[str, Any] = {"extra_body": thinking | {"seed": None}, "token_limit_field": "max_completion_tokens"}
    with ChatServer() as server:
        made = captioner(server, max_tokens=77, **knobs)
        body = json.loads(made._body(picture(20), 7))
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert body["max_completion_tokens"] == 77
    assert not {"max_tokens", "seed"} & body.keys()
    assert made.parameters["token_limit_field"] == "max_completion_tokens"
    assert json.loads(str(made.parameters["extra_body"])) == thinking | {"seed": None}
    assert made._section.knobs()["extra_body"] == thinking | {"seed": None}
    assert not {"extra_body", "token_limit_field"} & Endpoint().knobs().keys()


@pytest.mark.parametrize("name", ["messages", "model", "stream", "n"])
def test_fields_that_sigma_sets_are_no_further_fields(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is not for it"):
        Endpoint.from_mapping({"extra_body": {name: 1}})


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (
            {"message": "Unsupported parameter: 'max_tokens' is not supported", "param": "max_tokens"},
            "token_limit_field",
        ),
        ({"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."}, "token_limit_field"),
        ({"message": "Unrecognized request argument supplied: seed", "param": "seed"}, "extra_body"),
    ],
)
def test_a_field_that_the_server_does_not_take_stops_the_job(error: dict[str, str], advice: str) -> None:
    found = status_error(400, json.dumps({"error": error}).encode())
    assert isinstance(found, CaptionerUnusable) and f"caption.endpoint.{advice}" in str(found)


def test_a_message_about_the_picture_fails_the_picture() -> None:
    for message in ("Invalid image: cannot decode", "The image is too large"):
        error = {"error": {"message": message, "param": "messages[0].content"}}
        assert isinstance(status_error(400, json.dumps(error).encode()), PictureRefused)


def test_a_server_that_asks_for_a_long_wait_is_spoken_of_once(caplog: pytest.LogCaptureFixture) -> None:
    server, busy = Server("http://x/v1"), ServerBusy("the server says 429: slow", 3e7)
    server.failed(time.monotonic(), busy, lambda failures: 300)
    server.failed(0.0, busy, lambda failures: 300)  # sent before, so of the same trouble
    Server("http://y/v1").failed(time.monotonic(), busy, lambda failures: 0.5)
    assert caplog.messages == ["http://x/v1: the server says 429: slow; the next request to it waits for 300 s"]
