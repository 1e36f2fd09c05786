"""An async function, with arguments and the event; init opens something on the loop that it uses."""
import asyncio


async def init(context, start: int = 0):
    context.user_data.lock = asyncio.Lock()
    context.user_data.loop = asyncio.get_running_loop()
    context.user_data.count = start


async def handler(context, event, wait: float = 0):
    assert context.user_data.loop is asyncio.get_running_loop()
    async with context.user_data.lock:
        context.user_data.count += 1
        count = context.user_data.count
    await asyncio.sleep(wait)
    if event.path == "/raise":
        raise ValueError("no")
    if event.path == "/cancelled":
        raise asyncio.CancelledError
    if event.path == "/exit":
        raise SystemExit(3)
    return {"path": event.path, "counted": count > 100}
