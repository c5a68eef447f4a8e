"""What a server says that it is busy with."""

from __future__ import annotations

from gradwire_server.observe.activity import Activity
from gradwire_server.observe.events import BytesSent, CallBegun, CallEnded, Request


def test_calls_to_which_clients_gave_one_id_are_told_apart() -> None:
    activity = Activity()
    first, second = (Request("same", "Differentiate", tenant) for tenant in ("alice", "bob"))
    for request in (first, second):
        activity.follow(CallBegun(request=request))
    activity.follow(BytesSent(5, request=first))
    assert [(call.request.tenant, call.sent) for call in activity.calls] == [("alice", 5), ("bob", 0)]
    activity.follow(CallEnded("Differentiate", "OK", 0.1, request=first))
    assert [call.request.tenant for call in activity.calls] == ["bob"]
