"""The configuration of a mosquitto that knows everybody by certificate (design section 5).

``write`` makes a folder with everything that it needs: the market's authority, the broker's and the market's
certificates, the access list and ``mosquitto.conf``. A meter may write its own four topics and read its own
two and the public ones, so it can forge neither a receipt nor an award, nor speak for another meter.
"""

from __future__ import annotations

import datetime as dt
import getpass
import secrets
from collections.abc import Sequence
from pathlib import Path

from grid.errors import InputError
from meters.certificates import Authority, Period
from meters.identity import write_private
from meters.mqtt import Tls

AUTHORITY = "authority"
SALT = "salt"
_SERVER_DAYS = 730
_SALT_BYTES = 32

_CONF = """\
# Written by: peergrid broker config
listener {port} {address}
cafile {folder}/authority/ca.crt
# Written by: peergrid meter revoke. Read at the start, and again on SIGHUP.
crlfile {folder}/authority/revoked.pem
certfile {folder}/server.crt
keyfile {folder}/server.key
tls_version tlsv1.2
require_certificate true
# A client is who its certificate's CN says, also as client id: nobody takes another's session.
use_identity_as_username true
use_username_as_clientid true
allow_anonymous false
acl_file {folder}/acl
user {user}

persistence true
persistence_location {folder}/data/
autosave_interval 30
persistent_client_expiration 7d

# A message that a full queue drops is sent again by its meter: it has no receipt.
max_packet_size 131072
max_inflight_messages 1000
# Not 0 for "no limit": mosquitto 2.0.11 then ends the connection of whoever it refuses a message.
max_queued_messages 1000000
max_queued_bytes 268435456
max_keepalive 300
max_connections 20000
set_tcp_nodelay true

log_dest stderr
log_type error
log_type warning
log_type notice
"""

_ACL = """\
# What the market reads and says.
user {market}
topic read peergrid/v1/{feeder}/+/order
topic read peergrid/v1/{feeder}/+/reading
topic read peergrid/v1/{feeder}/+/status
topic read peergrid/v1/{feeder}/+/sync
topic write peergrid/v1/{feeder}/+/receipt
topic write peergrid/v1/{feeder}/+/award
topic write peergrid/v1/{feeder}/gate
topic write peergrid/v1/{feeder}/clearing

# What every meter may: %u is the CN of its certificate.
pattern write peergrid/v1/{feeder}/%u/order
pattern write peergrid/v1/{feeder}/%u/reading
pattern write peergrid/v1/{feeder}/%u/status
pattern write peergrid/v1/{feeder}/%u/sync
pattern read peergrid/v1/{feeder}/%u/receipt
pattern read peergrid/v1/{feeder}/%u/award
pattern read peergrid/v1/{feeder}/gate
pattern read peergrid/v1/{feeder}/clearing
"""


def market_name(feeder: str) -> str:
    """The CN, and so the client id, of a feeder's market."""
    return f"market-{feeder}"


def write(folder: Path, feeder: str, hosts: Sequence[str], address: str, port: int, now: dt.datetime) -> Path:
    """Writes the folder and returns the path of ``mosquitto.conf``.

    An authority that is there is kept, with all certificates that it gave out; the rest may not exist yet
    (:class:`InputError`). ``hosts`` are the names that clients reach the broker under.
    """
    folder = folder.resolve()
    authority_folder = folder / AUTHORITY
    if (authority_folder / "ca.key").exists():
        authority = Authority(authority_folder)
    else:
        authority = Authority.create(authority_folder, feeder, now)
        write_private(authority_folder / SALT, secrets.token_bytes(_SALT_BYTES))
    authority.write_revocations(now)
    period = Period(now, _SERVER_DAYS)
    authority.issue_server(folder, "server", hosts, period)
    authority.issue_client(folder, "market", market_name(feeder), period)
    (folder / "data").mkdir(exist_ok=True)
    write_private(folder / "acl", _ACL.format(market=market_name(feeder), feeder=feeder).encode())
    conf = folder / "mosquitto.conf"
    conf.write_text(_CONF.format(folder=folder, port=port, address=address, user=getpass.getuser()))
    return conf


def read_salt(path: Path) -> bytes:
    """What connection points are hashed with in the chain's registry. Raises :class:`InputError`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError.single(str(path), "", error.strerror, "so it cannot be read") from None


def market_tls(folder: Path) -> Tls:
    """What the market connects with."""
    return Tls(folder / AUTHORITY / "ca.crt", folder / "market.crt", folder / "market.key")
