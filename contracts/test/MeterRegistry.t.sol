// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Nonces} from "@openzeppelin/contracts/utils/Nonces.sol";
import {MeterRegistry} from "../src/MeterRegistry.sol";
import {vm, within} from "./Vm.sol";

/// @notice Signs bindings with keys that forge holds.
library Devices {
    bytes32 internal constant BINDING = keccak256(
        "Binding(address meter,address owner,bytes32 connectionPoint,uint256 nonce,uint64 deadline)"
    );
    bytes32 internal constant DOMAIN =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");

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
        bytes32 domain =
            keccak256(abi.encode(DOMAIN, keccak256("Peergrid"), keccak256("1"), block.chainid, address(registry)));
        bytes32 content = keccak256(abi.encode(BINDING, b.meter, b.owner, b.connectionPoint, b.nonce, b.deadline));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, keccak256(abi.encodePacked(hex"1901", domain, content)));
        return abi.encodePacked(r, s, v);
    }
}

/// @notice Binds and revokes a few meters at a few connection points, in any order.
contract Enrolment {
    uint256 public constant METERS = 6;
    uint256 public constant POINTS = 4;
    address public constant OWNER = address(0xA);

    MeterRegistry public immutable registry = new MeterRegistry(address(this), address(this));

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

    function testFuzz_OnlyTheMetersKeyBindsIt(uint256 meterKey, uint256 otherKey) external {
        meterKey = within(meterKey, 1, 2 ** 250);
        otherKey = within(otherKey, 1, 2 ** 250);
        if (meterKey == otherKey) return;
        MeterRegistry own = new MeterRegistry(address(this), address(this));
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
        MeterRegistry own = new MeterRegistry(address(this), address(this));
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
