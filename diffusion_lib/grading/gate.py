"""Calls through the pipe: the student's objects as the checker sees them (`Remote`), and who answers for them (`Server`).

The checker asks for a variable, calls it, iterates over it. Arguments go by value: functions and library objects pickled, so that the student's
code may differentiate through them. Results come back as plain values, or as another `Remote`. No gradient flows through the gate, and what a
function does to its arguments in place stays on its side; the state of a torch.Generator alone is brought back.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import torch

from diffusion_lib.grading.wire import WireError, pack, unpack

TEXT = 2000  # characters of an error that are kept


class Stopped(BaseException):
    """The student's process is no more; the message says why. No judge that catches exceptions goes on after it."""


class Server:
    """Answers requests on the student's objects; runs in the student's process.

    names: the student's variables
    """

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names
        self.kept: list[Any] = []

    def answer(self, request: dict, buffers: list[bytes]) -> tuple[dict, list[bytes]]:
        """The reply to one request; whatever the student's code raises becomes part of it."""
        try:
            generators: list[torch.Generator] = []
            result = self._do(request, buffers, generators)
            out: list[bytes] = []
            reply = {"value": pack(result, out, self._keep), "generators": [pack(g.get_state(), out, self._keep) for g in generators]}
            return reply, out
        except StopIteration:
            return {"stop": True}, []
        except BaseException as problem:  # SystemExit too: the student's code may raise anything
            try:
                text = str(problem)[:TEXT]
            except BaseException:
                text = ""
            return {"error": type(problem).__name__[:100], "text": text}, []

    def _do(self, request: dict, buffers: list[bytes], generators: list[torch.Generator]) -> Any:
        def read(value: dict, raw: list[bytes]) -> Any:
            if value["$"] == "handle":
                return self.kept[value["v"]]
            if value["$"] == "generator":
                generators.append(torch.Generator())
                generators[-1].set_state(unpack(value["v"], raw, read))
                return generators[-1]
            import cloudpickle

            return cloudpickle.loads(raw[value["at"]])

        do, arguments = request["do"], unpack(request["arguments"], buffers, read)
        if do == "names":
            return [name for name in arguments if name in self.names]
        if do == "variable":
            return self.names[arguments]
        thing, *rest = arguments
        if do == "call":
            return thing(*rest[0], **rest[1])
        if do == "attribute":
            return getattr(thing, rest[0])
        if do == "item":
            return thing[rest[0]]
        return {"iter": iter, "next": next, "len": len}[do](thing)

    def _keep(self, value: Any, buffers: list[bytes]) -> dict:
        self.kept.append(value)
        return {"$": "remote", "v": len(self.kept) - 1, "name": str(getattr(value, "__name__", type(value).__name__))[:80], "callable": callable(value)}


class StandIn:
    """In the student's process: a function of an earlier task that is answered on the other side.

    talk: sends (request, buffers) and returns the reply
    """

    def __init__(self, name: str, talk: Callable[[dict, list[bytes]], tuple[dict, list[bytes]]]) -> None:
        self.__name__, self._talk = name, talk

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        buffers: list[bytes] = []
        reply, raw = self._talk({"callback": self.__name__, "arguments": pack([list(args), kwargs], buffers, _plain_only)}, buffers)
        if "error" in reply:
            raise _error(str(reply["error"]), str(reply.get("text", "")))
        return unpack(reply["value"], raw, _plain_only)


def _plain_only(value: Any, buffers: list[bytes]) -> Any:
    raise WireError("only numbers, tensors and lists of them can be handed to an earlier task's answer here.")


class Client:
    """What the checker holds of the student: ask it for variables.

    exchange: sends (request, buffers) to a `Server` and returns its reply
    """

    def __init__(self, exchange: Callable[[dict, list[bytes]], tuple[dict, list[bytes]]]) -> None:
        self._exchange = exchange

    def defined(self, names: list[str]) -> list[str]:
        """Those of ``names`` that the student's notebook has defined."""
        found = self.ask("names", sorted(names))
        return [name for name in found if isinstance(name, str) and name in names] if isinstance(found, list) else []

    def variable(self, name: str) -> Any:
        """The value of one of the student's variables: plain, or a `Remote`."""
        return self.ask("variable", name)

    def ask(self, do: str, arguments: Any) -> Any:
        """One request. Errors: what the student's code raised, under its own name where Python has such an exception."""
        buffers: list[bytes] = []
        generators: list[torch.Generator] = []
        request = {"do": do, "arguments": pack(arguments, buffers, lambda value, raw: _by_value(value, raw, generators))}
        reply, raw = self._exchange(request, buffers)
        if not isinstance(reply, dict):
            raise WireError("a message that makes no sense was received.")
        if reply.get("stop"):
            raise StopIteration
        if "error" in reply:
            raise _error(str(reply["error"]), str(reply.get("text", ""))[:TEXT])
        for generator, state in zip(generators, reply.get("generators") or [], strict=False):
            generator.set_state(unpack(state, raw, self._remote))
        return unpack(reply.get("value"), raw, self._remote)

    def _remote(self, value: dict, buffers: list[bytes]) -> Any:
        if value.get("$") != "remote" or not isinstance(value.get("v"), int):
            raise WireError("a message that makes no sense was received.")
        return (_RemoteFunction if value.get("callable") else Remote)(self, value["v"], str(value.get("name", "object")))


class Remote:
    """An object in the student's process: its items, attributes and iteration, each by a request."""

    def __init__(self, client: Client, number: int, name: str) -> None:
        self._client, self._number, self.__name__ = client, number, name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # copying, pickling and torch look for such names
            raise AttributeError(name)
        return self._client.ask("attribute", [self, name])

    def __getitem__(self, key: Any) -> Any:
        return self._client.ask("item", [self, key])

    def __len__(self) -> int:
        return int(self._client.ask("len", [self]))

    def __iter__(self) -> Any:
        return self._client.ask("iter", [self])

    def __next__(self) -> Any:
        return self._client.ask("next", [self])

    def __repr__(self) -> str:
        return f"<the student's {self.__name__}>"


class _RemoteFunction(Remote):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._client.ask("call", [self, list(args), kwargs])


def _by_value(value: Any, buffers: list[bytes], generators: list[torch.Generator]) -> dict:
    if isinstance(value, Remote):
        return {"$": "handle", "v": value._number}
    if isinstance(value, torch.Generator):
        generators.append(value)
        return {"$": "generator", "v": pack(value.get_state(), buffers, _by_value)}
    import cloudpickle

    buffers.append(cloudpickle.dumps(value))
    return {"$": "pickle", "at": len(buffers) - 1}


def _error(name: str, text: str) -> Exception:
    known = getattr(builtins, name, None)
    if isinstance(known, type) and issubclass(known, Exception) and not issubclass(known, (StopIteration, UnicodeError)):
        return known(text)
    if name == "OpenAnswer":
        return NotImplementedError(text)
    return type(name if name.isidentifier() else "Error", (RuntimeError,), {})(text)


def local(names: dict[str, Any]) -> Client:
    """A gate without a process, for authors and tests: everything is packed and unpacked as in earnest."""
    return Client(Server(names).answer)
