"""The relay's Luma paths, in the shape and field order of its documented answer: submit, query, batch query, link without watermark.

Fields that cannot exist yet are absent. Misbehaviour of single ids strikes here; who may ask is checked in `routes.py`.
"""

from __future__ import annotations

import math

from tracker.simulator import files
from tracker.simulator.clock import rfc3339
from tracker.simulator.messages import BadRequestError, Reply, Request
from tracker.simulator.misbehaviour import Scope, not_found, relay_error
from tracker.simulator.script import Fault, Script, Wish
from tracker.simulator.world import World

# What Go prints for a time that was never set; the provider leaves the artifact's creation time so.
_ZERO_TIME = "0001-01-01T00:00:00Z"

_MOST_TEXT = 10_000  # characters of a prompt, as a bound on memory
_LINK_LIVES = 3600.0  # seconds; the relay's own signed links say X-Amz-Expires=3600

_ENVELOPE_STATES = {"pending": "QUEUED", "processing": "IN_PROGRESS", "completed": "SUCCESS", "failed": "FAILURE"}


def submit(world: World, request: Request) -> Reply:
    """`POST /luma/generations`; `simulate` names a misbehaviour, with its strength, as an id's prefix does."""
    fields = request.fields()
    prompt = fields.get("user_prompt") or fields.get("prompt")
    if not isinstance(prompt, str) or len(prompt) > _MOST_TEXT:
        raise BadRequestError("user_prompt is required: a text of at most 10,000 characters")
    drawn = world.drawn(Scope.LIFE, Scope.FILE)
    wish = Wish(
        prompt=prompt,
        aspect_ratio=str(fields.get("aspect_ratio") or Wish().aspect_ratio),
        misbehaviour=str(fields.get("simulate") or (drawn.name if drawn else "")),
    )
    return Reply.json(generation(world, world.lives.submit(wish), request.origin))


def query(world: World, request: Request) -> Reply:
    """`GET /luma/generations/{id}`."""
    task_id = request.path.removeprefix("/luma/generations/")
    script, fault = _asked(world, task_id)
    if script is None:
        return not_found(world.conditions.not_found)
    good = Reply.json(generation(world, script, request.origin))
    return good if fault is None else world.spoilt(fault.kind, good, fault.seconds)


def batch(world: World, request: Request) -> Reply:
    """`POST /luma/tasks`: ids that are unknown, or misbehave at this moment, are missing from the answer."""
    shape = world.conditions.batch
    asked = request.fields().get("ids")
    if shape == "none":
        return unknown_path(request)
    if not isinstance(asked, list) or not all(isinstance(task_id, str) for task_id in asked):
        raise BadRequestError("ids must be a list of task ids")
    found = [_asked(world, task_id) for task_id in asked]
    good = [script for script, fault in found if script is not None and fault is None]
    if shape == "envelope":
        reply = Reply.json(
            {"code": "success", "message": "", "data": [_enveloped(world, script, request.origin) for script in good]}
        )
    else:
        reply = Reply.json([generation(world, script, request.origin) for script in good])
    struck = next((fault for _, fault in found if fault is not None), None) if world.conditions.spoil_batch else None
    return reply if struck is None else world.spoilt(struck.kind, reply, struck.seconds)


def download_link(world: World, request: Request) -> Reply:
    """`GET /luma/generations/{id}/download_video_url`: a signed link without watermark, good for an hour."""
    script = world.lives.find(request.path.removeprefix("/luma/generations/").removesuffix("/download_video_url"))
    if script is None:
        return not_found(world.conditions.not_found)
    if script.state(world.clock.now()) != "completed":
        return relay_error("invalid_request", 400, "the generation is not completed")
    return Reply.json({"url": files.link(request.origin, script, "video.mp4", world.clock.now() + _LINK_LIVES)})


def unknown_path(request: Request) -> Reply:
    message = f"Invalid URL ({request.method} {request.path})"
    return Reply.json({"error": {"message": message, "type": "invalid_request_error", "param": "", "code": ""}}, 404)


