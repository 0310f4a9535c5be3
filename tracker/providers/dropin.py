"""The tracker in a provider's place: at which paths its clients ask, and what they are told where no answer of the provider's is stored.

What is said here is in the provider's own shapes, as its own module reads them: tests/providers/test_dropin.py holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DropIn:
    """`paths` hold `{task_id}`, or the query does, as `id` or `task_id`; the rest is not looked at. Relays' paths are at the root.

    `waiting` is the answer about a task that is registered and was not answered yet; `missing` and `refused` come with their status.
    """

    paths: tuple[str, ...]
    waiting: Callable[[str], Body]
    missing: tuple[int, Body]
    refused: tuple[int, Body]


_RELAY_MISSING = (400, {"code": "task_not_exist", "message": "task_not_exist", "data": None})
_RELAY_REFUSED = (401, {"error": {"message": "Invalid token", "type": "new_api_error", "code": ""}})


def _relayed(*paths: str, waiting: Callable[[str], Body]) -> DropIn:
    return DropIn(paths, waiting, _RELAY_MISSING, _RELAY_REFUSED)


def _record(task_id: str, **more: object) -> Body:
    told = {
        "task_id": task_id,
        "status": "NOT_START",
        "fail_reason": "",
        "submit_time": 0,
        "start_time": 0,
        "finish_time": 0,
    }
    return {"code": "success", "message": "", "data": {**told, "progress": "0%", **more}}


def _kling(task_id: str) -> Body:
    task = {"task_id": task_id, "task_status": "submitted", "task_status_msg": ""}
    return {"code": 0, "message": "SUCCEED", "request_id": "", "data": task}


def _runway(task_id: str) -> Body:
    return {"id": task_id, "status": "PENDING"}


def _midjourney(task_id: str) -> Body:
    return {"id": task_id, "status": "NOT_START", "progress": "", "failReason": None, "imageUrl": None}


DROP_INS: dict[str, DropIn] = {
    "luma": _relayed("/luma/generations/{task_id}", waiting=lambda task_id: {"id": task_id, "state": "pending"}),
    "luma-official": DropIn(
        ("/luma-official/dream-machine/v1/generations/{task_id}",),
        lambda task_id: {"id": task_id, "state": "queued"},
        (404, {"detail": "Generation not found"}),
        (401, {"detail": "Invalid API key provided"}),
    ),
    "kling": _relayed("/kling/v1/videos/{kind}/{task_id}", "/kling/v1/images/{kind}/{task_id}", waiting=_kling),
    "kling-official": DropIn(
        ("/kling-official/v1/videos/{kind}/{task_id}", "/kling-official/v1/images/{kind}/{task_id}"),
        _kling,
        (404, {"code": 1203, "message": "resource not found", "request_id": ""}),
        (401, {"code": 1000, "message": "authentication failed", "request_id": ""}),
    ),
    "runway": _relayed("/runwayml/v1/tasks/{task_id}", waiting=_runway),
    "runway-official": DropIn(
        ("/runway-official/v1/tasks/{task_id}",),
        _runway,
        (404, {"error": "Task not found"}),
        (401, {"error": "The API key is not valid"}),
    ),
    "suno": _relayed("/suno/fetch/{task_id}", waiting=lambda task_id: _record(task_id, action="MUSIC", data=[])),
    "midjourney": DropIn(
        ("/mj/task/{task_id}/fetch",),
        _midjourney,
        (400, {"description": "task_no_found ", "type": "upstream_error", "code": 4}),
        (401, {"description": "Invalid token", "type": "new_api_error", "code": 4}),
    ),
    "newapi": _relayed("/newapi/v1/video/generations/{task_id}", waiting=lambda task_id: _record(task_id, data=None)),
    "yunwu": _relayed("/yunwu/v1/video/query", waiting=lambda task_id: {"id": task_id, "status": "pending"}),
    "minimax": DropIn(
        ("/minimax/v1/query/video_generation",),  # the second form waits in another shape, and is not served
        lambda task_id: {
            "task_id": task_id,
            "status": "Queueing",
            "base_resp": {"status_code": 0, "status_msg": "success"},
        },
        (404, {"base_resp": {"status_code": 404, "status_msg": "task not found"}}),
        (401, {"base_resp": {"status_code": 1004, "status_msg": "login fail"}}),
    ),
    "vidu": DropIn(
        ("/vidu/ent/v2/tasks/{task_id}/creations",),
        lambda task_id: {"id": task_id, "state": "created", "err_code": "", "creations": []},
        (404, {"code": 404, "message": "task not found"}),
        (401, {"code": 401, "message": "invalid token"}),
    ),
    "ark": DropIn(
        ("/ark/api/v3/contents/generations/tasks/{task_id}",),
        lambda task_id: {"id": task_id, "status": "queued"},
        (404, {"error": {"code": "ResourceNotFound", "message": "the specified task is not found"}}),
        (401, {"error": {"code": "AuthenticationError", "message": "the API key is not valid"}}),
    ),
    "openai": DropIn(
        ("/openai/v1/videos/{task_id}",),
        lambda task_id: {"id": task_id, "object": "video", "status": "queued", "progress": 0, "error": None},
        (404, {"error": {"message": "Video not found.", "type": "invalid_request_error", "param": None, "code": None}}),
        (
            401,
            {
                "error": {
                    "message": "Incorrect API key provided.",
                    "type": "invalid_request_error",
                    "code": "invalid_api_key",
                }
            },
        ),
    ),
    "veo": DropIn(
        ("/veo/v1beta/{task_id:path}",),
        lambda task_id: {"name": task_id, "done": False},
        (404, {"error": {"code": 404, "message": "Requested entity was not found.", "status": "NOT_FOUND"}}),
        (401, {"error": {"code": 401, "message": "The API key is not valid.", "status": "UNAUTHENTICATED"}}),
    ),
}
