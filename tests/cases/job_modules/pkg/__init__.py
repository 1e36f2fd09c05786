from .steps import step  # noqa: F401
