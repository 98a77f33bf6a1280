"""The states of a request of an HTTP client."""

from __future__ import annotations

import pytest

from trioxport import Request
from trioxport.frames import Frame
from trioxport.transports.http.client.exchange import PendingRequest, RequestState


@pytest.fixture
def pending() -> PendingRequest:
    request = Request(1, "tools/call")
    return PendingRequest(Frame(b"{}", request), request)


def test_a_request_goes_through_its_states(pending: PendingRequest) -> None:
    steps = (pending.mark_sent, pending.mark_responding, pending.mark_accepted, pending.mark_answered)
    seen = [(pending.state.name, pending.is_sent, pending.is_accepted, pending.is_settled)]
    for step in steps:
        step()
        seen.append((pending.state.name, pending.is_sent, pending.is_accepted, pending.is_settled))
    assert seen == [
        ("QUEUED", False, False, False),
        ("SENT", True, False, False),
        ("RESPONDING", True, False, False),
        ("ACCEPTED", True, True, False),
        ("ANSWERED", True, False, True),
    ]


def test_a_request_that_is_posted_again_never_goes_back(pending: PendingRequest) -> None:
    pending.mark_responding()
    pending.mark_sent()
    assert pending.state is RequestState.RESPONDING
    pending.mark_answered()
    pending.mark_responding()
    pending.cancel()
    assert pending.is_answered


def test_a_queued_request_is_withdrawn(pending: PendingRequest) -> None:
    pending.cancel()
    pending.cancel()
    pending.mark_sent()
    assert pending.state is RequestState.WITHDRAWN
    assert not pending.is_sent
    assert pending.is_settled
    assert pending.scope.cancel_called


def test_a_sent_request_is_cancelled(pending: PendingRequest) -> None:
    pending.mark_sent()
    pending.cancel()
    pending.mark_accepted()
    assert pending.state is RequestState.CANCELLED
    assert pending.is_sent
    assert pending.is_settled
    assert not pending.is_accepted


def test_an_answer_counts_after_a_cancellation(pending: PendingRequest) -> None:
    pending.mark_sent()
    pending.cancel()
    pending.mark_answered()
    assert pending.is_answered


def test_a_resumed_request_was_accepted_before(pending: PendingRequest) -> None:
    pending.mark_sent()
    pending.mark_resumed()
    assert pending.is_accepted
    assert pending.state is RequestState.SENT
