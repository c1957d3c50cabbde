"""The meter registry: only the meter's own signature binds it, and only once."""

from __future__ import annotations

import dataclasses

from eth_account import Account
from eth_account.messages import encode_typed_data

from contracts.registry import SignedBinding, SignedReplacement
from contracts.replacement import Replacement
from market.messages.signing import Binding, Domain, Signer, recover


def binding(stand, meter: Signer, point: bytes = b"\7" * 32, **changes) -> Binding:
    fields = {
        "meter": meter.address,
        "owner": stand.address("rich"),
        "connection_point": point,
        "nonce": 0,
        "deadline": stand.clock.now + 600,
    }
    return Binding(**{**fields, **changes})


def signed(domain: Domain, meter: Signer, word: Binding) -> SignedBinding:
    return SignedBinding(word, meter.sign_digest(domain.digest(word.struct_hash())))


def register(stand, batch_id: str, *bindings: SignedBinding) -> None:
    stand.contracts.registry.register(stand.sender(stand.operator), batch_id, bindings)


def test_meters_are_bound_in_batches(stand) -> None:
    meters = [stand.key(f"meter {number}") for number in range(130)]
    words = [binding(stand, meter, bytes([number]) * 32) for number, meter in enumerate(meters, 1)]
    pairs = zip(meters, words, strict=True)
    register(stand, "r", *(signed(stand.domain, meter, word) for meter, word in pairs))

    for meter, word in zip(meters, words, strict=True):
        bound = stand.contracts.registry.meter(meter.address)
        assert (bound.owner, bound.connection_point) == (word.owner, word.connection_point)
        assert stand.contracts.registry.nonce(meter.address) == 1


def test_the_binding_that_the_chain_checks_is_the_one_that_eth_account_signs(stand) -> None:
    meter = stand.key("meter")
    word = binding(stand, meter)
    typed = {
        "domain": {
            "name": "Peergrid",
            "version": "1",
            "chainId": stand.domain.chain_id,
            "verifyingContract": stand.domain.verifying_contract,
        },
        "primaryType": "Binding",
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"},
                {"name": "verifyingContract", "type": "address"},
            ],
            "Binding": [
                {"name": "meter", "type": "address"},
                {"name": "owner", "type": "address"},
                {"name": "connectionPoint", "type": "bytes32"},
                {"name": "nonce", "type": "uint256"},
                {"name": "deadline", "type": "uint64"},
            ],
        },
        "message": {
            "meter": word.meter,
            "owner": word.owner,
            "connectionPoint": word.connection_point,
            "nonce": word.nonce,
            "deadline": word.deadline,
        },
    }
    account = Account.create()
    foreign = account.sign_message(encode_typed_data(full_message=typed)).signature
    assert recover(stand.domain.digest(word.struct_hash()), "0x" + foreign.hex()) == account.address.lower()

    own = dataclasses.replace(word, meter=account.address.lower())
    typed["message"]["meter"] = own.meter
    signature = account.sign_message(encode_typed_data(full_message=typed)).signature
    register(stand, "r", SignedBinding(own, "0x" + signature.hex()))
    assert stand.contracts.registry.meter(own.meter).owner == word.owner


def test_another_key_cannot_sign_for_a_meter(stand) -> None:
    meter, thief = stand.key("meter"), stand.key("thief")
    with stand.refuses("NotSignedByMeter", meter=meter.address, signer=thief.address):
        register(stand, "r", signed(stand.domain, thief, binding(stand, meter)))


def test_a_binding_for_another_chain_or_registry_does_not_count(stand) -> None:
    meter = stand.key("meter")
    for number, domain in enumerate(
        (
            Domain(stand.domain.chain_id + 1, stand.deployment.registry),
            Domain(stand.domain.chain_id, stand.deployment.escrow),
        )
    ):
        with stand.refuses("NotSignedByMeter"):
            register(stand, f"r{number}", signed(domain, meter, binding(stand, meter)))


def test_a_meter_and_a_connection_point_are_bound_once(stand) -> None:
    first, second = stand.key("first"), stand.key("second")
    register(stand, "r", signed(stand.domain, first, binding(stand, first)))
    again = binding(stand, first, point=b"\10" * 32, nonce=1)
    with stand.refuses("MeterAlreadyBound", meter=first.address):
        register(stand, "r1", signed(stand.domain, first, again))
    with stand.refuses("ConnectionPointTaken", meter=first.address):
        register(stand, "r2", signed(stand.domain, second, binding(stand, second)))


