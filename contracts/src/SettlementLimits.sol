// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title How much a settler can move
/// @notice Bounds what a stolen settler key could do: the largest debit of one position, the largest sum of debits in
/// one window of time, and the most that shortfalls draw from the guarantee in one window. Windows are aligned: window
/// `n` is `[n, n + 1) · windowSeconds`, so that at most twice the bound can move within any stretch of `windowSeconds`.
/// Amounts are µEUR; 2^56 of them are 72 billion EUR.
/// @dev What every batch needs shares one storage slot, and leaves room there for the flag of {Pausable}. What only
/// shortfalls need lies in the next one.
abstract contract SettlementLimits {
    struct Limits {
        /// Largest debit of one position, µEUR.
        uint56 positionDebitMax;
        /// Largest sum of debits in one window, µEUR.
        uint56 windowDebitMax;
        /// Length of a window, seconds.
        uint32 windowSeconds;
        /// The window that `windowDebit` counts.
        uint32 window;
        /// Sum of the debits in that window so far, µEUR.
        uint56 windowDebit;
    }

    uint56 private _positionDebitMax;
    uint56 private _windowDebitMax;
    uint32 private _windowSeconds;
    uint32 private _window;
    uint56 private _windowDebit;

    uint56 private _guaranteeMax;
    uint32 private _guaranteeWindow;
    uint56 private _guaranteeDrawn;

    event LimitsSet(uint56 positionDebitMax, uint56 windowDebitMax, uint56 guaranteeMax, uint32 windowSeconds);

    /// @notice A window must last at least a second.
    error EmptyWindow();
    /// @notice A position owes more than one position may.
    error PositionBeyondLimit(address account, uint256 debit, uint256 debitMax);
    /// @notice The debits of this window would be more than a window may move.
    error WindowBeyondLimit(uint256 debits, uint256 debitMax);
    /// @notice Shortfalls would draw more from the guarantee than they may in this window: nothing of the batch is
    /// applied, and it can be sent again in the next one.
    error GuaranteeBeyondLimit(uint256 drawn, uint256 drawnMax);

    /// @notice The bounds, and what has been used of the last window that had a settlement.
    function limits() public view returns (Limits memory) {
        return Limits(_positionDebitMax, _windowDebitMax, _windowSeconds, _window, _windowDebit);
    }

    /// @notice Most that shortfalls draw from the guarantee in one window, the last window in which they drew, and how
    /// much, µEUR.
    function guaranteeLimit() external view returns (uint56 guaranteeMax, uint32 window, uint56 drawn) {
        return (_guaranteeMax, _guaranteeWindow, _guaranteeDrawn);
    }

    /// @dev A change takes effect at once and forgets what the running window has used.
    function _setLimits(uint56 positionDebitMax, uint56 windowDebitMax, uint56 guaranteeMax, uint32 windowSeconds)
        internal
    {
        require(windowSeconds > 0, EmptyWindow());
        _positionDebitMax = positionDebitMax;
        _windowDebitMax = windowDebitMax;
        _guaranteeMax = guaranteeMax;
        _guaranteeWindow = 0;
        _guaranteeDrawn = 0;
        _windowSeconds = windowSeconds;
        _window = 0;
        _windowDebit = 0;
        emit LimitsSet(positionDebitMax, windowDebitMax, guaranteeMax, windowSeconds);
    }

    /// @dev Counts `debits` µEUR in the window of this block; `current` is what {limits} returned in this call.
    function _spendWindow(Limits memory current, uint256 debits) internal {
        uint32 window = uint32(block.timestamp / current.windowSeconds);
        // Windows are numbers that are equal or not; nothing can be sent here to make them differ.
        // slither-disable-next-line incorrect-equality
        uint256 spent = debits + (window == current.window ? current.windowDebit : 0);
        require(spent <= current.windowDebitMax, WindowBeyondLimit(spent, current.windowDebitMax));
        _window = window;
        _windowDebit = uint56(spent);
    }
    /// @dev Counts `amount` µEUR that a shortfall draws from the guarantee in the window of this block.
    function _spendGuarantee(uint256 amount) internal virtual {
        uint32 window = uint32(block.timestamp / _windowSeconds);
        // slither-disable-next-line incorrect-equality
        uint256 drawn = amount + (window == _guaranteeWindow ? _guaranteeDrawn : 0);
        require(drawn <= _guaranteeMax, GuaranteeBeyondLimit(drawn, _guaranteeMax));
        _guaranteeWindow = window;
        _guaranteeDrawn = uint56(drawn);
    }
}
