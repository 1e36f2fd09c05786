"""A decorated function is served as it is; a tuple takes the declared names."""
from digitalhub_runtime_python import handler


@handler(outputs=["total", "count"])
def summed(numbers: list, single: bool = False):
    if single:
        return {"total": sum(numbers)}
    return sum(numbers), len(numbers)
