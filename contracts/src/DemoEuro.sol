// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

/// @title Demo Euro: the stablecoin of demonstrations and tests
/// @notice Its owner mints at will, so it is worth nothing. A real market names a real euro stablecoin
/// with 6 decimals instead. One unit is 1 µEUR.
contract DemoEuro is ERC20, ERC20Permit, Ownable {
    constructor(address owner) ERC20("Demo Euro", "dEUR") ERC20Permit("Demo Euro") Ownable(owner) {}

    /// @notice Creates `amount` µEUR for `account`.
    function mint(address account, uint256 amount) external onlyOwner {
        _mint(account, amount);
    }

    /// @inheritdoc ERC20
    function decimals() public pure override returns (uint8) {
        return 6;
    }
}
