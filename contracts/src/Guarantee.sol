// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {BackedCredit} from "./BackedCredit.sol";
import {FollowingCredit} from "./FollowingCredit.sol";

/// @title The market's guarantee: what stands in for an account that owes more than its credit
/// @notice A shortfall is drawn from the account's own pending withdrawal, as long as that is not due, then from the
/// guarantee. What the guarantee gave is the account's debt. An account that has a successor falls short only where the
/// successor does, see {FollowingCredit}. Amounts are µEUR.
///
/// Invariants:
/// - a debt is repaid before anything else: whatever credit the account gets by a deposit, or wants to withdraw, goes
///   to the guarantee first, so an account in debt has no pending withdrawal that was announced after the debt;
/// - `guarantee` + all debts = what was put into the guarantee less what the admin took out of it.
abstract contract Guarantee is FollowingCredit {
    using SafeERC20 for IERC20;

    /// @notice What is left of the guarantee, µEUR. It is backed like credit, but it is nobody's credit.
    uint256 public guarantee;

    event GuaranteeDeposited(address indexed payer, uint256 amount, uint256 guarantee);
    event GuaranteeWithdrawn(address indexed receiver, uint256 amount, uint256 guarantee);
    /// @notice An account owed more than its credit.
    /// @param fromWithdrawal what its own pending withdrawal gave, µEUR
    /// @param fromGuarantee what the guarantee gave, µEUR
    /// @param debt what the account owes to the guarantee now, µEUR
    event ShortfallCovered(address indexed account, uint256 fromWithdrawal, uint256 fromGuarantee, uint256 debt);
    event DebtRepaid(address indexed account, uint256 amount, uint256 debt);

    /// @notice The guarantee does not cover what `account` lacks: nothing of the batch is applied, and it can be sent
    /// again when the guarantee or the account has more.
    error GuaranteeExhausted(address account, uint256 missing, uint256 guarantee);
    /// @notice More than the guarantee has.
    error GuaranteeInsufficient(uint256 guarantee, uint256 needed);

    /// @notice Adds `amount` µEUR to the guarantee, which the caller pays and has approved. It gives no credit.
    function depositGuarantee(uint256 amount) external {
        require(amount > 0, ZeroAmount());
        guarantee += amount;
        emit GuaranteeDeposited(_msgSender(), amount, guarantee);
        stablecoin.safeTransferFrom(_msgSender(), address(this), amount);
    }

    /// @notice Repays what `account` owes out of its credit, as far as that goes. Anyone may call.
    function collectDebt(address account) external {
        _collectDebt(account);
    }

    /// @notice Whether an account has to repay a debt before it may order again: it, or the wallet in its place.
    function isBarred(address account) external view returns (bool) {
        return debtOf(currentWallet(account)) > 0;
    }

    /// @inheritdoc FollowingCredit
    /// @dev What the caller owes to the guarantee is repaid first.
    function announceWithdrawal(uint256 amount) public virtual override {
        _collectDebt(_msgSender());
        super.announceWithdrawal(amount);
    }

    /// @dev Pays `amount` µEUR of the guarantee out to `receiver`. Who may do this is the derived contract's to say.
    function _withdrawGuarantee(address receiver, uint256 amount) internal {
        require(amount <= guarantee, GuaranteeInsufficient(guarantee, amount));
        guarantee -= amount;
        emit GuaranteeWithdrawn(receiver, amount, guarantee);
        stablecoin.safeTransfer(receiver, amount);
    }

    /// @dev Moves `amount` µEUR, of which `account` lacks `missing`, to the clearing account.
    function _takeShort(address account, uint256 amount, uint256 missing) internal {
        (, bool succeeded) = _party(account);
        if (succeeded) _drawSuccessor(account, missing);
        else _lend(account, missing);
        _debitShort(account, amount, missing);
    }

    /// @inheritdoc FollowingCredit
    function _lend(address account, uint256 missing) internal override {
        uint256 fromWithdrawal = _drawPending(account, missing);
        uint256 fromGuarantee = missing - fromWithdrawal;
        uint256 debt = debtOf(account);
        if (fromGuarantee > 0) {
            require(fromGuarantee <= guarantee, GuaranteeExhausted(account, fromGuarantee, guarantee));
            _spendGuarantee(fromGuarantee);
            guarantee -= fromGuarantee;
            debt += fromGuarantee;
            _setParty(account, debt, false);
        }
        emit ShortfallCovered(account, fromWithdrawal, fromGuarantee, debt);
    }

    /// @inheritdoc BackedCredit
    /// @dev BackedCredit calls it.
    // slither-disable-next-line dead-code
    function _creditDeposit(address payer, address account, uint256 amount) internal virtual override {
        super._creditDeposit(payer, account, amount);
        _collectDebt(account);
    }

    /// @dev Reverts where a shortfall may not draw `amount` µEUR from the guarantee now.
    function _spendGuarantee(uint256 amount) internal virtual;

    /// @inheritdoc FollowingCredit
    function _collectDebt(address account) internal override {
        (uint256 debt, bool succeeded) = _party(account);
        uint256 amount = Math.min(debt, balanceOf(account));
        if (amount == 0) return;
        _burn(account, amount);
        guarantee += amount;
        _setParty(account, debt - amount, succeeded);
        emit DebtRepaid(account, amount, debt - amount);
    }
}
