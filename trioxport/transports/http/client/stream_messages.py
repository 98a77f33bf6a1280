"""Messages on the responses and streams of a server: their decoding, and whether each of them may be there.

Nothing here waits. Specification 2026-07-28, basic/transports/streamable-http; 2025-11-25, basic/transports.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from trioxport.abc import Scope
from trioxport.errors import DecodeError, ProtocolViolation
from trioxport.frames import Frame
from trioxport.framing.base import Oversized
from trioxport.framing.sse import Event
from trioxport.messages import ErrorResponse, Message, Request, Response
from trioxport.metadata import Metadata
from trioxport.transports._http_heads import ResponseHead
from trioxport.transports.byte_stream import frame_of
from trioxport.transports.http.client.exchange import PendingRequest
from trioxport.transports.http.client.session import ClientSession


def messages_of(scope: Scope, events: Sequence[Event | Oversized]) -> Iterator[Frame]:
    """The messages in the events of a stream; a frame with an error for each event that holds none."""
    for event in events:
        if isinstance(event, Oversized):
            yield frame_of(event)
        elif event.event == "message" and event.data:
            try:
                yield Frame(event.data, scope.settings.codec.decode(event.data))
            except (DecodeError, ProtocolViolation) as error:
                yield Frame(event.data, error=error)


@attrs.frozen
class StreamMessages:
    """The messages of one connection's streams, as frames for the application.

    Args:
        scope: The connection's scope; messages that are out of place are discarded to it.
        session: The connection's state, which learns from answers.
    """

    scope: Scope
    session: ClientSession

    def of_request(
        self, pending: PendingRequest, head: ResponseHead, events: Sequence[Event | Oversized]
    ) -> list[Frame]:
        """The frames of events on the stream of a request."""
        frames: list[Frame | None] = []
        for frame in messages_of(self.scope, events):
            if frame.message is None:
                frames.append(self._unusable(pending, frame))
            else:
                frames.append(self.of_message(pending, head, frame.payload, frame.message))
        return [frame for frame in frames if frame is not None]

    def of_server(self, events: Sequence[Event | Oversized]) -> list[Frame]:
        """The frames of events on the server's own stream, which belongs to no request and carries no answers."""
        frames: list[Frame] = []
        for frame in messages_of(self.scope, events):
            if frame.error is not None:
                self.scope.discard(frame.error)
            elif isinstance(frame.message, Response | ErrorResponse):
                self.scope.discard(ProtocolViolation("an answer on the server's own stream, which is for no request"))
            else:
                frames.append(frame)
        return frames

    def of_message(self, pending: PendingRequest, head: ResponseHead, payload: bytes, message: Message) -> Frame | None:
        """The frame of a message in the response to a request; None if it may not be there."""
        if isinstance(message, ErrorResponse) and message.id is None:
            payload, message = self._with_id(pending, payload, message)
        if isinstance(message, Request) and self.session.era != "legacy":
            self.scope.discard(ProtocolViolation(f"a request by the server ({message.method}) on a modern stream"))
            return None
        if not isinstance(message, Response | ErrorResponse):
            related = Metadata(related_request=pending.request.id)
            return Frame(payload, attrs.evolve(message, metadata={**message.metadata, **related}))
        if pending.resumed:
            payload, message = self._with_id(pending, payload, message)
        if message.id != pending.request.id:
            self.scope.discard(ProtocolViolation("an answer to another request than the one that its stream is for"))
            return None
        return self._answer(pending, head, payload, message)

    def as_answer(self, pending: PendingRequest, payload: bytes, error: ErrorResponse) -> Frame:
        """The frame of an error as the answer to a request, whatever its id."""
        payload, message = self._with_id(pending, payload, error)
        return Frame(payload, message)

    def _with_id(
        self, pending: PendingRequest, payload: bytes, answer: Response | ErrorResponse
    ) -> tuple[bytes, Response | ErrorResponse]:
        """An answer under the id of a request, and its payload."""
        if answer.id == pending.request.id:
            return payload, answer
        answer = attrs.evolve(answer, id=pending.request.id)
        return self.scope.settings.codec.encode(answer), answer

    def _answer(
        self, pending: PendingRequest, head: ResponseHead, payload: bytes, message: Response | ErrorResponse
    ) -> Frame:
        """The frame of an answer. The session learns from the first one; a server's further ones are only passed on."""
        if isinstance(message, ErrorResponse) and not pending.is_answered:
            self.session.note_refusal(pending.request, head.status_code, message.code)
        elif isinstance(message, Response) and not pending.is_answered:
            seen = self.session.note_answer(pending.request, message, head)
            if seen is not message:
                payload, message = self.scope.settings.codec.encode(seen), seen
        pending.mark_answered()
        return Frame(payload, message)

    def _unusable(self, pending: PendingRequest, frame: Frame) -> Frame | None:
        """The failure of this request if ``frame`` was its answer; anything else that cannot be read is discarded."""
        assert frame.error is not None
        if pending.is_answered or self.scope.settings.codec.identify(frame.payload) != pending.request.id:
            self.scope.discard(frame.error)
            return None
        pending.mark_answered()
        return attrs.evolve(frame, message=pending.request)
