// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @title Credit that passes through the clearing account without stopping there
/// @notice A balanced batch takes from its debtors what it gives to its creditors. The clearing account, which is
/// this contract, stands between them: it would hold the same before and after, so its balance is not written. Each
/// leg still is a real `Transfer` event.
///
/// Invariant, kept by the caller: within a transaction the sum of {_debit} and {_debitShort} equals the sum of {_credit}, so that
/// balances still add up to `totalSupply()`.
///
/// @dev Why assembly: OpenZeppelin's `_update` is the only way to its private balances, and through it every leg
/// also writes the clearing account, which costs a third more gas a batch. Here a leg reads and writes one slot.
/// What makes that safe, and where it is shown:
/// - OpenZeppelin's `_balances` is the mapping at slot 0, its `_totalSupply` is slot 2: `build.mjs` refuses to compile
///   where the compiler's own storage layout says otherwise;
/// - all of them do what `_update` does: `test/ClearedCredit.t.sol` compares them, by fuzzing and symbolically.
abstract contract ClearedCredit is ERC20 {
    /// @dev keccak256("Transfer(address,address,uint256)").
    bytes32 private constant TRANSFER = 0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef;

    /// @dev Moves `amount` µEUR from `account` to the clearing account, or nothing where the account has less.
    /// @param account an address without dirty upper bits, neither zero nor the clearing account
    /// @return missing what the account lacks, µEUR; zero where the amount was moved
    function _debit(address account, uint256 amount) internal returns (uint256 missing) {
        assembly ("memory-safe") {
            // Both words are scratch space: the key of the mapping, and its slot.
            mstore(0x00, account)
            mstore(0x20, 0)
            let slot := keccak256(0x00, 0x40)
            let held := sload(slot)
            switch lt(held, amount)
            case 0 {
                sstore(slot, sub(held, amount))
                mstore(0x00, amount)
                log3(0x00, 0x20, TRANSFER, account, address())
            }
            default { missing := sub(amount, held) }
        }
    }

    /// @dev The same where `account` lacks `missing` of `amount` µEUR, which come into being for it: all that it has goes. Its
    /// balance is written once, and not at all where it has nothing; else a batch of many such accounts would need
    /// more gas than a transaction may be sent with.
    function _debitShort(address account, uint256 amount, uint256 missing) internal {
        assembly ("memory-safe") {
            mstore(0x00, account)
            mstore(0x20, 0)
            let slot := keccak256(0x00, 0x40)
            if sload(slot) { sstore(slot, 0) }
            // OpenZeppelin's _totalSupply.
            sstore(2, add(sload(2), missing))
            mstore(0x00, missing)
            log3(0x00, 0x20, TRANSFER, 0, account)
            mstore(0x00, amount)
            log3(0x00, 0x20, TRANSFER, account, address())
        }
    }

    /// @dev Moves `amount` µEUR from the clearing account to `account`. The sum cannot overflow: it is at most the
    /// supply.
    /// @param account an address without dirty upper bits, neither zero nor the clearing account
    function _credit(address account, uint256 amount) internal {
        assembly ("memory-safe") {
            mstore(0x00, account)
            mstore(0x20, 0)
            let slot := keccak256(0x00, 0x40)
            sstore(slot, add(sload(slot), amount))
            mstore(0x00, amount)
            log3(0x00, 0x20, TRANSFER, address(), account)
        }
    }
}
