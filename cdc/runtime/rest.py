"""Kafka Connect's REST API, with its bodies, statuses and texts.

The only asynchronous part of the engine, and thin: every handler is a plain function that
starlette runs in a thread, reads its request, asks the worker, and answers.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import quote, unquote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

import cdc
from cdc.errors import CdcError
from cdc.runtime import dlq, rest_offsets, rest_replay, scrape, validation
from cdc.runtime.connector import Refused
from cdc.runtime.worker import Worker

log = logging.getLogger(__name__)

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PHRASES = {404: "Not Found", 405: "Method Not Allowed", 415: "Unsupported Media Type"}
BODY_BYTES_MAX = 4 << 20


@dataclass(frozen=True, slots=True)
class Call:
    """One request: for whom, what, and its parsed body where one is read."""

    worker: Worker
    request: Request
    body: Any = None

    @property
    def name(self) -> str:
        """The connector in the path."""
        return unquote(self.request.path_params["connector"])

    @property
    def number(self) -> int:
        """The task in the path."""
        text = str(self.request.path_params["task"])
        if not text.isdecimal():
            raise HTTPException(404)
        return int(text)

    def flag(self, name: str) -> bool:
        """A boolean of the query, false where it is missing."""
        return self.request.query_params.get(name, "false").lower() == "true"


Handler = Callable[[Call], Response]


def app(worker: Worker) -> Starlette:
    """The application of one worker."""
    by_path: dict[str, dict[str, tuple[Handler, bool]]] = {}
    for method, path, handler, reads_body in ROUTES:
        by_path.setdefault(path, {})[method] = handler, reads_body
    routes = [
        Route(path, _endpoint(worker, handlers), methods=list(handlers))
        for path, handlers in by_path.items()
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(_as_sent)],
        exception_handlers={HTTPException: _http_error, 500: _server_error},
    )


def _as_sent(inner: ASGIApp) -> ASGIApp:
    """Routes see the path as it was sent: a name may hold an encoded slash, as in Connect.

    A slash at its end means nothing, as there.
    """

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["raw_path"].decode("latin-1").rstrip("/") or "/"
        await inner({**scope, "path": path}, receive, send)

    return outer


def _endpoint(
    worker: Worker, handlers: Mapping[str, tuple[Handler, bool]]
) -> Callable[[Request], Awaitable[Response]]:
    """``handlers`` of one path, by method; of each whether it reads a body."""

    async def endpoint(request: Request) -> Response:
        began = time.monotonic()
        handler, reads_body = handlers["GET" if request.method == "HEAD" else request.method]
        try:
            body = await _body(request) if reads_body else None
            response = await run_in_threadpool(handler, Call(worker, request, body))
        except Refused as error:
            response = _error(error.status, error.message)
        except (CdcError, OSError) as error:  # a damaged file, a full disk: no bug
            log.warning("%s %s: %s", request.method, request.url.path, error)
            response = _error(500, str(error))
        took_ms = (time.monotonic() - began) * 1e3
        status = response.status_code
        log.debug("%s %s %d %.0f ms", request.method, request.url.path, status, took_ms)
        return response

    return endpoint


async def _body(request: Request) -> Any:
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip()
    if kind.lower() != "application/json":
        raise HTTPException(415)
    raw = b""
    async for piece in request.stream():
        raw += piece
        if len(raw) > BODY_BYTES_MAX:
            raise Refused(413, f"The body is longer than {BODY_BYTES_MAX} bytes")
    try:
        # A number that is no integer stays the text that was sent, as Connect's coercion has it.
        return json.loads(raw, parse_float=str, parse_constant=_no_json)
    except RecursionError:
        raise Refused(500, "The body is not JSON: nested too deeply") from None
    except ValueError as error:
        raise Refused(500, f"The body is not JSON: {error}") from None


def _no_json(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error_code": status, "message": message}, status, headers)


async def _http_error(request: Request, error: Exception) -> Response:  # noqa: ARG001
    assert isinstance(error, HTTPException)
    status = error.status_code
    return _error(status, f"HTTP {status} {PHRASES.get(status, error.detail)}", error.headers)


async def _server_error(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return _error(500, str(error) or type(error).__name__)


def _map(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise Refused(500, "Cannot deserialize the body: an object is expected")
    return body


# --- the worker


def _root(call: Call) -> Response:
    return JSONResponse(
        {"version": cdc.__version__, "commit": "", "kafka_cluster_id": call.worker.cluster_id}
    )


def _health(call: Call) -> Response:
    if call.worker.is_healthy():
        text = "Worker has completed startup and is ready to handle requests."
        return JSONResponse({"status": "healthy", "message": text})
    text = (
        "Worker was unable to handle this request and may be unable to handle other requests."
        " Its supervisor does not answer."
    )
    return JSONResponse({"status": "unhealthy", "message": text}, 500)


def _metrics(call: Call) -> Response:
    return PlainTextResponse(scrape.text(call.worker), media_type=METRICS_TYPE)


# --- connectors


def _list(call: Call) -> Response:
    expand = call.request.query_params.getlist("expand")
    if not expand:
        return JSONResponse(call.worker.names())
    parts: dict[str, Callable[[str], Any]] = {
        "status": call.worker.status,
        "info": call.worker.info,
        "metrics": lambda name: scrape.of(call.worker, name),  # ours; Connect ignores it
    }
    out: dict[str, Any] = {}
    with call.worker.lock:
        for name in call.worker.names():
            out[name] = {part: parts[part](name) for part in expand if part in parts}
    return JSONResponse(out)


def _create(call: Call) -> Response:
    body = _map(call.body)
    unknown = set(body) - {"name", "config", "initial_state"}
    if unknown:
        raise Refused(500, f'Unrecognized field "{min(unknown)}", not marked as ignorable')
    texts = validation.texts({n: body[n] for n in ("name", "initial_state") if body.get(n)})
    config = _map(body.get("config") or {})
    info = call.worker.create(texts.get("name", "").strip(), config, texts.get("initial_state"))
    return _created(call.request, info)


def _created(request: Request, info: dict[str, Any]) -> Response:
    base = str(request.base_url).rstrip("/")
    location = f"{base}/connectors/{quote(info['name'], safe='')}"
    return JSONResponse(info, 201, headers={"Location": location})


def _info(call: Call) -> Response:
    return JSONResponse(call.worker.info(call.name))


def _delete(call: Call) -> Response:
    call.worker.delete(call.name, dropped=call.flag("dropped"))
    return Response(status_code=204)


def _config(call: Call) -> Response:
    return JSONResponse(call.worker.info(call.name)["config"])


def _put_config(call: Call) -> Response:
    new, info = call.worker.configure(call.name, _map(call.body))
    return _created(call.request, info) if new else JSONResponse(info)


def _patch_config(call: Call) -> Response:
    return JSONResponse(call.worker.patch(call.name, _map(call.body)))


def _status(call: Call) -> Response:
    return JSONResponse(call.worker.status(call.name))


def _pause(call: Call) -> Response:
    call.worker.set_target(call.name, "PAUSED")
    return Response(status_code=202)


def _resume(call: Call) -> Response:
    call.worker.set_target(call.name, "STARTED")
    return Response(status_code=202)


def _stop(call: Call) -> Response:
    call.worker.set_target(call.name, "STOPPED", "Connector {} not found")
    return Response(status_code=204)


def _restart(call: Call) -> Response:
    include_tasks, only_failed = call.flag("includeTasks"), call.flag("onlyFailed")
    status = call.worker.restart(call.name, include_tasks=include_tasks, only_failed=only_failed)
    if include_tasks or only_failed:
        return JSONResponse(status, 202)
    return Response(status_code=204)


def _topics(call: Call) -> Response:
    name = call.name
    with call.worker.lock:
        topics = sorted(call.worker.connector(name).task.topics)
    return JSONResponse({name: {"topics": topics}})


def _reset_topics(call: Call) -> Response:
    with call.worker.lock:
        task = call.worker.connector(call.name).task
        task.topics.clear()
        if task.process is not None:
            task.process.tell({"c": "forget"})
    return Response(status_code=202)


# --- tasks


def _tasks(call: Call) -> Response:
    return JSONResponse(call.worker.task_configs(call.name))


def _task_status(call: Call) -> Response:
    with call.worker.lock:
        task = call.worker.task(call.name, call.number, "No status found for task {}")
        return JSONResponse(task.status(call.worker.worker_id))


def _restart_task(call: Call) -> Response:
    call.worker.restart_task(call.name, call.number)
    return Response(status_code=204)


def _replay(call: Call) -> Response:
    return JSONResponse(*rest_replay.answer(call.worker, call.name, call.body))


def _dlq(call: Call) -> Response:
    return JSONResponse(dlq.answer(call.worker, call.name, call.body))


# --- offsets


def _offsets(call: Call) -> Response:
    return JSONResponse(rest_offsets.show(call.worker, call.name))


def _alter_offsets(call: Call) -> Response:
    return JSONResponse(rest_offsets.alter(call.worker, call.name, call.body))


def _reset_offsets(call: Call) -> Response:
    return JSONResponse(rest_offsets.reset(call.worker, call.name))


_C = "/connectors/{connector}"
ROUTES: tuple[tuple[str, str, Handler, bool], ...] = (
    ("GET", "/", _root, False),
    ("GET", "/health", _health, False),
    ("GET", "/metrics", _metrics, False),
    ("GET", "/connectors", _list, False),
    ("POST", "/connectors", _create, True),
    ("GET", _C, _info, False),
    ("DELETE", _C, _delete, False),
    ("GET", f"{_C}/config", _config, False),
    ("PUT", f"{_C}/config", _put_config, True),
    ("PATCH", f"{_C}/config", _patch_config, True),
    ("GET", f"{_C}/status", _status, False),
    ("PUT", f"{_C}/pause", _pause, False),
    ("PUT", f"{_C}/resume", _resume, False),
    ("PUT", f"{_C}/stop", _stop, False),
    ("POST", f"{_C}/restart", _restart, False),
    ("GET", f"{_C}/topics", _topics, False),
    ("PUT", f"{_C}/topics/reset", _reset_topics, False),
    ("GET", f"{_C}/tasks", _tasks, False),
    ("GET", f"{_C}/tasks/{{task}}/status", _task_status, False),
    ("POST", f"{_C}/tasks/{{task}}/restart", _restart_task, False),
    ("POST", f"{_C}/replay", _replay, True),
    ("POST", f"{_C}/dlq", _dlq, True),
    ("GET", f"{_C}/offsets", _offsets, False),
    ("PATCH", f"{_C}/offsets", _alter_offsets, True),
    ("DELETE", f"{_C}/offsets", _reset_offsets, False),
)
