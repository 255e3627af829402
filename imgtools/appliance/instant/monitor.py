"""Save a running machine's devices through qemu's monitor (QMP, docs/interop/qmp-spec.txt)."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

from imgtools.errors import ApplianceError

_WAIT = 60.0


class Monitor:
    """A QMP connection to the qemu that listens on ``path``."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_WAIT)
        try:
            self._socket.connect(str(path))
            self._lines = self._socket.makefile("rb")
            self._lines.readline()  # the greeting
            self.ask("qmp_capabilities")
        except OSError as error:
            self._socket.close()
            raise ApplianceError(f"qemu's monitor does not answer: {error}") from error

    def ask(self, command: str, **arguments: Any) -> Any:
        """Run one command and return its result.  Raises ApplianceError."""
        message = json.dumps({"execute": command, "arguments": arguments})
        try:
            self._socket.sendall(message.encode() + b"\n")
            while True:
                answer = json.loads(self._lines.readline())
                if "return" in answer:
                    return answer["return"]
                if "error" in answer:
                    raise ApplianceError(f"qemu refuses {command}: {answer['error']['desc']}")
        except (OSError, ValueError) as error:
            raise ApplianceError(f"qemu's monitor broke off in {command}: {error}") from error

    def save_devices(self, path: Path) -> None:
        """Write the state of everything but the memory to ``path``; the machine stays stopped.

        The memory is in a shared file, which the capability leaves out of the stream.  The machine
        must not be stopped beforehand: the stream carries its run state, and it would stay stopped
        when resumed.  Raises ApplianceError.
        """
        capability = {"capability": "x-ignore-shared", "state": True}
        self.ask("migrate-set-capabilities", capabilities=[capability])
        with path.open("wb") as stream:
            self._send_descriptor("state", stream.fileno())
        self.ask("migrate", uri="fd:state")
        deadline = time.monotonic() + _WAIT
        while (status := self.ask("query-migrate").get("status")) != "completed":
            if status in ("failed", "cancelled") or time.monotonic() > deadline:
                raise ApplianceError(f"qemu could not save the machine ({status})")
            time.sleep(0.05)

    def _send_descriptor(self, name: str, descriptor: int) -> None:
        message = json.dumps({"execute": "getfd", "arguments": {"fdname": name}}).encode() + b"\n"
        socket.send_fds(self._socket, [message], [descriptor])
        while "return" not in (answer := json.loads(self._lines.readline())):
            if "error" in answer:
                raise ApplianceError(f"qemu refuses getfd: {answer['error']['desc']}")

    def quit(self) -> None:
        """End qemu."""
        self.ask("quit")
        self.close()

    def close(self) -> None:
        """Close the connection.  Idempotent."""
        self._lines.close()
        self._socket.close()
