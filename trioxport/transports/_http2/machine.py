"""The state machine of the protocol: ``h2``, with bounds on streams that are the connection's own."""

from __future__ import annotations

from typing import Final

from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.settings import SettingCodes, Settings
from h2.stream import StreamInputs, StreamState

from trioxport.transports._http2.frame_reader import END_STREAM, MAX_FRAME_BYTES, PREFACE, FrameType, RawFrame
from trioxport.transports._http2.header_encoder import HeaderEncoder
from trioxport.transports._http2.settings import Http2Settings

PRUNE_EVERY: Final = 64
"""New streams after which closed ones are removed."""
INITIAL_WINDOW: Final = 65_535

_OPEN: Final = (ConnectionState.CLIENT_OPEN, ConnectionState.SERVER_OPEN)
_SENDING: Final = (StreamState.OPEN, StreamState.HALF_CLOSED_REMOTE)
_RECEIVING: Final = (StreamState.OPEN, StreamState.HALF_CLOSED_LOCAL)


class Http2Machine(H2Connection):
    """The machine of one connection.

    ``h2`` counts its streams for each new one, which takes time in proportion to them, and ends the connection at the
    first too many; the connection counts them itself. Fields are checked by ``header_blocks``. Frames of data change
    little: they have a short way here.

    Args:
        settings: The settings of this side.
        is_client: Whether this side is the client.
    """

    MAX_CLOSED_STREAMS = 4096

    def __init__(self, settings: Http2Settings, *, is_client: bool) -> None:
        super().__init__(
            H2Configuration(
                client_side=is_client,
                header_encoding=None,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self._new_streams = 0
        values = {
            SettingCodes.ENABLE_PUSH: 0,
            SettingCodes.MAX_CONCURRENT_STREAMS: settings.max_concurrent_streams,
            SettingCodes.INITIAL_WINDOW_SIZE: settings.stream_window,
            SettingCodes.MAX_FRAME_SIZE: MAX_FRAME_BYTES,
            SettingCodes.MAX_HEADER_LIST_SIZE: settings.max_headers,
        }
        self.local_settings = Settings(client=is_client, initial_values=values)
        self.encoder = HeaderEncoder()
        self.decoder.max_header_list_size = settings.max_headers
        self.max_inbound_frame_size = MAX_FRAME_BYTES
        self.initiate_connection()
        if settings.connection_window > INITIAL_WINDOW:
            self.increment_flow_control_window(settings.connection_window - INITIAL_WINDOW)
        if not is_client:
            self.receive_data(PREFACE)

    def method_of(self, stream_id: int) -> bytes:
        """The method of a request of this side."""
        return self.streams[stream_id].request_method or b""

    @property
    def open_inbound_streams(self) -> int:
        if self._is_time_to_prune():
            _ = super().open_inbound_streams
        return 0

    @property
    def open_outbound_streams(self) -> int:
        if self._is_time_to_prune():
            _ = super().open_outbound_streams
        return 0

    def _is_time_to_prune(self) -> bool:
        self._new_streams += 1
        return self._new_streams % PRUNE_EVERY == 0

    def note_data(self, stream_id: int, size: int, *, end_stream: bool = False) -> bool:
        """Note data that is sent, for which the peer's windows have room.

        Returns False if the state of the stream allows none; ``send_data`` raises the reason.
        """
        stream = self.streams.get(stream_id)
        if stream is None or stream.state_machine.state not in _SENDING or self.state_machine.state not in _OPEN:
            return False
        stream.outbound_flow_control_window -= size
        self.outbound_flow_control_window -= size
        if end_stream:
            stream.state_machine.process_input(StreamInputs.SEND_END_STREAM)
        return True

    def data_of(self, frame: RawFrame, left: int | None) -> bytes | None:
        """The data of a frame, taken from the windows; None if ``receive_data`` has to take the frame.

        It has to take what has padding, breaks a rule, or is a part, but not the rest, of a body of a known length.

        Args:
            frame: The frame.
            left: Bytes of the body that are announced and have not come yet; None if unknown.
        """
        size = len(frame.payload)
        stream = self.streams.get(frame.stream_id)
        if frame.type != FrameType.DATA or frame.flags not in (0, END_STREAM) or stream is None:
            return None
        if left is not None and not (frame.flags and size == left):
            return None
        machine = stream.state_machine
        if machine.state not in _RECEIVING or not machine.headers_received or self.state_machine.state not in _OPEN:
            return None
        window = stream._inbound_window_manager  # pyright: ignore[reportPrivateUsage] # no public way
        whole = self._inbound_flow_control_window_manager
        if size > window.current_window_size or size > whole.current_window_size:
            return None
        window.window_consumed(size)
        whole.window_consumed(size)
        if frame.flags:
            machine.process_input(StreamInputs.RECV_END_STREAM)
        return frame.payload
