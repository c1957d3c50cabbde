"""An owner's change of wallet as Python calls: handed over, recovered, or announced by the admin.

Addresses are lower-case hex. What changes the chain goes through a :class:`Sender` under a batch id and can
be called again after a crash with the same arguments: nothing happens twice. Anyone may be ``sender``, except
for what the timelock's operator announces.
"""

from __future__ import annotations

from dataclasses import dataclass

from eth_hash.auto import keccak

from contracts.chain import Chain, Receipt
from contracts.contract import NOBODY, Contract
from contracts.deployment import Deployment
from contracts.sender import Sender
from contracts.succession import Word
from market.messages.signing import Domain

_GAS = 400_000


@dataclass(frozen=True)
class Announcement:
    """Who is to take an owner's place, and from when on it may accept (Unix s)."""

    successor: str
    due_at: int


class Owners:
    """What the escrow of ``deployment`` knows of wallets that stand in for others."""

    def __init__(self, chain: Chain, deployment: Deployment) -> None:
        self._escrow = Contract(chain, "MarketEscrow", deployment.escrow)
        self._timelock = Contract(chain, "MarketTimelock", deployment.timelock)
        self.domain = Domain(deployment.chain_id, deployment.escrow)

    def name_recovery(self, sender: Sender, batch_id: str, word: Word, signature: str) -> Receipt:
        """The owner, who signs, names who may announce its successor."""
        return self._bring(sender, batch_id, "nameRecovery", word, signature)

    def hand_over(
        self, sender: Sender, batch_id: str, word: Word, by_owner: str, by_successor: str
    ) -> Receipt:
        """Both sign the same word, with the owner's nonce; it counts at once."""
        return self._bring(sender, batch_id, "handOver", word, by_owner, by_successor)

    def announce(self, sender: Sender, batch_id: str, word: Word, signature: str) -> Receipt:
        """The recovery address signs."""
        return self._bring(sender, batch_id, "announceSuccession", word, signature)

    def veto(self, sender: Sender, batch_id: str, word: Word, signature: str) -> Receipt:
        """The owner signs."""
        return self._bring(sender, batch_id, "vetoSuccession", word, signature)

    def accept(self, sender: Sender, batch_id: str, word: Word, signature: str) -> Receipt:
        """The successor signs, once what was announced is due."""
        return self._bring(sender, batch_id, "acceptSuccession", word, signature)

    def follow(self, sender: Sender, batch_id: str, account: str) -> Receipt:
        """Moves what came to a wallet that has a successor on to that one."""
        return sender.send(batch_id, self._escrow.write("follow", account, gas=_GAS))

    def propose(self, sender: Sender, owner: str, successor: str) -> Receipt:
        """Announces on the timelock that the admin will announce a successor; ``sender`` is its operator."""
        delay_s = self._timelock.integer("getMinDelay")
        call = self._timelock.write("schedule", *self._operation(owner, successor), delay_s)
        return sender.send(f"propose/{owner}/{successor}", call)

    def apply(self, sender: Sender, owner: str, successor: str) -> Receipt:
        """Announces it to the owner, once the timelock's delay is over."""
        call = self._timelock.write("execute", *self._operation(owner, successor), gas=_GAS)
        return sender.send(f"apply/{owner}/{successor}", call)

    def nonce(self, signer: str) -> int:
        """The nonce that the next word of ``signer`` has to have."""
        return self._escrow.integer("nonces", signer)

    def wallet(self, owner: str) -> str:
        """The wallet that stands in for ``owner`` now: itself, where none does."""
        (wallet,) = self._escrow.read("currentWallet", owner)
        return str(wallet)

    def recovery(self, owner: str) -> str | None:
        (recovery,) = self._escrow.read("recoveryOf", owner)
        return None if recovery == NOBODY else str(recovery)

    def announced(self, owner: str) -> Announcement | None:
        ((successor, due_at),) = self._escrow.read("announcementOf", owner)
        return None if successor == NOBODY else Announcement(successor, due_at)

    def _bring(self, sender: Sender, batch_id: str, function: str, word: Word, *signatures: str) -> Receipt:
        said = (word.owner, word.subject, word.nonce, word.deadline)
        raw = [bytes.fromhex(signature[2:]) for signature in signatures]
        return sender.send(batch_id, self._escrow.write(function, said, *raw, gas=_GAS))

    def _operation(self, owner: str, successor: str) -> tuple[object, ...]:
        """Target, value, data, predecessor and salt of the timelock's operation."""
        data = self._escrow.artifact.call_data("proposeSuccession", owner, successor)
        return self._escrow.address, 0, data, bytes(32), keccak(f"succession/{owner}/{successor}".encode())
