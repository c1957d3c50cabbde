"""Paho made faster where a market or a fleet hears thousands of messages a second: its private methods are
replaced, which :mod:`meters.mqtt` does for each connection, and contract tests hold to what paho does.
"""

from __future__ import annotations

from collections.abc import Callable

from paho.mqtt.client import Client as PahoClient
from paho.mqtt.enums import MQTTErrorCode

_READ_BYTES = 65_536


def read_in_large_pieces(paho: PahoClient) -> None:
    """Paho asks the kernel three times for each packet; here it is asked once for many."""
    receive, loop_read = paho._sock_recv, paho.loop_read
    held = bytearray()

    def sock_recv(bufsize: int) -> bytes:
        if not held:
            data = receive(_READ_BYTES)
            if not data:
                return b""
            held.extend(data)
        piece = bytes(held[:bufsize])
        del held[:bufsize]
        return piece

    def read_all(max_packets: int = 1) -> MQTTErrorCode:
        while True:
            code = loop_read(max_packets)
            if code or not held:
                return code

    paho._sock_recv = sock_recv  # type: ignore[method-assign]
    paho.loop_read = read_all  # type: ignore[method-assign]


def decode_publishes(paho: PahoClient, on_message: Callable[[str, bytes, bool, int, int], None]) -> None:
    """Takes a PUBLISH of MQTT 5 apart without an object for each of its properties, which nobody reads."""

    def handle_publish() -> MQTTErrorCode:
        flags, packet = paho._in_packet["command"], paho._in_packet["packet"]
        qos = (flags >> 1) & 3
        at = 2 + int.from_bytes(packet[:2], "big")
        topic, mid = packet[2:at].decode(), 0
        if qos:
            mid = int.from_bytes(packet[at : at + 2], "big")
            at += 2
        properties_bytes, shift = 0, 0
        while True:
            byte = packet[at]
            properties_bytes |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if byte < 128:
                break
        on_message(topic, bytes(packet[at + properties_bytes :]), bool(flags & 1), mid, qos)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    paho._handle_publish = handle_publish  # type: ignore[method-assign]


def look_for_waiting_only_where_some_wait(paho: PahoClient) -> None:
    """At each acknowledgement paho walks over all messages for one that waits to be sent."""
    update = paho._update_inflight

    def update_inflight() -> MQTTErrorCode:
        if len(paho._out_messages) <= paho._inflight_messages:
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        return update()

    paho._update_inflight = update_inflight  # type: ignore[method-assign]
