"""Runs functions of LocalStack as processes of this machine: for `provided` runtimes, whose `bootstrap` is a program.

LocalStack starts a container for each function; without a container engine it can be told to use another executor, named by
`LAMBDA_RUNTIME_EXECUTOR`. This one is called `process`. It serves the runtime API (2018-06-01) on a port of loopback for each
environment: the program asks for its next invocation, and answers it.
"""

import json
import os
import queue
import subprocess
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from plux import Plugin

START_SECONDS = 20
STOP_SECONDS = 3


class ProcessExecutorPlugin(Plugin):
    """What LocalStack finds by the entry point of this distribution."""

    namespace = "localstack.lambda.runtime_executor"
    name = "process"

    def load(self, *args, **kwargs):
        return executor_class()


class RuntimeApi(BaseHTTPRequestHandler):
    """The calls that a function's process makes."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        if not self.path.endswith("/runtime/invocation/next"):
            return self.answer(404)
        environment = self.server.environment
        environment.asked.set()
        invocation = environment.waiting.get()
        if invocation is None:
            self.close_connection = True
            return self.answer(410)
        deadline = int((time.time() + environment.timeout) * 1000)
        return self.answer(
            200,
            invocation["payload"].encode(),
            {
                "Content-Type": "application/json",
                "Lambda-Runtime-Aws-Request-Id": invocation["invoke-id"],
                "Lambda-Runtime-Deadline-Ms": str(deadline),
                "Lambda-Runtime-Invoked-Function-Arn": invocation["invoked-function-arn"],
                "Lambda-Runtime-Trace-Id": invocation["trace-id"],
            },
        )

    def do_POST(self):
        body = self.read_body()
        environment = self.server.environment
        *_, invocation, said = self.path.split("/")
        if self.path.endswith("/runtime/init/error"):
            environment.init_error = body
            environment.asked.set()
        elif said in ("response", "error"):
            environment.said(invocation, body, is_error=said == "error")
        return self.answer(202, b'{"status":"OK"}')

    def answer(self, status, body=b"", headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def read_body(self):
        if "chunked" not in (self.headers.get("Transfer-Encoding") or "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)


class Environment:
    """One process of a function, and the API that it talks to."""

    def __init__(self, program, variables, timeout, log_path):
        self.timeout = timeout
        self.log_path = log_path
        self.asked = threading.Event()
        self.init_error = None
        self.waiting = queue.Queue()
        self.running = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), RuntimeApi)
        self.server.daemon_threads = True
        self.server.environment = self
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        folder = os.path.dirname(program)
        variables = {name: str(value) for name, value in variables.items()} | {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self.server.server_port}",
            "LAMBDA_TASK_ROOT": folder,
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": tempfile.gettempdir(),
        }
        with open(log_path, "wb") as log:
            self.process = subprocess.Popen(
                [program], cwd=folder, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait_until_asked(self):
        end = time.time() + START_SECONDS
        while not self.asked.wait(0.05):
            if self.process.poll() is not None:
                raise RuntimeError(f"bootstrap ended with {self.process.returncode}: {self.logs()[-2000:]}")
            if time.time() > end:
                raise RuntimeError(f"bootstrap asked for no invocation within {START_SECONDS} s: {self.logs()[-2000:]}")
        if self.init_error:
            raise RuntimeError(f"bootstrap failed to start: {self.init_error[:2000]!r}")

    def invoke(self, invocation):
        """What the process said, and whether it is an error."""
        name = invocation["invoke-id"]
        answer = self.running[name] = queue.Queue()
        self.waiting.put(invocation)
        end = time.time() + self.timeout
        try:
            while True:
                try:
                    return answer.get(timeout=0.05)
                except queue.Empty:
                    pass
                if self.process.poll() is not None:
                    return failure("Runtime.ExitError", f"the process ended with {self.process.returncode}")
                if time.time() > end:
                    self.process.kill()
                    return failure("Sandbox.Timedout", f"the invocation took longer than {self.timeout} s")
        finally:
            del self.running[name]

    def said(self, invocation, body, is_error):
        answer = self.running.get(invocation)
        if answer is not None:
            answer.put((body, is_error))

    def logs(self):
        with open(self.log_path, errors="replace") as log:
            return log.read()

    def end(self):
        self.waiting.put(None)
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.server.shutdown()
        self.server.server_close()


def failure(kind, message):
    return json.dumps({"errorType": kind, "errorMessage": message}).encode(), True


def executor_class():
    """The executor in LocalStack's terms; its modules are imported only once it runs."""
    from localstack import config
    from localstack.services.lambda_.invocation.lambda_models import InvocationResult
    from localstack.services.lambda_.invocation.runtime_executor import RuntimeExecutor

    class ProcessExecutor(RuntimeExecutor):
        environment = None

        def start(self, env_vars):
            settings = self.function_version.config
            program = os.path.join(str(settings.code.get_unzipped_code_location()), "bootstrap")
            name = f"function-{self.function_version.id.function_name}-{self.id}.log"
            log_path = os.path.join(tempfile.gettempdir(), name)
            self.environment = Environment(program, env_vars, int(settings.timeout), log_path)
            self.environment.wait_until_asked()

        def stop(self):
            if self.environment is not None:
                self.environment.end()

        def invoke(self, payload):
            before = os.path.getsize(self.environment.log_path)
            body, is_error = self.environment.invoke(payload)
            with open(self.environment.log_path, "rb") as log:
                log.seek(before)
                logs = log.read().decode(errors="replace")
            return InvocationResult(payload["invoke-id"], body, is_error=is_error, logs=logs)

        def get_logs(self):
            return self.environment.logs() if self.environment else ""

        def get_address(self):
            return "127.0.0.1"

        def get_endpoint_from_executor(self):
            return "127.0.0.1"

        def get_runtime_endpoint(self):
            return f"http://127.0.0.1:{config.GATEWAY_LISTEN[0].port}/_localstack_lambda/{self.id}"

        @classmethod
        def prepare_version(cls, function_version):
            if function_version.config.code:
                function_version.config.code.prepare_for_execution()

        @classmethod
        def cleanup_version(cls, function_version):
            pass

        @classmethod
        def validate_environment(cls):
            return True

    return ProcessExecutor
