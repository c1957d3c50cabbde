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

# Without a host the market brings a broker along, for this machine alone. For meters elsewhere:
# `peergrid broker config --feeder {name} --out broker` writes one with TLS and client certificates.
[broker]
# host = "broker.example"
# port = 8883
# tls = "broker"

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
# An interval's length: 5, 15, 30 or 60 minutes.
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

# For trials: simulated households with play money on a chain of the market's own. A real market has, instead
# of this section:
#   key = "market.key"            what it signs with, mode 600
#   members = "members.csv"       {columns}
#   [markets.chain]               rpc, deployment (`peergrid chain deploy`), settler_key, confirmations,
#                                 registry_salt (authority/salt of `peergrid broker config`)
#   [markets.treasuries]          addresses of retailer, network, imbalance and rounding
[markets.simulation]
seed = 1
"""


@click.command("init")
@click.argument("feeder")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("market.toml"))
def command(feeder: str, out: Path) -> None:
    """Write a commented configuration for a market on FEEDER, ready to be run with simulated households."""
    from grid.catalogue import open_feeder
    from market.cli.service_config import MEMBER_COLUMNS
    from market.cli.settings import slug

    open_feeder(feeder, out.resolve().parent)
    text = _TEMPLATE.format(
        file=out.name, name=slug(feeder), feeder=json.dumps(feeder), columns=",".join(MEMBER_COLUMNS)
    )
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError.single("--out", "", str(out), "exists already") from None
    except OSError as error:
        raise InputError.single("--out", "", str(out), f"cannot be written: {error.strerror}") from None
    say(f"peergrid run {out} begins it, with simulated households")
    click.echo(str(out))
