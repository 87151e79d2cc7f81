"""The official Python library: events, batches, queries, users, and signatures."""

import base64
import hashlib
import json

import pusher
import pytest
from nacl.secret import SecretBox
from pusher.errors import PusherBadAuth, PusherBadRequest, PusherBadStatus

from conftest import ENCRYPTION_KEY


def test_trigger_reaches_a_subscriber_with_unchanged_text(sender, socket, unique):
    channel = unique("news")
    reader = socket()
    reader.subscribe(channel)
    assert sender.trigger(channel, "my-event", {"hello": "Zoë 🎉"}) == {}
    assert reader.next() == {"event": "my-event", "channel": channel, "data": '{"hello": "Zoë 🎉"}'}
    assert sender.trigger(channel, "my-event", "plain text") == {}
    assert reader.next() == {"event": "my-event", "channel": channel, "data": "plain text"}


def test_trigger_reaches_many_channels_of_every_kind(sender, socket, unique):
    channels = [unique(kind) for kind in ("open", "private-closed", "presence-room", "private-cache-score", "presence-cache-score", "cache-score")]
    reader = socket()
    for channel in channels:
        reader.subscribe(channel, {"user_id": "ana"} if channel.startswith("presence-") else None)
        if "cache-" in channel:
            assert reader.next() == {"event": "pusher:cache_miss", "channel": channel, "data": "{}"}
    sender.trigger(channels, "e", {"n": 1})
    frames = [reader.next() for _ in channels]
    assert sorted(frame["channel"] for frame in frames) == sorted(channels)
    assert {(frame["event"], frame["data"]) for frame in frames} == {("e", '{"n": 1}')}


def test_socket_id_excludes_one_socket(sender, socket, unique):
    channel = unique("chat")
    author, reader = socket(), socket()
    author.subscribe(channel)
    reader.subscribe(channel)
    sender.trigger(channel, "said", {}, author.id)
    sender.trigger(channel, "marker", {})
    assert author.next()["event"] == "marker"
    assert [reader.next()["event"], reader.next()["event"]] == ["said", "marker"]


def test_data_over_ten_kilobytes_is_rejected(sender, socket, unique):
    channel = unique("large")
    reader = socket()
    reader.subscribe(channel)
    with pytest.raises(PusherBadStatus, match="^413"):
        sender.trigger(channel, "large", "x" * 10_241)
    sender.trigger(channel, "fits", "x" * 10_240)
    frame = reader.next()
    assert (frame["event"], len(frame["data"])) == ("fits", 10_240)


def test_a_batch_without_info_returns_an_empty_object(sender, socket, unique):
    first, second = unique("a"), unique("b")
    reader = socket()
    reader.subscribe(first)
    reader.subscribe(second)
    reply = sender.trigger_batch([
        {"channel": first, "name": "one", "data": {"n": 1}},
        {"channel": second, "name": "two", "data": "text"},
        {"channel": first, "name": "hidden", "data": {}, "socket_id": reader.id},
        {"channel": first, "name": "three", "data": {"n": 3}},
    ])
    assert reply == {}
    assert [(frame["channel"], frame["event"]) for frame in (reader.next(), reader.next(), reader.next())] == [
        (first, "one"),
        (second, "two"),
        (first, "three"),
    ]


def test_a_batch_with_info_returns_one_entry_per_event(sender, socket, unique):
    presence, other = unique("presence-room"), unique("open")
    reader = socket()
    reader.subscribe(presence, {"user_id": "ana"})
    reply = sender.trigger_batch([
        {"channel": presence, "name": "e", "data": {}, "info": "user_count,subscription_count"},
        {"channel": other, "name": "e", "data": {}},
        {"channel": other, "name": "e", "data": {}, "info": "subscription_count"},
    ])
    assert reply == {"batch": [{"user_count": 1, "subscription_count": 1}, {}, {"subscription_count": 0}]}


def test_a_batch_of_eleven_is_rejected(sender, unique):
    with pytest.raises(PusherBadRequest):
        sender.trigger_batch([{"channel": unique("a"), "name": "e", "data": {}} for _ in range(11)])


def test_channels_info_lists_occupied_channels_by_prefix(sender, socket, unique):
    tag = unique("listed")
    presence, other = f"presence-{tag}", f"private-{tag}"
    reader, tab = socket(), socket()
    for each in (reader, tab):
        each.subscribe(presence, {"user_id": "ana"})
    reader.subscribe(other)
    assert sender.channels_info(f"presence-{tag}", ["user_count"]) == {"channels": {presence: {"user_count": 1}}}
    assert sender.channels_info(f"private-{tag}") == {"channels": {other: {}}}
    assert sender.channels_info(unique("none")) == {"channels": {}}
    listed = sender.channels_info()["channels"]
    assert presence in listed and other in listed
    with pytest.raises(PusherBadRequest):
        sender.channels_info(None, ["user_count"])