def test_a_binding_is_not_replayed_after_revocation(stand) -> None:
    meter = stand.key("meter")
    word = signed(stand.domain, meter, binding(stand, meter))
    owner = stand.sender(stand.households["rich"])
    register(stand, "first", word)
    stand.contracts.registry.revoke(owner, "revoke", meter.address)
    assert stand.contracts.registry.meter(meter.address) is None
    with stand.refuses("InvalidAccountNonce", account=meter.address, currentNonce=1):
        register(stand, "replayed", word)

    register(stand, "anew", signed(stand.domain, meter, binding(stand, meter, nonce=1)))
    assert stand.contracts.registry.meter(meter.address).owner == stand.address("rich")


def replacing(stand, owner: Signer, broken: Signer, meter: Signer, **changes) -> SignedReplacement:
    fields = {"broken": broken.address, "meter": meter.address, "nonce": 0, "deadline": stand.clock.now + 600}
    word = Replacement(**{**fields, **changes})
    return SignedReplacement(word, owner.sign_digest(stand.domain.digest(word.struct_hash())))


def test_a_broken_meter_is_replaced_with_the_word_of_its_owner_and_of_the_new_device(stand) -> None:
    broken, device = stand.key("broken"), stand.key("device")
    rich, operator = stand.households["rich"], stand.sender(stand.operator)
    register(stand, "r", signed(stand.domain, broken, binding(stand, broken)))
    word = replacing(stand, rich, broken, device)
    own = signed(stand.domain, device, binding(stand, device))
    replace = stand.contracts.registry.replace

    with stand.refuses("AccessControlUnauthorizedAccount"):
        replace(stand.sender(rich), "by the owner alone", word, own)
    with stand.refuses("NotSignedByOwner", owner=rich.address):
        replace(operator, "a", replacing(stand, stand.operator, broken, device), own)
    with stand.refuses("NotSignedByMeter", meter=device.address):
        replace(operator, "b", word, signed(stand.domain, broken, binding(stand, device)))
    with stand.refuses("ReplacementMismatch", meter=device.address):
        moved = binding(stand, device, point=b"\10" * 32)
        replace(operator, "c", word, signed(stand.domain, device, moved))
    with stand.refuses("ReplacementMismatch", meter=broken.address):
        replace(operator, "d", word, signed(stand.domain, broken, binding(stand, broken, nonce=1)))
    with stand.refuses("ReplacementExpired"):
        replace(operator, "e", replacing(stand, rich, broken, device, deadline=stand.clock.now - 9), own)

    replace(operator, "f", word, own)
    assert stand.contracts.registry.meter(broken.address) is None
    bound = stand.contracts.registry.meter(device.address)
    assert (bound.owner, bound.connection_point) == (rich.address, b"\7" * 32)
    with stand.refuses("NotSignedByOwner"):
        replace(operator, "g", word, own)
    # The owner's word counts once: it does not bring the broken meter's successor back another time.
    again = replacing(stand, rich, device, broken, nonce=0)
    back = signed(stand.domain, broken, binding(stand, broken, nonce=1))
    with stand.refuses("InvalidAccountNonce", account=rich.address, currentNonce=1):
        replace(operator, "h", again, back)


def test_only_the_owner_revokes(stand) -> None:
    meter = stand.key("meter")
    with stand.refuses("NotMeterOwner"):
        stand.contracts.registry.revoke(stand.sender(stand.operator), "unbound", meter.address)
    register(stand, "r", signed(stand.domain, meter, binding(stand, meter)))
    with stand.refuses("NotMeterOwner", caller=stand.operator.address):
        stand.contracts.registry.revoke(stand.sender(stand.operator), "foreign", meter.address)


def test_only_the_registrar_brings_bindings(stand) -> None:
    meter = stand.key("meter")
    word = signed(stand.domain, meter, binding(stand, meter))
    with stand.refuses("AccessControlUnauthorizedAccount", account=stand.settler.address):
        stand.contracts.registry.register(stand.sender(stand.settler), "r", [word])


def test_a_binding_that_came_too_late_or_names_nobody_is_refused(stand) -> None:
    meter = stand.key("meter")
    late = binding(stand, meter, deadline=stand.clock.now - 1)
    with stand.refuses("BindingExpired", deadline=late.deadline):
        register(stand, "late", signed(stand.domain, meter, late))
    for name, empty in {
        "owner": binding(stand, meter, owner="0x" + "00" * 20),
        "point": binding(stand, meter, point=bytes(32)),
    }.items():
        with stand.refuses("EmptyBinding", meter=meter.address):
            register(stand, name, signed(stand.domain, meter, empty))


def test_one_bad_binding_stops_its_batch(stand) -> None:
    good, bad = stand.key("good"), stand.key("bad")
    with stand.refuses("NotSignedByMeter"):
        register(
            stand,
            "r",
            signed(stand.domain, good, binding(stand, good)),
            signed(stand.domain, good, binding(stand, bad, point=b"\10" * 32)),
        )
    assert stand.contracts.registry.meter(good.address) is None
