// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title How much a settler can move
/// @notice Bounds what a stolen settler key could do: the largest debit of one position, and the largest sum of
/// debits in one window of time. Windows are aligned: window `n` is `[n, n + 1) · windowSeconds`, so that at most
/// twice the bound can move within any stretch of `windowSeconds`.
/// @dev Everything stands in one storage slot.
abstract contract SettlementLimits {
    struct Limits {
        /// Largest debit of one position, µEUR.
        uint64 positionDebitMax;
        /// Largest sum of debits in one window, µEUR.
        uint64 windowDebitMax;
        /// Length of a window, seconds.
        uint32 windowSeconds;
        /// The window that `windowDebit` counts.
        uint32 window;
        /// Sum of the debits in that window so far, µEUR.
        uint64 windowDebit;
    }

    Limits private _limits;

    event LimitsSet(uint64 positionDebitMax, uint64 windowDebitMax, uint32 windowSeconds);

    /// @notice A window must last at least a second.
    error EmptyWindow();
    /// @notice A position owes more than one position may.
    error PositionBeyondLimit(address account, uint256 debit, uint256 debitMax);
    /// @notice The debits of this window would be more than a window may move.
    error WindowBeyondLimit(uint256 debits, uint256 debitMax);

    /// @notice The bounds, and what has been used of the last window that had a settlement.
    function limits() external view returns (Limits memory) {
        return _limits;
    }

    function _positionDebitMax() internal view returns (uint256) {
        return _limits.positionDebitMax;
    }

    /// @dev A change takes effect at once and forgets what the running window has used.
    function _setLimits(uint64 positionDebitMax, uint64 windowDebitMax, uint32 windowSeconds) internal {
        require(windowSeconds > 0, EmptyWindow());
        _limits = Limits(positionDebitMax, windowDebitMax, windowSeconds, 0, 0);
        emit LimitsSet(positionDebitMax, windowDebitMax, windowSeconds);
    }

    /// @dev Counts `debits` µEUR in the window of this block.
    function _spendWindow(uint256 debits) internal {
        Limits memory current = _limits;
        uint32 window = uint32(block.timestamp / current.windowSeconds);
        uint256 spent = debits + (window == current.window ? current.windowDebit : 0);
        require(spent <= current.windowDebitMax, WindowBeyondLimit(spent, current.windowDebitMax));
        current.window = window;
        current.windowDebit = uint64(spent);
        _limits = current;
    }
}
