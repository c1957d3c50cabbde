"""An emulated meter on a serial line, read by libmodbus's own client."""

from __future__ import annotations

import asyncio
import ctypes
import struct

import pytest

from meters.modbus.emulator import Emulator, image_of, serving
from meters.modbus.line import parse_place
from meters.modbus.plant import DevicePlant
from meters.modbus.profile import Serial, find_profile
from tests.modbus.servers import BAUD, Bus

UNIT = 7
NOW = 1_763_800_200.0


def input_floats(device: str, *addresses: int) -> list[float]:
    """Two input registers at each address as a float, high word first."""
    libmodbus = ctypes.CDLL("libmodbus.so", use_errno=True)
    libmodbus.modbus_new_rtu.restype = ctypes.c_void_p
    line = ctypes.c_void_p(libmodbus.modbus_new_rtu(device.encode(), BAUD, ctypes.c_char(b"N"), 8, 1))
    try:
        assert libmodbus.modbus_set_slave(line, UNIT) == 0
        assert libmodbus.modbus_connect(line) == 0
        words = (ctypes.c_uint16 * 2)()
        found = []
        for address in addresses:
            count = libmodbus.modbus_read_input_registers(line, address, 2, words)
            assert count == 2, f"{address:#x}: errno {ctypes.get_errno()}"
            found.append(struct.unpack(">f", struct.pack(">HH", *words))[0])
        return found
    finally:
        libmodbus.modbus_close(line)
        libmodbus.modbus_free(line)


@pytest.mark.needs("libmodbus")
async def test_libmodbus_reads_an_emulated_meter_over_a_serial_line() -> None:
    """An SDM630: power at 0x34 (import positive), import and export in kWh at 0x48 and 0x4A."""
    plant = DevicePlant(lambda _: -1500.0, NOW, import_wh=12_345, export_wh=678)
    emulator = Emulator(image_of(find_profile("eastron-sdm630"), 5000), plant, UNIT, lambda: NOW + 3600)
    with Bus(units=1) as bus:
        async with serving([emulator], parse_place(bus.units[0]), Serial(baud=BAUD)):
            told = await asyncio.to_thread(input_floats, bus.client, 0x34, 0x48, 0x4A)
    assert told == pytest.approx([1500, 13.845, 0.678])
