// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {Nonces} from "@openzeppelin/contracts/utils/Nonces.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {MeterRegistry} from "../src/MeterRegistry.sol";
import {Succession} from "../src/Succession.sol";
import {signTyped} from "./TypedData.sol";
import {vm, within} from "./Vm.sol";

/// @notice Wallets and their successors, without money.
contract Owners is Succession {
    constructor() EIP712("Peergrid", "1") Succession(1 days) {}

    function _follow(address, address) internal override {}
}

/// @notice Signs bindings with keys that forge holds.
library Devices {
    bytes32 internal constant BINDING = keccak256(
        "Binding(address meter,address owner,bytes32 connectionPoint,uint256 nonce,uint64 deadline)"
    );
    bytes32 internal constant REPLACEMENT =
        keccak256("Replacement(address broken,address meter,uint256 nonce,uint64 deadline)");

    function bind(MeterRegistry registry, uint256 key, address owner, bytes32 point)
        internal
        view
        returns (MeterRegistry.Binding memory binding)
    {
        address meter = vm.addr(key);
        return MeterRegistry.Binding(meter, owner, point, registry.nonces(meter), uint64(block.timestamp));
    }

    function sign(MeterRegistry registry, uint256 key, MeterRegistry.Binding memory b)
        internal
        view
        returns (bytes memory)
    {
        bytes32 content = keccak256(abi.encode(BINDING, b.meter, b.owner, b.connectionPoint, b.nonce, b.deadline));
        return signTyped(key, address(registry), content);
    }

    function signReplacement(MeterRegistry registry, uint256 key, MeterRegistry.Replacement memory replacement)
        internal
        view
        returns (bytes memory)
    {
        bytes32 content = keccak256(
            abi.encode(
                REPLACEMENT, replacement.broken, replacement.meter, replacement.nonce, replacement.deadline
            )
        );
        return signTyped(key, address(registry), content);
    }
}

/// @notice Binds and revokes a few meters at a few connection points, in any order.
contract Enrolment {
    uint256 public constant METERS = 6;
    uint256 public constant POINTS = 4;
    uint256 public constant OWNER_KEY = 0xA11CE;
    address public immutable OWNER = vm.addr(OWNER_KEY);

    MeterRegistry public immutable registry = new MeterRegistry(address(this), address(this), new Owners());

    function meter(uint256 index) public pure returns (address) {
        return vm.addr(1 + index % METERS);
    }

    function point(uint256 index) public pure returns (bytes32) {
        return keccak256(abi.encode(index % POINTS));
    }

    function bind(uint256 who, uint256 where) external {
        bool free = registry.meterOf(meter(who)).owner == address(0) && registry.meterAt(point(where)) == address(0);
        uint256 key = 1 + who % METERS;
        MeterRegistry.Binding[] memory bindings = new MeterRegistry.Binding[](1);
        bytes[] memory signatures = new bytes[](1);
        bindings[0] = Devices.bind(registry, key, OWNER, point(where));
        signatures[0] = Devices.sign(registry, key, bindings[0]);
        try registry.register(bindings, signatures) {
            assert(free);
        } catch {
            assert(!free);
        }
    }

    function replace(uint256 who, uint256 by) external {
        address broken = meter(who);
        MeterRegistry.Meter memory bound = registry.meterOf(broken);
        uint256 key = 1 + by % METERS;
        bool possible = bound.owner != address(0) && registry.meterOf(meter(by)).owner == address(0);
        MeterRegistry.Replacement memory replacement =
            MeterRegistry.Replacement(broken, meter(by), registry.nonces(OWNER), uint64(block.timestamp));
        MeterRegistry.Binding memory binding = Devices.bind(registry, key, OWNER, bound.connectionPoint);
        bytes memory word = Devices.signReplacement(registry, OWNER_KEY, replacement);
        bytes memory device = Devices.sign(registry, key, binding);
        // A meter in its own place: unbound and bound again under its next nonce.
        if (broken == meter(by) && bound.owner != address(0)) possible = true;
        try registry.replace(replacement, word, binding, device) {
            assert(possible);
            assert(registry.meterAt(bound.connectionPoint) == meter(by));
        } catch {
            assert(!possible);
        }
    }

    function revoke(uint256 who) external {
        if (registry.meterOf(meter(who)).owner == address(0)) return;
        vm.prank(OWNER);
        registry.revoke(meter(who));
    }
}

