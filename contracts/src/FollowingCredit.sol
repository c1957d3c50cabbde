// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {BackedCredit} from "./BackedCredit.sol";
import {Succession} from "./Succession.sol";

/// @title Credit, withdrawals and debts follow their owner to a new wallet
/// @notice When a wallet gets a successor, all that it has here goes there with it. What comes to the old wallet later
/// (a batch that was made before, a deposit) can be moved on by anyone; nobody chooses where to.
///
/// Invariants:
/// - what moves leaves one account and arrives at the other: neither supply nor what backs it changes;
/// - a debt goes where the credit goes, and a withdrawal that is not due stays liable until it would have been due;
/// - a wallet with a successor has neither debts nor withdrawals, and what it is debited later its successor pays.
abstract contract FollowingCredit is BackedCredit, Succession {
    /// @dev Twice what an account owes to the guarantee, µEUR, and one more where it has a successor: what a shortfall has
    /// to know lies in one storage slot.
    mapping(address account => uint256) private _parties;

    /// @notice What an account had is its successor's now, µEUR: `credit` and `debt` came with it, `pending` is all that
    /// waits for the successor now, its own withdrawals included; see pendingWithdrawal for until when.
    event Followed(
        address indexed account, address indexed successor, uint256 credit, uint256 pending, uint256 debt
    );
    /// @notice The successor paid what the account was debited, µEUR.
    event SuccessorDrawn(address indexed account, address indexed successor, uint256 credit);

    /// @notice The account has no successor.
    error NoSuccessor(address account);

    /// @notice Moves what came to `account` after another wallet took its place on to that one. Anyone may call.
    function follow(address account) external {
        (, bool succeeded) = _party(account);
        require(succeeded, NoSuccessor(account));
        _follow(account, currentWallet(account));
    }

    /// @notice What an account owes to the guarantee, µEUR. Until it is repaid the account is barred from ordering.
    function debtOf(address account) public view returns (uint256 debt) {
        (debt,) = _party(account);
    }

    /// @inheritdoc BackedCredit
    /// @dev What a succeeded wallet has is its successor's to withdraw.
    function announceWithdrawal(uint256 amount) public virtual override {
        address account = _msgSender();
        (, bool succeeded) = _party(account);
        require(!succeeded, AlreadySucceeded(account, currentWallet(account)));
        super.announceWithdrawal(amount);
    }

    /// @inheritdoc Succession
    function _follow(address account, address successor) internal override {
        (uint256 debt,) = _party(account);
        _setParty(account, 0, true);
        if (debt > 0) _setParty(successor, debtOf(successor) + debt, false);
        uint256 credit = balanceOf(account);
        if (credit > 0) _transfer(account, successor, credit);
        (uint256 pending, uint256 due) = _movePending(account, successor);
        emit Followed(account, successor, credit, pending, debt);
        _collectDebt(successor);
        if (due > 0) _payOut(successor, due);
    }

    /// @dev Takes the `missing` µEUR that `account`, which has a successor, lacks for its debit from that one; they are
    /// `account`'s as soon as they are made for it. Where the successor lacks them as well it falls short.
    function _drawSuccessor(address account, uint256 missing) internal {
        address successor = currentWallet(account);
        uint256 paid = Math.min(balanceOf(successor), missing);
        if (paid > 0) _burn(successor, paid);
        if (paid < missing) _lend(successor, missing - paid);
        emit SuccessorDrawn(account, successor, missing);
    }

    /// @dev Finds the `missing` µEUR that `account` lacks for its debit.
    function _lend(address account, uint256 missing) internal virtual;

    /// @return debt what an account owes to the guarantee, µEUR
    /// @return succeeded whether it has a successor
    function _party(address account) internal view returns (uint256 debt, bool succeeded) {
        uint256 word = _parties[account];
        return (word >> 1, word & 1 == 1);
    }

    /// @param debt µEUR, below 2^255: a guarantee is backed by stablecoin
    function _setParty(address account, uint256 debt, bool succeeded) internal {
        _parties[account] = debt << 1 | (succeeded ? 1 : 0);
    }

    /// @dev Repays what `account` owes out of its credit, as far as that goes.
    function _collectDebt(address account) internal virtual;
}
