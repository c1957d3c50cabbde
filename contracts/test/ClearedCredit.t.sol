// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ClearedCredit} from "../src/ClearedCredit.sol";
import {Log, vm} from "./Vm.sol";

contract Fast is ClearedCredit {
    constructor() ERC20("Fast", "F") {}

    function mint(address account, uint256 amount) external {
        _mint(account, amount);
    }

    function debit(address account, uint256 amount) external returns (uint256) {
        return _debit(account, amount);
    }

    function debitShort(address account, uint256 amount, uint256 missing) external {
        _debitShort(account, amount, missing);
    }

    function credit(address account, uint256 amount) external {
        _credit(account, amount);
    }
}

contract Slow is ERC20("Slow", "S") {
    function mint(address account, uint256 amount) external {
        _mint(account, amount);
    }

    function move(address from, address to, uint256 amount) external {
        _update(from, to, amount);
    }
}

/// @notice The assembly of {ClearedCredit} does to an account and tells in events what OpenZeppelin's `_update` does.
/// Functions that start with `check` are proved for all inputs by halmos; those that start with `test` are fuzzed.
contract ClearedCreditTest {
    Fast private fast;
    Slow private slow;

    function setUp() public {
        fast = new Fast();
        slow = new Slow();
    }

    function check_ADebitIsAnUpdate(address account, address other, uint256 held, uint256 kept, uint256 amount)
        public
    {
        if (account == address(0) || other == address(0) || other == account || held + kept < held) return;
        if (account == address(fast) || other == address(fast) || account == address(slow)) return;
        if (other == address(slow)) return;
        unchecked {
            if (held + kept < held) return;
        }
        fast.mint(account, held);
        slow.mint(account, held);
        fast.mint(other, kept);
        uint256 missing = fast.debit(account, amount);
        if (amount <= held) {
            slow.move(account, address(slow), amount);
            assert(missing == 0);
        } else {
            assert(missing == amount - held);
        }
        assert(fast.balanceOf(account) == slow.balanceOf(account));
        assert(fast.balanceOf(other) == kept);
        assert(fast.balanceOf(address(fast)) == 0);
    }

    function check_ACreditIsAnUpdate(address account, uint256 held, uint256 amount) public {
        if (account == address(0) || account == address(fast) || account == address(slow)) return;
        unchecked {
            if (held + amount < held) return;
        }
        fast.mint(account, held);
        slow.mint(account, held);
        slow.mint(address(slow), amount);
        fast.credit(account, amount);
        slow.move(address(slow), account, amount);
        assert(fast.balanceOf(account) == slow.balanceOf(account));
        assert(fast.balanceOf(address(fast)) == 0);
    }

    /// To make what is missing and to take all of it, in one: the supply grows by what was made, and no more is left.
    function check_AShortDebitIsAMintAndAnUpdate(address account, address other, uint256 held, uint256 kept, uint256 amount)
        public
    {
        if (account == address(0) || other == address(0) || other == account || amount <= held) return;
        if (account == address(fast) || other == address(fast) || account == address(slow)) return;
        if (other == address(slow)) return;
        unchecked {
            if (held + kept < held || amount + kept < amount) return;
        }
        fast.mint(account, held);
        slow.mint(account, held);
        fast.mint(other, kept);
        slow.mint(other, kept);
        fast.debitShort(account, amount, amount - held);
        slow.mint(account, amount - held);
        slow.move(account, address(slow), amount);
        assert(fast.balanceOf(account) == slow.balanceOf(account));
        assert(fast.balanceOf(other) == kept);
        assert(fast.balanceOf(address(fast)) == 0);
        assert(fast.totalSupply() == slow.totalSupply());
    }

    /// What one account gives another gets: balances add up to the supply, whatever the amounts.
    function check_ABalancedPairConservesCredit(address from, address to, uint256 held, uint256 amount) public {
        if (from == address(0) || to == address(0) || from == to) return;
        if (from == address(fast) || to == address(fast)) return;
        fast.mint(from, held);
        if (fast.debit(from, amount) > 0) return;
        fast.credit(to, amount);
        assert(fast.balanceOf(from) + fast.balanceOf(to) == held);
        assert(fast.totalSupply() == held);
    }

    function testFuzz_LegsAreUpdates(address account, address other, uint128 held, uint128 kept, uint128 amount)
        external
    {
        check_ADebitIsAnUpdate(account, other, held, kept, amount);
    }

    function testFuzz_ShortDebitsAreMintsAndUpdates(
        address account,
        address other,
        uint64 held,
        uint128 kept,
        uint128 amount
    ) external {
        check_AShortDebitIsAMintAndAnUpdate(account, other, held, kept, amount);
    }

    function testFuzz_EventsOfAShortDebitAreThoseOfAMintAndAnUpdate(uint160 number, uint64 held, uint128 lacks) external {
        address account = address(number | 1 << 100);
        uint256 missing = uint256(lacks) + 1;
        fast.mint(account, held);
        slow.mint(account, held);
        vm.recordLogs();
        fast.debitShort(account, held + missing, missing);
        slow.mint(account, missing);
        slow.move(account, address(slow), held + missing);
        Log[] memory logs = vm.getRecordedLogs();
        assert(logs.length == 4);
        for (uint256 i = 0; i < 2; ++i) {
            assert(keccak256(logs[i].data) == keccak256(logs[i + 2].data));
            assert(logs[i].topics.length == 3 && logs[i].topics[0] == logs[i + 2].topics[0]);
            assert(logs[i].topics[1] == logs[i + 2].topics[1]);
        }
        assert(logs[0].topics[2] == logs[2].topics[2]);
        assert(logs[1].topics[2] == bytes32(uint256(uint160(address(fast)))));
    }

    function testFuzz_CreditsAreUpdates(address account, uint128 held, uint128 amount) external {
        check_ACreditIsAnUpdate(account, held, amount);
    }

    function testFuzz_EventsAreThoseOfAnUpdate(uint160 number, uint128 amount) external {
        address account = address(number | 1 << 100);
        fast.mint(account, amount);
        slow.mint(account, amount);
        vm.recordLogs();
        fast.debit(account, amount);
        fast.credit(account, amount);
        slow.move(account, address(slow), amount);
        slow.move(address(slow), account, amount);
        Log[] memory logs = vm.getRecordedLogs();
        assert(logs.length == 4);
        for (uint256 i = 0; i < 2; ++i) {
            assert(keccak256(logs[i].data) == keccak256(logs[i + 2].data));
            assert(logs[i].topics.length == 3 && logs[i + 2].topics.length == 3);
            assert(logs[i].topics[0] == logs[i + 2].topics[0]);
            assert(logs[i].topics[2 - i] == bytes32(uint256(uint160(address(fast)))));
            assert(logs[i].topics[1 + i] == logs[i + 2].topics[1 + i]);
        }
    }
}
