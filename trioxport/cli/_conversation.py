"""The interactive part of ``trioxport connect``."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator

import trio

from trioxport import ConnectionLost, TransportError
from trioxport._core.nursery import open_bare_nursery
from trioxport.cli._line_completion import SessionCompleter
from trioxport.cli._prompt import LinePrompt
from trioxport.cli._questions import Questions
from trioxport.cli._requests import Caller, Patience
from trioxport.cli._shell import Shell
from trioxport.cli._status import Status
from trioxport.cli.connecting import open_session
from trioxport.cli.options import ConnectionOptions
from trioxport.messages import Notification
from trioxport.peer import Client
from trioxport.protocol import JSONRPCError, members_of


async def converse(target: str, options: ConnectionOptions, status: Status, as_json: bool) -> int:
    """Read and run lines until the user leaves; return the exit code. Raises the loss of the connection."""
    patience = Patience(options.timeout)
    ask = _LateAsk()
    questions = Questions(patience, status, ask, shows_logs=True)
    async with open_session(target, options, questions.handlers(), status.note) as client:
        caller = Caller(client, patience, status, wants_logs=True)
        shell = Shell(caller, options.timeout, as_json=as_json)
        completer = SessionCompleter(shell.names)
        name = str(client.server.server_info.get("name") or "mcp")
        ask.prompt = prompt = LinePrompt(name, completer, status)
        status.note(f"{name}, {client.server.protocol_version}. Type help for help, Ctrl-D to leave.")
        await _Conversation(caller, shell, prompt, completer, status).run()
    return 0


class _LateAsk:
    """Asks at a prompt that is made after the connection."""

    prompt: LinePrompt | None = None

    async def __call__(self, question: str) -> str:
        if self.prompt is None:
            raise EOFError
        return await self.prompt.ask(question)


class _Conversation:
    """The tasks of a conversation: the prompt, the signals, the changes that the server tells of, and its end."""

    def __init__(
        self, caller: Caller, shell: Shell, prompt: LinePrompt, completer: SessionCompleter, status: Status
    ) -> None:
        self._caller = caller
        self._shell = shell
        self._prompt = prompt
        self._completer = completer
        self._status = status
        self._loss: TransportError | None = None

    async def run(self) -> None:
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            async with open_bare_nursery() as tasks:
                tasks.start_soon(self._cancel_at, signals)
                tasks.start_soon(self._watch_end, tasks.cancel_scope)
                tasks.start_soon(self._watch_changes)
                await self._read_and_run()
                tasks.cancel_scope.cancel()
        if self._loss is not None:
            raise self._loss

    async def _read_and_run(self) -> None:
        await self._caller.enable_logs()
        while not self._shell.has_ended:
            try:
                line = await self._prompt.read()
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            await self._shell.run(line)

    async def _cancel_at(self, signals: AsyncIterator[int]) -> None:
        async for _ in signals:
            self._shell.cancel()

    async def _watch_end(self, scope: trio.CancelScope) -> None:
        """End the conversation with the connection."""
        peer = self._caller.client.peer
        try:
            await peer.wait_finished(0)
        except TransportError as error:
            self._loss = error
        else:
            self._loss = ConnectionLost("the server has ended the conversation", target=peer.target)
        scope.cancel()

    async def _watch_changes(self) -> None:
        """Show the changes that the server tells of; keep the completion up to date."""
        await self._completer.load(self._caller)
        client = self._caller.client
        tools, prompts, resources = (_announces(client, name) for name in ("tools", "prompts", "resources"))
        if not (tools or prompts or resources):
            return
        try:
            async with client.subscribe(tools=tools, prompts=prompts, resources=resources) as subscription:
                async for notification in subscription:
                    self._status.note(_shown(notification))
                    self._caller.tools = None
                    await self._completer.load(self._caller)
        except (TransportError, JSONRPCError) as error:
            self._status.note(f"changes of the server are not shown: {error}")


def _announces(client: Client, capability: str) -> bool:
    """Whether the server announces changes of a list."""
    return members_of(client.server.capabilities.get(capability)).get("listChanged") is True


def _shown(notification: Notification) -> str:
    uri = members_of(notification.params).get("uri")
    name = notification.method.removeprefix("notifications/")
    return f"[{name}]" if uri is None else f"[{name} {uri}]"
