"""A Modbus server made of modbus-tk: ``python modbus_tk_server.py IMAGE`` prints the port that it serves,
``python modbus_tk_server.py IMAGE DEVICE BAUD`` serves a serial line and prints "ready".

The image has the form of register_server.c. A process of its own: the library's threads and sockets outlive
its ``stop``.
"""

from __future__ import annotations

import socket
import sys
import threading
from pathlib import Path

import modbus_tk.defines
import serial
from modbus_tk.modbus import Slave
from modbus_tk.modbus_rtu import RtuServer
from modbus_tk.modbus_tcp import TcpServer

TABLES = {"input": modbus_tk.defines.ANALOG_INPUTS, "holding": modbus_tk.defines.HOLDING_REGISTERS}


def main(image: Path, device: str = "", baud: str = "") -> None:
    if device:
        server = RtuServer(serial.Serial(device, int(baud)), error_on_missing_slave=False)
        told = "ready"
    else:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = TcpServer(port=port, address="127.0.0.1")
        told = str(port)
    slaves: dict[str, Slave] = {}
    for line in image.read_text().splitlines():
        unit, table, address, *words = line.split()
        if unit not in slaves:
            slaves[unit] = server.add_slave(int(unit))
        block = f"{table} {address}"
        slaves[unit].add_block(block, TABLES[table], int(address, 16), len(words))
        slaves[unit].set_values(block, int(address, 16), [int(word, 16) for word in words])
    server.start()
    while not device:  # it binds in its thread, and does not tell
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
    print(told, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
