"""What is put off at an import is the real thing for whoever uses it later."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest


def run(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_service_starts_without_what_it_seldom_uses_and_gets_it_later() -> None:
    run(
        """
        import sys
        from digitalhub_runtime_python.serve import command
        command._import_engine()
        for name in ("http.client", "logging.config", "email.parser"):
            assert name not in sys.modules, name
        import http
        import nuclio_sdk
        assert http.client.HTTPConnection.__module__ == "http.client"
        try:
            http.nothing
        except AttributeError as exc:
            assert "'http' has no attribute 'nothing'" in str(exc)
        """
    )


@pytest.mark.skipif(sys.version_info < (3, 11), reason="typing has too little of its own")
def test_msgspec_does_without_typing_extensions_which_is_there_for_others() -> None:
    run(
        """
        import sys
        from digitalhub_runtime_python.imports import load_msgspec
        load_msgspec()
        assert "typing_extensions" not in sys.modules
        import msgspec, typing_extensions
        class A(typing_extensions.TypedDict):
            a: typing_extensions.Required[int]
            b: typing_extensions.NotRequired[str]
        assert msgspec.convert({"a": 1}, A) == {"a": 1}
        try:
            msgspec.convert({"b": "x"}, A)
        except msgspec.ValidationError as exc:
            assert "missing required field `a`" in str(exc)
        else:
            raise AssertionError("a is required")
        """
    )


def test_the_platform_of_a_context_imports_no_http_before_it_calls_somebody() -> None:
    run(
        """
        import sys
        from digitalhub_runtime_python.imports import without
        with without("http.client"):
            import nuclio_sdk
        from digitalhub_runtime_python import context
        from digitalhub_runtime_python.nuclio import functions
        context.make_context(lambda: None, lambda: None)
        options = {"platform-kind": "local", "namespace": "n", "worker-id": "0"}
        platform = functions.make_context(options, None, None).platform
        assert "http.client" not in sys.modules
        import http.client
        connection = platform._connection_provider("127.0.0.1:1", timeout=3)
        assert isinstance(connection, http.client.HTTPConnection) and connection.timeout == 3
        """
    )


def test_a_handler_may_call_another_function_although_http_was_put_off() -> None:
    run(
        """
        import http.server, threading
        HTTPServer, Handler = http.server.HTTPServer, http.server.BaseHTTPRequestHandler
        import sys
        for name in ("http.client", "http.server"):
            sys.modules.pop(name, None)
        del http.client, http.server
        from digitalhub_runtime_python.imports import without
        with without("http.client"):
            import nuclio_sdk
        assert "http.client" not in sys.modules

        class Answer(Handler):
            def do_POST(self):
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

        server = HTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        platform = nuclio_sdk.Platform("local")
        platform._get_function_url = lambda *_: f"127.0.0.1:{server.server_address[1]}"
        event = nuclio_sdk.Event(body="x", method="POST", path="/", content_type="text/plain", headers={})
        assert platform.call_function("other", event).body == b"ok"
        """
    )


def test_what_is_there_already_is_not_put_off() -> None:
    run(
        """
        import http.client
        from digitalhub_runtime_python.imports import without
        with without("http.client", "colorsys"):
            import http.client as again, colorsys
            assert again.HTTPConnection.__module__ == "http.client"
            from colorsys import rgb_to_hls
        import gc
        assert gc.isenabled()
        assert rgb_to_hls(1, 1, 1)[1] == 1  # called: then it is imported
        import colorsys
        assert colorsys.__file__
        """
    )
