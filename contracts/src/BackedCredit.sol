// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Metadata} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Metadata.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {ClearedCredit} from "./ClearedCredit.sol";

/// @title Credit in a market, backed 1:1 by a stablecoin
/// @notice Amounts are µEUR: the stablecoin has 6 decimals and so has the credit.
///
/// Invariants:
/// - stablecoin held here >= `totalSupply()` + `pendingTotal` + the guarantee; it is more only if someone sent it here
///   by mistake;
/// - credit comes into being by a deposit of the same amount and ends by an announced withdrawal only ({Guarantee}
///   adds one way in and one way out);
/// - holders cannot move credit among themselves, so what backs a holder's orders cannot run away;
/// - what was announced is paid to its account when due: no role, no pause and no other contract is asked.
///
/// @dev The stablecoin must neither take a fee on transfer nor rebase.
abstract contract BackedCredit is ClearedCredit {
    using SafeERC20 for IERC20;

    struct Withdrawal {
        /// µEUR that no longer count as credit.
        uint128 amount;
        /// Unix seconds from which on the amount is paid.
        uint64 dueAt;
    }

    uint8 private constant DECIMALS = 6;

    /// @notice What backs the credit.
    IERC20 public immutable stablecoin;
    /// @notice Seconds between announcing a withdrawal and its payment.
    uint64 public immutable withdrawalDelay;
    /// @notice Sum of all announced withdrawals that have not been paid, µEUR.
    uint256 public pendingTotal;

    mapping(address account => Withdrawal) private _withdrawals;

    event Deposited(address indexed payer, address indexed account, uint256 amount);
    event WithdrawalAnnounced(address indexed account, uint256 amount, uint256 pending, uint256 dueAt);
    event Withdrawn(address indexed account, uint256 amount);

    /// @notice The stablecoin must have 6 decimals.
    error UnsupportedDecimals(uint8 decimals);
    /// @notice Credit moves by settlement only.
    error CreditNotTransferable();
    /// @notice The clearing account can hold no credit between settlements.
    error ClearingAccountRefused();
    /// @notice Nothing to deposit or to withdraw.
    error ZeroAmount();
    /// @notice The withdrawal becomes due at `dueAt` (0: none was announced).
    error WithdrawalNotDue(address account, uint256 dueAt);

    constructor(IERC20Metadata stablecoin_, uint64 withdrawalDelay_) {
        uint8 stablecoinDecimals = stablecoin_.decimals();
        require(stablecoinDecimals == DECIMALS, UnsupportedDecimals(stablecoinDecimals));
        stablecoin = stablecoin_;
        withdrawalDelay = withdrawalDelay_;
    }

    /// @inheritdoc ERC20
    function decimals() public pure override returns (uint8) {
        return DECIMALS;
    }

    /// @notice Credits `account` with `amount` µEUR, which the caller pays and has approved.
    function depositFor(address account, uint256 amount) public virtual {
        _deposit(_msgSender(), account, amount);
    }

    /// @notice Credits `owner` with `amount` µEUR that `owner` pays, on the word of its ERC-2612 permit for this
    /// contract. Anyone may bring the permit: the credit goes to `owner`.
    function depositWithPermit(address owner, uint256 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s)
        public
        virtual
    {
        // A permit that someone else has already brought to the stablecoin has done its work: go on with what
        // it allowed, and let the transfer judge.
        try IERC20Permit(address(stablecoin)).permit(owner, address(this), amount, deadline, v, r, s) {} catch {}
        _deposit(owner, owner, amount);
    }

    /// @notice Takes `amount` µEUR out of the caller's credit at once and pays it out after {withdrawalDelay}. Until
    /// then it stays liable for what the caller still owes from before.
    /// @dev What was announced earlier and is due is paid now; what is not due yet waits with the new amount.
    function announceWithdrawal(uint256 amount) public virtual {
        require(amount > 0, ZeroAmount());
        address account = _msgSender();
        _burn(account, amount);
        pendingTotal += amount;
        Withdrawal memory earlier = _withdrawals[account];
        uint256 due = _isDue(earlier) ? earlier.amount : 0;
        // A credit of more than 2^128 µEUR cannot be: no stablecoin has a supply near it.
        // forge-lint: disable-next-line(unsafe-typecast)
        uint128 pending = uint128(earlier.amount - due + amount);
        uint64 dueAt = uint64(block.timestamp) + withdrawalDelay;
        _withdrawals[account] = Withdrawal(pending, dueAt);
        emit WithdrawalAnnounced(account, amount, pending, dueAt);
        if (due > 0) _payOut(account, due);
    }

    /// @notice Pays `account` what is due to it. Anyone may call.
    function withdraw(address account) external {
        Withdrawal memory withdrawal = _withdrawals[account];
        require(_isDue(withdrawal), WithdrawalNotDue(account, withdrawal.dueAt));
        delete _withdrawals[account];
        _payOut(account, withdrawal.amount);
    }

    /// @notice What `account` has announced and not been paid.
    function pendingWithdrawal(address account) external view returns (Withdrawal memory) {
        return _withdrawals[account];
    }

    /// @notice Refused: credit moves by settlement only.
    function transfer(address, uint256) public pure override returns (bool) {
        revert CreditNotTransferable();
    }

    /// @notice Refused: credit moves by settlement only.
    function transferFrom(address, address, uint256) public pure override returns (bool) {
        revert CreditNotTransferable();
    }

    /// @notice Refused: there is nothing that an allowance could be used for.
    function approve(address, uint256) public pure override returns (bool) {
        revert CreditNotTransferable();
    }

    /// @dev Takes up to `amount` µEUR back from what `account` has announced and is not due: it backs credit again.
    /// @return taken what there was, µEUR
    function _drawPending(address account, uint256 amount) internal returns (uint256 taken) {
        Withdrawal storage withdrawal = _withdrawals[account];
        if (_isDue(withdrawal)) return 0;
        taken = Math.min(withdrawal.amount, amount);
        // It is at most what it is taken from.
        // forge-lint: disable-next-line(unsafe-typecast)
        withdrawal.amount -= uint128(taken);
        pendingTotal -= taken;
    }

    /// @dev Takes what `account` and `successor` have announced: what is not due waits for the successor. Where both wait,
    /// the later time counts, so that nothing is free of a shortfall earlier than it was.
    /// @return pending what waits, µEUR
    /// @return due what the caller has to pay out to the successor, µEUR
    function _movePending(address account, address successor) internal returns (uint256 pending, uint256 due) {
        Withdrawal memory moved = _withdrawals[account];
        Withdrawal memory own = _withdrawals[successor];
        delete _withdrawals[account];
        delete _withdrawals[successor];
        due = (_isDue(moved) ? moved.amount : 0) + (_isDue(own) ? own.amount : 0);
        pending = uint256(moved.amount) + own.amount - due;
        if (pending > 0) {
            // What is due was due earlier than what is not. The sum is backed by stablecoin, see announceWithdrawal.
            // forge-lint: disable-next-line(unsafe-typecast)
            _withdrawals[successor] = Withdrawal(uint128(pending), uint64(Math.max(moved.dueAt, own.dueAt)));
        }
    }

    /// @dev Pays `amount` µEUR, which are pending, out to `account`.
    function _payOut(address account, uint256 amount) internal {
        pendingTotal -= amount;
        emit Withdrawn(account, amount);
        stablecoin.safeTransfer(account, amount);
    }

    /// @dev Makes a deposit credit, before it is paid.
    function _creditDeposit(address payer, address account, uint256 amount) internal virtual {
        _mint(account, amount);
        emit Deposited(payer, account, amount);
    }

    function _deposit(address payer, address account, uint256 amount) private {
        require(amount > 0, ZeroAmount());
        require(account != address(this), ClearingAccountRefused());
        _creditDeposit(payer, account, amount);
        stablecoin.safeTransferFrom(payer, address(this), amount);
    }

    function _isDue(Withdrawal memory withdrawal) private view returns (bool) {
        return withdrawal.amount > 0 && block.timestamp >= withdrawal.dueAt;
    }
}
