"""Net positions of a settlement batch: cut into chunks, and packed as ``src/Positions.sol`` reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

POSITIONS_MAX = 1500
POSITION_BYTES = 28

# So many fit into one transaction (2^24 gas) even if every debtor has nothing and every creditor is new. Of
# debtors that are short with some credit left 425 fit: where more are, a few of them have to deposit.
# It never changes: a batch on the chain would be cut otherwise, and be taken for one that is not there.
CHUNK_POSITIONS_MAX = 450
_AMOUNT_MAX = 2**63 - 1


def chunks_of(net_ueur: Mapping[str, int], positions_max: int = CHUNK_POSITIONS_MAX) -> list[dict[str, int]]:
    """Cuts a batch (µEUR by account, sum zero) into chunks that each sum to zero; at least one.

    What an account gets or owes may be spread over neighbouring chunks; a batch that fits stays whole. The
    same batch is always cut alike. Raises ValueError where the sum is not zero.
    """
    if total := sum(net_ueur.values()):
        raise ValueError(f"net positions sum to {total} µEUR, not 0")
    if sum(amount != 0 for amount in net_ueur.values()) <= positions_max:
        return [dict(net_ueur)]
    chunks: list[dict[str, int]] = [{}]
    for debtor, creditor, amount in _matches(net_ueur):
        if len(chunks[-1].keys() | {debtor, creditor}) > positions_max:
            chunks.append({})
        chunks[-1][debtor] = chunks[-1].get(debtor, 0) - amount
        chunks[-1][creditor] = chunks[-1].get(creditor, 0) + amount
    return chunks


def _matches(net_ueur: Mapping[str, int]) -> Iterator[tuple[str, str, int]]:
    """Who pays whom how much, debtors and creditors each by ascending account."""
    debts = iter(sorted((account, -amount) for account, amount in net_ueur.items() if amount < 0))
    debtor, owed = "", 0
    for creditor, due in sorted((account, amount) for account, amount in net_ueur.items() if amount > 0):
        while due:
            if not owed:
                debtor, owed = next(debts)
            amount = min(due, owed)
            yield debtor, creditor, amount
            due, owed = due - amount, owed - amount


def pack_positions(net_ueur: Mapping[str, int]) -> bytes:
    """Packs what each account gets (> 0) or owes (< 0), in µEUR; accounts with nothing are left out.

    Debits come before credits, each by ascending account. Raises ValueError where the sum is not zero, an
    amount does not fit into an int64, or there are more than a batch may have.
    """
    total = sum(net_ueur.values())
    if total != 0:
        raise ValueError(f"net positions sum to {total} µEUR, not 0")
    accounts = {bytes.fromhex(account[2:]): amount for account, amount in net_ueur.items() if amount}
    if len(accounts) > POSITIONS_MAX:
        raise ValueError(f"{len(accounts)} positions are more than {POSITIONS_MAX}")
    for account, amount in accounts.items():
        if len(account) != 20:
            raise ValueError(f"0x{account.hex()} is no address")
        if abs(amount) > _AMOUNT_MAX:
            raise ValueError(f"0x{account.hex()}: {amount} µEUR does not fit into a position")
    ordered = sorted(accounts.items(), key=lambda position: (position[1] > 0, position[0]))
    return b"".join(account + amount.to_bytes(8, "big", signed=True) for account, amount in ordered)


def unpack_positions(packed: bytes) -> dict[str, int]:
    """What each account gets or owes, in the order of the bytes."""
    if len(packed) % POSITION_BYTES:
        raise ValueError(f"{len(packed)} bytes are no whole number of positions")
    return {
        "0x" + packed[start : start + 20].hex(): int.from_bytes(
            packed[start + 20 : start + POSITION_BYTES], "big", signed=True
        )
        for start in range(0, len(packed), POSITION_BYTES)
    }