def test_channel_info_returns_counts_and_the_cached_event(sender, socket, unique):
    presence, cache = unique("presence-room"), unique("cache-score")
    assert sender.channel_info(presence)["occupied"] is False
    readers = [socket(), socket(), socket()]
    for reader, user in zip(readers, ("ana", "bo", "bo")):
        reader.subscribe(presence, {"user_id": user})
    assert sender.channel_info(presence, ["user_count", "subscription_count"]) == {
        "occupied": True,
        "user_count": 2,
        "subscription_count": 3,
    }
    with pytest.raises(PusherBadRequest):
        sender.channel_info(cache, ["user_count"])

    sender.trigger(cache, "goal", "1:0")
    cached = sender.channel_info(cache, ["cache"])["cache"]
    assert cached["data"] == "1:0"
    assert 1_700 < cached["ttl"] <= 1_800


def test_users_info_lists_string_ids(sender, socket, unique):
    presence = unique("presence-room")
    assert sender.users_info(presence) == {"users": []}
    for user in ("1", "2", "2"):
        socket().subscribe(presence, {"user_id": user})
    assert sorted(user["id"] for user in sender.users_info(presence)["users"]) == ["1", "2"]
    with pytest.raises(PusherBadRequest):
        sender.users_info(unique("open"))


def test_send_to_user_reaches_only_the_sockets_of_the_user(sender, socket, unique):
    ana, bo = unique("ana"), unique("bo")
    tabs, other = [socket(), socket()], socket()
    for tab in tabs:
        tab.sign_in({"id": ana})
    other.sign_in({"id": bo})
    assert sender.send_to_user(ana, "message", {"n": 1}) == {}
    for tab in tabs:
        assert tab.next() == {"event": "message", "channel": f"#server-to-user-{ana}", "data": '{"n": 1}'}
    sender.send_to_user(bo, "marker", {})
    assert other.next()["event"] == "marker"


def test_terminating_a_user_closes_the_sockets_with_4009(server, sender, socket, unique):
    ana = unique("ana")
    tab, other = socket(), socket()
    tab.sign_in({"id": ana})
    other.sign_in({"id": unique("bo")})
    sender.terminate_user_connections(ana)
    assert tab.closed() == 4009
    other.send("pusher:ping", {})
    assert other.next()["event"] == "pusher:pong"


def test_authenticate_agrees_with_the_published_vectors(server, socket, unique):
    vectors = pusher.Pusher(app_id="3", key="278d425bdf160c739803", secret="7ad3773142a6692b25b8", encryption_master_key_base64=ENCRYPTION_KEY)
    assert vectors.authenticate("private-foobar", "1234.1234") == {
        "auth": "278d425bdf160c739803:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"
    }
    encrypted = vectors.authenticate("private-encrypted-foobar", "1234.1234")
    assert encrypted == {
        "auth": "278d425bdf160c739803:e6a18892d037c5d5e76a2265df4f086ffc38631605530dfd214aa5bff495f533",
        "shared_secret": b"g3Au6SZ+UCU+IMfFsFva0rq+Gi4tzSHR6WCcWZbS9sY=",
    }


def test_signatures_of_the_library_cover_its_json_encoding(sender, socket, unique):
    """Python writes spaces in JSON and escapes non-ASCII characters; the signature covers these bytes."""
    presence = unique("presence-room")
    member = {"user_id": 10, "user_info": {"name": "Zoë", "tags": [1, 2]}}
    assert socket().subscribe(presence, member) == {"presence": {"count": 1, "ids": ["10"], "hash": {"10": member["user_info"]}}}

    user = {"id": unique("ana"), "user_info": {"name": "Zoë"}}
    assert socket().sign_in(user) == json.dumps(user)


def test_changed_or_foreign_signatures_are_rejected(sender, socket, unique):
    channel = unique("private-closed")
    reader = socket()
    auth = sender.authenticate(channel, "1.1")["auth"]
    reader.send("pusher:subscribe", {"channel": channel, "auth": auth})
    replies = [reader.next(), reader.next()]
    assert sorted(reply["event"] for reply in replies) == ["pusher:error", "pusher:subscription_error"]
    error = next(reply for reply in replies if reply["event"] == "pusher:error")
    assert error["data"]["code"] == 4009

    reader.send("pusher:signin", sender.authenticate_user("1.1", {"id": "ana"}))
    reply = reader.next()
    assert (reply["event"], reply["data"]["code"]) == ("pusher:error", 4009)


def test_encrypted_events_arrive_unchanged(sender, socket, unique):
    channel = unique("private-encrypted-vault")
    reader = socket()
    reader.subscribe(channel)
    sender.trigger(channel, "secret", {"code": 42})
    payload = json.loads(reader.next()["data"])
    key = hashlib.sha256(channel.encode() + base64.b64decode(ENCRYPTION_KEY)).digest()
    opened = SecretBox(key).decrypt(base64.b64decode(payload["ciphertext"]), base64.b64decode(payload["nonce"]))
    assert json.loads(opened) == {"code": 42}


def test_wrong_credentials_are_rejected(server, unique):
    for options in ({"secret": "wrong"}, {"key": "unknown"}):
        with pytest.raises(PusherBadAuth):
            server.sender(**options).trigger(unique("c"), "e", {})
        with pytest.raises(PusherBadAuth):
            server.sender(**options).channels_info()
    with pytest.raises(PusherBadStatus, match="^404"):
        server.sender(app_id="999999").trigger(unique("c"), "e", {})
