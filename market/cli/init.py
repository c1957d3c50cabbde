"""``peergrid init``: a configuration to begin with."""

from __future__ import annotations

import json
from pathlib import Path

import click

from grid.errors import InputError
from market.cli.messages import say

_TEMPLATE = """\
# A local energy market. Run it:   peergrid run {file}
# See how it stands:               peergrid status {file}
# Everything that a restart needs is in this folder, beside this file.
folder = "market"
# A process that has not been heard of for so long (real seconds) is replaced by one that waits.
lease_s = 15.0

{broker}
# The operator's console, on this machine alone. Actions need a token: the command
# `peergrid console --tokens tokens.json --grant ann=operator` makes one. For others to reach it, give host,
# tokens, and tls_cert with tls_key or behind_proxy = true.
[console]
port = 8440
# tokens = "tokens.json"

# Alarms go to operators by webhook, by e-mail, or both; the files are of mode 600.
# [alerts.webhook]
# url_file = "webhook.url"
# key_file = "webhook.key"
# [alerts.email]
# host = "mail.example"
# port = 587
# security = "starttls"
# user = "market"
# password_file = "mail.password"
# sender = "market@grid.example"
# recipients = ["operations@grid.example"]

[[markets]]
# The market's id in topics, and its feeder (`peergrid feeder list`).
name = "{name}"
feeder = {feeder}
{own}# An interval's length: 5, 15, 30 or 60 minutes.
minutes = 15
# Seconds before an interval's start at which orders end, and from then to the clearing's deadline.
gate_closure_s = 300
clearing_s = 120
# Seconds after an interval's end for which readings are waited; what comes later is posted as an adjustment.
metering_s = 180
# How far ahead of the market's clock a reading may be.
clock_skew_s = 60
# How long after its end an interval may be disputed.
dispute_window_s = 1209600
# How often a batch goes on the chain: interval, hour or day.
settle_every = "hour"
# A PostgreSQL database instead of a file (pip install 'peergrid[postgres]'):
# database = "postgresql+psycopg://peergrid@localhost/peergrid"

# µEUR/kWh: 300000 is 0.30 EUR/kWh. Energy from the neighbours pays local_fee for the network; import_fees is
# the part of import_price that is for network and levies, before VAT. Statements show what a price is made of
# where it says so, to the µEUR:
#   import_parts = {{ energy = 152101, network = 80000, levies = 20000, vat = 47899 }}
# and likewise export_parts and local_parts. Later changes, prices by time of use: peergrid operate tariff.
[markets.tariff]
import_price = 300000
export_price = 80000
floor = -500000
cap = 2000000
local_fee = 20000
import_fees = 100000

# Tighter than the net's own, where that is wanted.
[markets.limits]
# v_min_pu = 0.95
# v_max_pu = 1.05
# max_loading_percent = 90.0
# security_margin_percent = 2.0    # for what meters do beside their awards; of loadings and of voltage bands

{parties}"""
_TRIAL = {
    "broker": """\
# Without a host the market brings a broker along, for this machine alone. For meters elsewhere:
# `peergrid broker config --feeder {name} --out broker` writes one with TLS and client certificates.
[broker]
# host = "broker.example"
# port = 8883
# tls = "broker"
""",
    "own": "",
    "parties": """\
# For trials: simulated households with play money on a chain of the market's own. What a real market has
# instead: peergrid init {feeder} --real
[markets.simulation]
seed = 1
""",
}
_REAL = {
    "broker": """\
# `peergrid broker config --feeder {name} --out broker --host broker.example` writes the broker's folder.
[broker]
host = "broker.example"
port = 8883
tls = "broker"
""",
    "own": """\
# What the market signs with, and those with whom it begins: {columns}.
# `peergrid chain key market.key` makes the key; the meters' ids are what `peergrid meter enroll` prints.
key = "market.key"
members = {members}
""",
    "parties": """\
# `peergrid chain deploy` writes the deployment. A batch is final when the node says that its block is, or
# after so many confirmations, where there are some. With registry_salt, which is made with the broker's
# folder, members are compared with the chain's registry of meters.
[markets.chain]
rpc = "http://127.0.0.1:8545"
deployment = "deployment.json"
settler_key = "settler.key"
confirmations = 0
registry_salt = "broker/authority/salt"

# The wallets that hold the market's own accounts. Retailer and network have to have credit, as households.
[markets.treasuries]
retailer = "0x…"
network = "0x…"
imbalance = "0x…"
rounding = "0x…"
""",
}


@click.command("init")
@click.argument("feeder")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("market.toml"))
@click.option("--real", is_flag=True, help="With chain, keys, members and broker, for you to fill in.")
def command(feeder: str, out: Path, real: bool) -> None:
    """Write a commented configuration for a market on FEEDER, ready to be run with simulated households.

    With --real it names what a market of real households has instead; the operations guide tells
    how to make that.
    """
    from grid.catalogue import open_feeder
    from market.cli.feeder_import import MEMBERS
    from market.cli.service_config import MEMBER_COLUMNS
    from market.cli.settings import slug

    base = out.resolve().parent
    open_feeder(feeder, base)
    listed = Path(feeder) / MEMBERS
    words = {
        "file": out.name,
        "name": slug(feeder),
        "feeder": json.dumps(feeder),
        "columns": ",".join(MEMBER_COLUMNS),
        "members": json.dumps(str(listed) if (base / listed).exists() else MEMBERS),
    }
    sections = {name: part.format(**words) for name, part in (_REAL if real else _TRIAL).items()}
    text = _TEMPLATE.format(**words, **sections)
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError.single("--out", "", str(out), "exists already") from None
    except OSError as error:
        raise InputError.single("--out", "", str(out), f"cannot be written: {error.strerror}") from None
    begins = "fill in what is yours, then" if real else "with simulated households,"
    say(f"{begins} peergrid run {out} begins it")
    click.echo(str(out))
