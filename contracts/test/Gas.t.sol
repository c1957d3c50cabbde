// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Succession} from "../src/Succession.sol";
import {Stand} from "./Stand.sol";
import {Words} from "./Words.sol";
import {vm} from "./Vm.sol";

/// @notice Gas of a settlement between accounts that all have credit, as whole transactions: `snapshots/Gas.json`.
/// contracts/forge.sh fails where that changes.
contract Gas is Stand {
    function setUp() external {
        _begin(1e12, 1e15, 1e12);
        for (uint256 i = 0; i < 1500; ++i) {
            escrow.depositFor(account(i), 1e9);
        }
        escrow.settle(MARKET, 0, 0, "root", batch(2));
    }

    /// forge-config: default.isolate = true
    function test_Settle100Accounts() external {
        escrow.settle(MARKET, 1, 0, "root", batch(100));
        vm.snapshotGasLastCall("settle 100 accounts");
    }

    /// forge-config: default.isolate = true
    function test_Settle1500Accounts() external {
        escrow.settle(MARKET, 1, 0, "root", batch(1500));
        uint256 gas = vm.snapshotGasLastCall("settle 1500 accounts");
        // EIP-7825: it fits into a transaction.
        assert(gas < 2 ** 24);
    }

    /// The dearest chunk that `contracts/positions.py` makes (450 positions): every debtor short, every creditor new.
    /// forge-config: default.isolate = true
    function test_SettleTheDearestChunk() external {
        escrow.depositGuarantee(1e12);
        bytes memory positions = batch(450);
        for (uint256 i = 0; i < 450; ++i) {
            // Other accounts than those that have credit.
            positions[i * 28] = 0x22;
        }
        escrow.settle(MARKET, 1, 0, "root", positions);
        assert(vm.snapshotGasLastCall("settle 225 short debtors and 225 new creditors") < 2 ** 24);
    }

    /// All but one are debtors that have nothing: dearer than the half of them and new creditors.
    /// forge-config: default.isolate = true
    function test_SettleAChunkOfShortDebtorsAndOneCreditor() external {
        escrow.depositGuarantee(1e12);
        bytes memory positions;
        for (uint160 i = 0; i < 449; ++i) {
            positions = abi.encodePacked(positions, address(uint160(0x22) << 152 | i * 9 + 1), -int64(1_000_000));
        }
        positions = abi.encodePacked(positions, account(1), int64(449_000_000));
        escrow.settle(MARKET, 1, 0, "root", positions);
        assert(vm.snapshotGasLastCall("settle 449 short debtors and a creditor") < 2 ** 24);
    }

    /// Where debtors have some credit left, emptying it costs more, and what is refunded has to be there first.
    function test_ShortDebtorsWithSomeCreditFitIntoATransaction() external {
        escrow.depositGuarantee(1e12);
        bytes memory positions;
        for (uint160 i = 0; i < 425; ++i) {
            address debtor = address(uint160(0x22) << 152 | i * 9 + 1);
            escrow.depositFor(debtor, 1);
            positions = abi.encodePacked(positions, debtor, -int64(1_000_000));
        }
        positions = abi.encodePacked(positions, account(1), int64(425_000_000));
        // Without what the transaction itself and its calldata cost.
        escrow.settle{gas: 2 ** 24 - 21_000 - 16 * positions.length}(MARKET, 1, 0, "root", positions);
    }

    /// The same where another wallet has each debtor's place, and is short as well.
    /// forge-config: default.isolate = true
    function test_SettleTheDearestChunkOfSucceededDebtors() external {
        escrow.depositGuarantee(1e12);
        bytes memory positions = batch(450);
        uint256[] memory keys = new uint256[](225);
        for (uint256 i = 0; i < 225; ++i) {
            keys[i] = 0x8000 + i;
            // Debtors stand by ascending account.
            for (uint256 j = i; j > 0 && vm.addr(keys[j - 1]) > vm.addr(keys[j]); --j) {
                (keys[j - 1], keys[j]) = (keys[j], keys[j - 1]);
            }
        }
        for (uint256 i = 0; i < 225; ++i) {
            bytes20 owner = bytes20(_handOver(keys[i], 0x9000 + i));
            for (uint256 j = 0; j < 20; ++j) {
                positions[i * 28 + j] = owner[j];
            }
            positions[(225 + i) * 28] = 0x22;
        }
        escrow.settle(MARKET, 1, 0, "root", positions);
        assert(vm.snapshotGasLastCall("settle 225 short debtors that have successors") < 2 ** 24);
    }

    function _handOver(uint256 key, uint256 successorKey) private returns (address owner) {
        address successor = vm.addr(successorKey);
        owner = vm.addr(key);
        Succession.Word memory word = Words.about(escrow, owner, successor, owner);
        escrow.handOver(
            word,
            Words.sign(escrow, Words.SUCCESSION, key, word),
            Words.sign(escrow, Words.SUCCESSION, successorKey, word)
        );
        escrow.depositFor(successor, 1);
    }

    function account(uint256 index) private pure returns (address) {
        // Addresses without zero bytes, like most.
        return address(uint160(0x1111111111111111111111111111111111110000) + uint160(index) * 9);
    }

    /// The first half pays the second half, each another amount of about a euro.
    function batch(uint256 count) private pure returns (bytes memory positions) {
        positions = new bytes(count * 28);
        for (uint256 i = 0; i < count; ++i) {
            int64 amount = int64(int256(1_000_000 + (i % (count / 2)) * 7));
            bytes32 packed = bytes32(abi.encodePacked(account(i), i < count / 2 ? -amount : amount));
            assembly ("memory-safe") {
                let place := add(add(positions, 32), mul(i, 28))
                let rest := and(mload(place), 0xffffffff)
                mstore(place, or(packed, rest))
            }
        }
    }
}
