"""Commented examples of the configuration of ``peergrid meter run``, one for each kind of source."""

from __future__ import annotations

_HEAD = """\
# What `peergrid meter run` needs to know. Paths start where this file is.

# Folder of what must not be lost: what was read and has no receipt yet. Keep it on a disk, not in /tmp.
outbox = "outbox"

[market]                    # ask its operator: `peergrid broker config` and `chain deploy` made these
feeder = "village"          # the market's id, as in the topics
address = "0x0000000000000000000000000000000000000001"   # whose signature receipts and awards carry
chain_id = 1337             # of the meter registry
registry = "0x0000000000000000000000000000000000000002"  # its address
minutes = 15                # length of an interval: 5, 15, 30 or 60

[broker]
host = "localhost"
port = 8883
tls = true                  # false only for a broker on this machine without certificates (port 1883)

# One [[meters]] for each meter, or for many at once: folder = "meters/*" takes every folder with a key, and
# {folder} in the texts of the source is the folder's name.
[[meters]]
folder = "meter-7"          # made by `peergrid meter enroll`: meter.key, tls.crt, tls.key, ca.crt
"""

_HOUSEHOLD = """\
# strategy = "truthful"     # what it orders; without this line as the household says below

[meters.source]
kind = "household"          # simulated: devices on a feeder's year of profiles
feeder_name = "simbench:1-LV-rural1--2-sw"
load = "load:7"
seed = 1                    # which devices it has, and at what prices
fuse_a = 63                 # main fuse, A for each phase: no more is ordered; as its operator has it (fuse_w)

[meters.source.household]   # more of them: the fields of [households] in a scenario
ev_share = 1.0
battery_share = 1.0
"""

_MODBUS = """\
# strategy = "truthful"     # for a device that can be set; without one all energy is firm, at its forecast

[meters.source]
kind = "modbus"
url = "tcp://192.0.2.7:502" # or rtu:///dev/ttyUSB0
profile = "eastron-sdm630"  # `peergrid meter profiles` lists them
# unit = 1                  # the unit id, where it is not the one that the device is delivered with
fuse_a = 63                 # main fuse, A for each phase: what is beyond it is not believed, or ordered
"""

_MQTT = """\
# strategy = "truthful"     # for a device with a relay; without one all energy is firm, at its forecast

[meters.source]
kind = "mqtt"
host = "127.0.0.1"          # the broker at home
port = 1883
# user = "peergrid"         # where it asks; the password stands in a file of mode 600
# password_file = "mqtt.password"
# tls = true                # where it speaks TLS, mostly on port 8883
# ca_file = "home-ca.crt"   # whose certificates it has; without it those that this machine trusts
fuse_a = 63                 # main fuse, A for each phase: what is beyond it is not believed, or ordered
# invert = true             # for a plug in front of a generator

[meters.source.device]
adapter = "tasmota"         # or shelly, dsmr, homeassistant, generic: docs/meters.md
topic = "plug-7"
"""

EXAMPLES = {"household": _HEAD + _HOUSEHOLD, "modbus": _HEAD + _MODBUS, "mqtt": _HEAD + _MQTT}