contract MeterRegistryTest {
    Enrolment private enrolment;
    MeterRegistry private registry;

    function setUp() external {
        vm.warp(1_700_000_000);
        enrolment = new Enrolment();
        registry = enrolment.registry();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(enrolment);
    }

    function invariant_MetersAndConnectionPointsAreABijection() external view {
        uint256 bound = 0;
        uint256 taken = 0;
        for (uint256 i = 0; i < enrolment.METERS(); ++i) {
            MeterRegistry.Meter memory meter = registry.meterOf(enrolment.meter(i));
            if (meter.owner == address(0)) continue;
            ++bound;
            assert(registry.meterAt(meter.connectionPoint) == enrolment.meter(i));
        }
        for (uint256 i = 0; i < enrolment.POINTS(); ++i) {
            address meter = registry.meterAt(enrolment.point(i));
            if (meter == address(0)) continue;
            ++taken;
            assert(registry.meterOf(meter).connectionPoint == enrolment.point(i));
        }
        assert(bound == taken);
    }

    function test_OnlyWellFormedBindingsOfTheRegistrarCount() external {
        MeterRegistry own = new MeterRegistry(address(this), address(this), new Owners());
        MeterRegistry.Binding[] memory bindings = new MeterRegistry.Binding[](1);
        bytes[] memory signatures = new bytes[](1);
        bindings[0] = Devices.bind(own, 7, address(0xA), "point");
        signatures[0] = Devices.sign(own, 7, bindings[0]);

        vm.expectRevert(
            abi.encodeWithSelector(
                IAccessControl.AccessControlUnauthorizedAccount.selector, address(0xBAD), own.REGISTRAR_ROLE()
            )
        );
        vm.prank(address(0xBAD));
        own.register(bindings, signatures);
        vm.expectRevert(abi.encodeWithSelector(MeterRegistry.SignatureCountMismatch.selector, 1, 0));
        own.register(bindings, new bytes[](0));

        bindings[0].deadline = uint64(block.timestamp - 1);
        vm.expectRevert(
            abi.encodeWithSelector(
                MeterRegistry.BindingExpired.selector, bindings[0].meter, block.timestamp - 1
            )
        );
        own.register(bindings, signatures);
        bindings[0] = Devices.bind(own, 7, address(0), "point");
        vm.expectRevert(abi.encodeWithSelector(MeterRegistry.EmptyBinding.selector, bindings[0].meter));
        own.register(bindings, signatures);
    }

    function test_AMeterAndAConnectionPointAreTakenOnceAndOnlyTheOwnerRevokes() external {
        enrolment.bind(0, 0);
        address first = enrolment.meter(0);
        MeterRegistry.Binding[] memory bindings = new MeterRegistry.Binding[](1);
        bytes[] memory signatures = new bytes[](1);
        bindings[0] = Devices.bind(registry, 1, address(0xA), "elsewhere");
        signatures[0] = Devices.sign(registry, 1, bindings[0]);
        vm.expectRevert(abi.encodeWithSelector(MeterRegistry.MeterAlreadyBound.selector, first));
        vm.prank(address(enrolment));
        registry.register(bindings, signatures);
        bindings[0] = Devices.bind(registry, 2, address(0xA), enrolment.point(0));
        signatures[0] = Devices.sign(registry, 2, bindings[0]);
        vm.expectRevert(
            abi.encodeWithSelector(MeterRegistry.ConnectionPointTaken.selector, enrolment.point(0), first)
        );
        vm.prank(address(enrolment));
        registry.register(bindings, signatures);
        vm.expectRevert(abi.encodeWithSelector(MeterRegistry.NotMeterOwner.selector, first, address(this)));
        registry.revoke(first);
    }

    function test_AReplacementNeedsItsOwnerItsTimeAndItsPlace() external {
        enrolment.bind(0, 0);
        address broken = enrolment.meter(0);
        address owner = enrolment.OWNER();
        MeterRegistry.Binding memory binding = Devices.bind(registry, 2, owner, enrolment.point(0));
        bytes memory device = Devices.sign(registry, 2, binding);
        MeterRegistry.Replacement memory word =
            MeterRegistry.Replacement(broken, binding.meter, registry.nonces(owner), uint64(block.timestamp));

        bytes memory foreign = Devices.signReplacement(registry, 99, word);
        _refuses(abi.encodeWithSelector(MeterRegistry.NotSignedByOwner.selector, broken, owner), word, foreign, binding, device);

        bytes memory signature = Devices.signReplacement(registry, enrolment.OWNER_KEY(), word);
        MeterRegistry.Binding memory elsewhere = Devices.bind(registry, 2, owner, enrolment.point(1));
        _refuses(
            abi.encodeWithSelector(MeterRegistry.ReplacementMismatch.selector, broken, binding.meter),
            word,
            signature,
            elsewhere,
            device
        );
        vm.warp(block.timestamp + 1);
        _refuses(
            abi.encodeWithSelector(MeterRegistry.ReplacementExpired.selector, broken, block.timestamp - 1),
            word,
            signature,
            binding,
            device
        );
        word.broken = enrolment.meter(5);
        _refuses(
            abi.encodeWithSelector(MeterRegistry.NotSignedByOwner.selector, word.broken, address(0)),
            word,
            signature,
            binding,
            device
        );
    }

    function _refuses(
        bytes memory reason,
        MeterRegistry.Replacement memory word,
        bytes memory signature,
        MeterRegistry.Binding memory binding,
        bytes memory device
    ) private {
        vm.expectRevert(reason);
        vm.prank(address(enrolment));
        registry.replace(word, signature, binding, device);
    }

    function testFuzz_OnlyTheMetersKeyBindsIt(uint256 meterKey, uint256 otherKey) external {
        meterKey = within(meterKey, 1, 2 ** 250);
        otherKey = within(otherKey, 1, 2 ** 250);
        if (meterKey == otherKey) return;
        MeterRegistry own = new MeterRegistry(address(this), address(this), new Owners());
        MeterRegistry.Binding[] memory bindings = new MeterRegistry.Binding[](1);
        bytes[] memory signatures = new bytes[](1);
        bindings[0] = Devices.bind(own, meterKey, address(0xA), "point");

        signatures[0] = Devices.sign(own, otherKey, bindings[0]);
        vm.expectRevert(
            abi.encodeWithSelector(
                MeterRegistry.NotSignedByMeter.selector, bindings[0].meter, vm.addr(otherKey)
            )
        );
        own.register(bindings, signatures);

        signatures[0] = Devices.sign(own, meterKey, bindings[0]);
        own.register(bindings, signatures);
        assert(own.meterOf(bindings[0].meter).owner == address(0xA));

        vm.expectRevert(abi.encodeWithSelector(Nonces.InvalidAccountNonce.selector, bindings[0].meter, 1));
        own.register(bindings, signatures);
    }

    /// One field changed after signing: the signature is no longer the meter's.
    function testFuzz_NoFieldCanBeChangedAfterSigning(uint8 field, uint256 bits) external {
        MeterRegistry own = new MeterRegistry(address(this), address(this), new Owners());
        MeterRegistry.Binding[] memory bindings = new MeterRegistry.Binding[](1);
        bytes[] memory signatures = new bytes[](1);
        MeterRegistry.Binding memory signed = Devices.bind(own, 7, address(0xA), "point");
        signatures[0] = Devices.sign(own, 7, signed);
        bits = within(bits, 1, type(uint32).max);
        if (field % 4 == 0) signed.owner = address(uint160(signed.owner) ^ uint160(bits));
        if (field % 4 == 1) signed.connectionPoint ^= bytes32(bits);
        if (field % 4 == 2) signed.nonce ^= bits;
        if (field % 4 == 3) signed.deadline += uint64(bits);
        if (signed.owner == address(0)) return;
        bindings[0] = signed;
        try own.register(bindings, signatures) {
            assert(false);
        } catch (bytes memory reason) {
            assert(bytes4(reason) == MeterRegistry.NotSignedByMeter.selector);
        }
    }
}
