import sys

COSTLY = [
    "asyncio", "boto3", "click", "cloudpickle", "digitalhub", "msgspec", "nuclio_sdk", "numpy",
    "obstore", "pandas", "pyarrow", "pydantic", "requests",
]  # fmt: skip


def loaded(a, b=2):
    return [name for name in COSTLY if name in sys.modules]


def loaded_with_context(context):
    return [name for name in COSTLY if name in sys.modules]


def loaded_with_file(rows):
    return [name for name in COSTLY if name in sys.modules]
