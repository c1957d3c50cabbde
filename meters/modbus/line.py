"""A connection to Modbus devices: one request at a time, each with an end.

pymodbus frames and checks; this bounds. Whatever goes wrong, the connection is closed: an answer that comes
late must not be taken for the next one's. The next request opens it again.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU

from grid.errors import InputError
from meters.modbus.profile import Serial
from meters.source import SourceError

DEFAULT_PORT = 502
TIMEOUT_S = 2.0

_EXCEPTIONS = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "device failure",
    5: "acknowledge",
    6: "device busy",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "gateway target did not respond",
}

# Every failure becomes a LineError; the library's own lines would say it twice.
logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL + 1)


class LineError(SourceError):
    """No answer, or none that can be used."""


class ExceptionCodeError(LineError):
    """The device refused the request with a code of the Modbus specification."""

    def __init__(self, code: int, request: str) -> None:
        self.code = code
        meaning = _EXCEPTIONS.get(code, "not in the specification")
        super().__init__(f"{request}: exception code {code} ({meaning})")


@dataclass(frozen=True)
class Place:
    """Where a line is: ``tcp://192.0.2.7:502`` or ``rtu:///dev/ttyUSB0``."""

    host: str = ""
    port: int = DEFAULT_PORT
    device: str = ""

    def __str__(self) -> str:
        return f"rtu://{self.device}" if self.device else f"tcp://{self.host}:{self.port}"


def parse_place(url: str) -> Place:
    """Also takes ``host``, ``host:port`` and ``/dev/ttyUSB0``. Raises :class:`InputError`."""
    text = url.strip()
    if text.startswith("/"):
        text = f"rtu://{text}"
    elif "://" not in text:
        text = f"tcp://{text}"
    try:
        parts = urlsplit(text)
        port = parts.port or DEFAULT_PORT
    except ValueError as error:
        raise InputError.single("url", "", url, f"is no address: {error}") from None
    if parts.scheme == "tcp" and parts.hostname and parts.path in ("", "/"):
        return Place(host=parts.hostname, port=port)
    if parts.scheme == "rtu" and not parts.netloc and re.fullmatch(r"/.+", parts.path):
        return Place(device=parts.path)
    raise InputError.single("url", "", url, "is neither tcp://host:port nor rtu:///dev/name")


class Line:
    """One TCP connection, or one serial bus with all its units."""

    def __init__(self, place: Place, serial: Serial | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self.place = place
        self.serial = serial or Serial()
        self._timeout_s = timeout_s
        self._client: AsyncModbusTcpClient | AsyncModbusSerialClient | None = None
        self._turn = asyncio.Lock()

    async def read(self, unit: int, function: int, address: int, words: int) -> list[int]:
        """``words`` registers from ``address`` on. Raises :class:`LineError`."""
        request = f"{self.place} unit {unit}: read of {words} at 0x{address:04X}"
        async with self._turn:
            client = await self._open(request)
            call = client.read_holding_registers if function == 3 else client.read_input_registers
            answer = await self._answer(call(address, count=words, device_id=unit), request)
            registers = list(answer.registers)
            if answer.function_code != function or len(registers) != words:
                # Some devices answer an address that they do not have with an empty success.
                self.close()
                raise LineError(
                    f"{request}: {len(registers)} registers of function {answer.function_code} came back"
                )
            return registers

    async def write(self, unit: int, address: int, registers: Sequence[int], function: int = 16) -> None:
        """Raises :class:`LineError`."""
        request = f"{self.place} unit {unit}: write of {list(registers)} at 0x{address:04X}"
        async with self._turn:
            client = await self._open(request)
            if function == 6:
                assert len(registers) == 1
                call = client.write_register(address, registers[0], device_id=unit)
            else:
                call = client.write_registers(address, list(registers), device_id=unit)
            await self._answer(call, request)

    def close(self) -> None:
        """The next request opens it again."""
        if self._client is not None:
            self._client.close()
            self._client = None

    async def _open(self, request: str) -> AsyncModbusTcpClient | AsyncModbusSerialClient:
        if self._client is not None and self._client.connected:
            return self._client
        self.close()
        client: AsyncModbusTcpClient | AsyncModbusSerialClient
        if self.place.device:
            client = AsyncModbusSerialClient(
                self.place.device,
                baudrate=self.serial.baud,
                parity=self.serial.parity,
                stopbits=self.serial.stop_bits,
                timeout=self._timeout_s,
                retries=0,
                reconnect_delay=0,
            )
        else:
            client = AsyncModbusTcpClient(
                self.place.host,
                port=self.place.port,
                timeout=self._timeout_s,
                retries=0,
                reconnect_delay=0,
            )
        self._client = client
        try:
            async with asyncio.timeout(self._timeout_s):
                connected = await client.connect()
        except TimeoutError:
            connected = False
        except BaseException:
            self.close()
            raise
        if not connected:
            self.close()
            raise LineError(f"{request}: no connection")
        return client

    async def _answer(self, call: Awaitable[ModbusPDU], request: str) -> ModbusPDU:
        try:
            # pymodbus has its own limit; this one also ends what its framing never finishes.
            async with asyncio.timeout(1.5 * self._timeout_s):
                answer = await call
        except TimeoutError:
            self.close()
            raise LineError(f"{request}: no answer within {self._timeout_s:g} s") from None
        except ModbusException as error:
            self.close()
            raise LineError(f"{request}: {' '.join(str(error).split())}") from None
        except BaseException:  # cancelled: the answer may still come
            self.close()
            raise
        if answer.isError():
            raise ExceptionCodeError(int(answer.exception_code), request)
        return answer
