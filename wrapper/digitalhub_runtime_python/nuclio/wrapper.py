"""The file that `NUCLIO_PYTHON_WRAPPER_PATH` names; the processor runs it as a script."""

import sys

if __name__ == "__main__":
    # Python puts a script's own folder first on the path: a user's `import events` would find ours.
    sys.path.pop(0)
    from digitalhub_runtime_python.nuclio import guard

    guard.start()
    from digitalhub_runtime_python.imports import load_msgspec, without

    load_msgspec()
    with without("http.client"):  # for handlers that call other functions
        from digitalhub_runtime_python.nuclio.worker import main

    sys.exit(main(sys.argv[1:]))