def generation(world: World, script: Script, origin: str) -> dict[str, object]:
    """The generation as the relay prints it at this moment."""
    now = world.clock.now()
    state = script.state(now)
    found: dict[str, object] = {"id": script.task_id, "state": state}
    if state == "failed":
        found |= _failure(world, script)
    request = {"prompt": world.lives.prompt(script.task_id), "aspect_ratio": script.birth.aspect_ratio}
    created_at = rfc3339(script.birth.start)
    if state != "completed" or _hides_links(script, now):
        return found | {"request": request, "created_at": created_at}
    made = _outputs(script, origin, now)
    artifact: dict[str, object] = {key: made[key] for key in ("video", "thumbnail", "video_raw")}
    artifact |= {"created_at": _ZERO_TIME, "last_frame": made["last_frame"]}
    return found | {
        "video": made["video"],
        "request": request,
        "artifact": artifact,
        "thumbnail": made["thumbnail"],
        "video_raw": made["video_raw"],
        "created_at": created_at,
        "last_frame": made["last_frame"],
    }


def _outputs(script: Script, origin: str, now: float) -> dict[str, dict[str, object]]:
    expires = now + script.fault.seconds if script.fault and script.has("expire") else None
    size: dict[str, object] = {"width": files.WIDTH, "height": files.HEIGHT}
    video, raw, thumbnail, last_frame = (files.link(origin, script, name, expires) for name in files.NAMES)
    return {
        "video": {"url": video, **size, "download_url": "" if script.has("nodownload") else video},
        "thumbnail": {"url": thumbnail, **size, "palette": {"grid": files.palette()}, "media_type": "image"},
        "video_raw": {"url": raw, **size, "duration": files.DURATION, "media_type": "video"},
        "last_frame": {"url": last_frame, **size, "palette": None, "media_type": "image"},
    }


def _failure(world: World, script: Script) -> dict[str, object]:
    """The reason, in the field that this generation's misbehaviour chooses."""
    reason = world.lives.reason(script)
    name = script.fault.kind.name if script.fault else ""
    if name == "mute":
        return {}
    if name == "errormessage":
        return {"error": {"message": reason}}
    return {{"failreason": "fail_reason", "statereason": "state_reason"}.get(name, "failure_reason"): reason}


def _hides_links(script: Script, now: float) -> bool:
    fault = script.fault
    return fault is not None and script.has("nourl") and (fault.always or now < script.ends_at + fault.seconds)


def _asked(world: World, task_id: str) -> tuple[Script | None, Fault | None]:
    """Note the question; the generation, and its own misbehaviour if that hits this answer."""
    now = world.clock.now()
    before = world.stats.asked(task_id, now)
    script = world.lives.find(task_id)
    if script is None or script.fault is None or script.fault.kind.scope is not Scope.ANSWER:
        return script, None
    return script, script.fault if script.fault.strikes(before, now - script.birth.start) else None


def _enveloped(world: World, script: Script, origin: str) -> dict[str, object]:
    """The other batch shape seen at relays: their own task record around a short form of the provider's."""
    now = world.clock.now()
    inner = generation(world, script, origin)
    begins, ends = script.birth.start + script.birth.queue, script.ends_at
    return {
        "task_id": script.task_id,
        "platform": "luma",
        "action": "generations",
        "status": _ENVELOPE_STATES.get(str(inner["state"]), "UNKNOWN"),
        "fail_reason": world.lives.reason(script) if inner["state"] == "failed" else "",
        "submit_time": int(script.birth.start),
        "start_time": int(begins) if now >= begins else 0,
        "finish_time": int(ends) if script.over(now) else 0,
        "progress": "100%" if script.over(now) else "0%",
        "data": {
            "id": script.task_id,
            "state": inner["state"],
            "video": inner.get("video"),
            "estimate_wait_seconds": max(0, math.ceil(ends - now)),
        },
    }
