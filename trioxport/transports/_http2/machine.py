"""The state machine of the protocol: ``h2``, with bounds on streams that are the connection's own."""

from __future__ import annotations

from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings

from trioxport.transports._http2.frame_reader import MAX_FRAME_BYTES, PREFACE
from trioxport.transports._http2.header_encoder import HeaderEncoder
from trioxport.transports._http2.settings import Http2Settings

PRUNE_EVERY: Final = 64
"""New streams after which closed ones are removed."""
INITIAL_WINDOW: Final = 65_535


class Http2Machine(H2Connection):
    """The machine of one connection.

    ``h2`` counts its streams for each new one, which takes time in proportion to them, and ends the connection at the
    first too many; the connection counts them itself. Fields are checked by ``header_blocks``.

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
