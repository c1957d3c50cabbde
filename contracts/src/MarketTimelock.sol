// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {TimelockController} from "@openzeppelin/contracts/governance/TimelockController.sol";

/// @title The admin of a market's contracts
/// @notice Whatever the operator changes (bounds of the settler, roles, the guarantee) stands announced on the chain
/// for the delay, so that members who do not like it can withdraw before. The delay must be longer than the escrow's
/// withdrawal delay for that; `deploy` refuses terms where it is not. Only the timelock itself can change it.
contract MarketTimelock is TimelockController {
    /// @param minDelay seconds between announcing and doing
    /// @param operator proposes, cancels and executes; it is no admin of the timelock
    constructor(uint256 minDelay, address operator)
        TimelockController(minDelay, _alone(operator), _alone(operator), address(0))
    {}

    function _alone(address account) private pure returns (address[] memory accounts) {
        accounts = new address[](1);
        accounts[0] = account;
    }
}
