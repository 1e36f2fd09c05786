calls = []


def init(context, size: int, name="model"):
    calls.append("init")
    context.model = [name] * size


def with_defaults(ctx, size=2):
    ctx.model = ["default"] * size


def only_keywords(*, size=4):
    calls.append(size)


async def async_init(context):
    context.model = "async"


def failing(context):
    raise RuntimeError("no model today")


def run(context):
    return context.model


def how_often():
    return calls


def exact(context, n):
    raise AssertionError("never called")
