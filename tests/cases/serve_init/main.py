"""init prepares the context, and the handler finds what it has set."""


def load(context, name: str, size: int = 1):
    context.model = {"name": name, "size": size}
    context.user_data.calls = 0
    context.logger.info_with("loaded", name=name)


def handler(context, event):
    context.user_data.calls += 1
    context.logger.info("a call")
    first = context.user_data.calls == 1
    return {"model": context.model, "calls": context.user_data.calls > 0, "first": first and None, "log": context.trigger.kind}
