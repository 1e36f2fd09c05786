"""What an event is."""
import json


def handler(context, event):
    what = event.fields.get("show")
    if what == "body":
        return {"type": type(event.body).__name__, "body": event.body if not isinstance(event.body, bytes) else event.body.decode("latin-1")}
    if what == "headers":
        return {
            "one": event.headers["X-One-Two"],
            "lower": event.headers["x-one-two"],
            "get": event.headers.get("X-ONE-two"),
            "in": "x-one-TWO" in event.headers,
            "absent": event.headers.get("X-Absent"),
            "get_header": event.get_header("x-one-two"),
            "names": sorted(k for k in event.headers if k.startswith("X-")),
            "content_length": event.headers.get("Content-Length"),
        }
    if what == "json":
        return json.loads(event.to_json())
    return {
        "method": event.method,
        "path": event.path,
        "fields": dict(event.fields),
        "size": event.size,
        "content_type": event.content_type,
        "trigger": [event.trigger.kind, event.trigger.name],
        "url": event.url,
        "shard_id": event.shard_id,
        "num_shards": event.num_shards,
        "offset": event.offset,
        "topic": event.topic,
        "type": event.type,
        "version": event.version,
        "last_in_batch": event.last_in_batch,
        "timestamp": type(event.timestamp).__name__,
        "id": len(event.id),
        "worker": context.worker_id,
        "context_trigger": context.trigger_name,
    }
