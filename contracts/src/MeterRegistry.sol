// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";
import {Nonces} from "@openzeppelin/contracts/utils/Nonces.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {Succession} from "./Succession.sol";

/// @title Which meter stands at which connection point, and whose it is
/// @notice The meter's own key signs that it belongs to `owner` at `connectionPoint`; the registrar brings the
/// binding. So the registrar cannot make up a meter, and nobody but it can occupy a connection point.
///
/// Invariants:
/// - a meter has at most one connection point and a connection point at most one meter (a bijection);
/// - a binding is used once: each takes the meter's next nonce, and revocation does not give it back;
/// - a meter is always the current wallet's that its owner's place was taken by, see {Succession};
/// - a meter stands in for a broken one only where its owner, the new device and the registrar agree.
contract MeterRegistry is EIP712, Nonces, AccessControl {
    /// @notice May bring bindings.
    bytes32 public constant REGISTRAR_ROLE = keccak256("REGISTRAR_ROLE");

    bytes32 private constant BINDING_TYPEHASH = keccak256(
        "Binding(address meter,address owner,bytes32 connectionPoint,uint256 nonce,uint64 deadline)"
    );
    bytes32 private constant REPLACEMENT_TYPEHASH =
        keccak256("Replacement(address broken,address meter,uint256 nonce,uint64 deadline)");

    /// @notice What a meter signs.
    struct Binding {
        /// The meter: the address of its key.
        address meter;
        /// The wallet that its energy is settled with.
        address owner;
        /// keccak256(market salt, connection point): the point itself stays private.
        bytes32 connectionPoint;
        /// The meter's next nonce.
        uint256 nonce;
        /// Unix seconds: the last time at which the binding can be brought.
        uint64 deadline;
    }

    /// @notice What an owner signs so that another of its meters takes the place of a broken one.
    struct Replacement {
        /// The meter that is bound now and can no longer sign.
        address broken;
        /// The meter that takes its owner and connection point.
        address meter;
        /// The owner's next nonce.
        uint256 nonce;
        /// Unix seconds: the last time at which the replacement can be brought.
        uint64 deadline;
    }

    struct Meter {
        address owner;
        bytes32 connectionPoint;
    }

    /// @notice Says who stands in for an owner.
    Succession public immutable owners;

    mapping(address meter => Meter) private _meters;

    /// @notice The meter at a connection point, or zero.
    mapping(bytes32 connectionPoint => address) public meterAt;

    event MeterBound(address indexed meter, address indexed owner, bytes32 indexed connectionPoint, uint256 nonce);
    event MeterReplaced(address indexed broken, address indexed meter, bytes32 indexed connectionPoint);
    event MeterRevoked(address indexed meter, address indexed owner, bytes32 indexed connectionPoint);

    /// @notice There must be one signature for each binding.
    error SignatureCountMismatch(uint256 bindings, uint256 signatures);
    /// @notice The binding came too late.
    error BindingExpired(address meter, uint64 deadline);
    /// @notice The binding is signed by another key than the meter's.
    error NotSignedByMeter(address meter, address signer);
    /// @notice The meter is bound already: its owner has to revoke first.
    error MeterAlreadyBound(address meter);
    /// @notice Another meter stands at the connection point.
    error ConnectionPointTaken(bytes32 connectionPoint, address meter);
    /// @notice Neither an owner nor a connection point can be zero.
    error EmptyBinding(address meter);
    /// @notice The replacement came too late.
    error ReplacementExpired(address broken, uint64 deadline);
    /// @notice The replacement is not signed by the broken meter's owner.
    error NotSignedByOwner(address broken, address owner);
    /// @notice The new device's binding is not for the meter, owner and connection point of the replacement.
    error ReplacementMismatch(address broken, address meter);
    /// @notice Only the owner of a bound meter revokes it.
    error NotMeterOwner(address meter, address caller);

    constructor(address admin, address registrar, Succession owners_) EIP712("Peergrid", "1") {
        owners = owners_;
        _grantRole(DEFAULT_ADMIN_ROLE, admin);
        _grantRole(REGISTRAR_ROLE, registrar);
    }

    /// @notice Binds meters, all of them or none. `signatures[i]` is the meter's EIP-712 signature of `bindings[i]`.
    function register(Binding[] calldata bindings, bytes[] calldata signatures) external onlyRole(REGISTRAR_ROLE) {
        require(bindings.length == signatures.length, SignatureCountMismatch(bindings.length, signatures.length));
        for (uint256 i = 0; i < bindings.length; ++i) {
            _register(bindings[i], signatures[i]);
        }
    }

    /// @notice Unbinds the caller's meter and frees its connection point.
    function revoke(address meter) external {
        Meter memory bound = meterOf(meter);
        require(bound.owner != address(0) && bound.owner == _msgSender(), NotMeterOwner(meter, _msgSender()));
        _unbind(meter, bound);
    }

    /// @notice Puts a new meter in the place of a broken one: same owner, same connection point.
    /// @param replacement the owner's word; `ownerSignature` is its EIP-712 signature, or what a contract wallet takes
    /// for one (ERC-1271)
    /// @param binding the new device's word; `deviceSignature` is its EIP-712 signature
    function replace(
        Replacement calldata replacement,
        bytes calldata ownerSignature,
        Binding calldata binding,
        bytes calldata deviceSignature
    ) external onlyRole(REGISTRAR_ROLE) {
        address broken = replacement.broken;
        Meter memory bound = meterOf(broken);
        require(bound.owner != address(0), NotSignedByOwner(broken, address(0)));
        require(block.timestamp <= replacement.deadline, ReplacementExpired(broken, replacement.deadline));
        require(
            binding.meter == replacement.meter && binding.owner == bound.owner
                && binding.connectionPoint == bound.connectionPoint,
            ReplacementMismatch(broken, binding.meter)
        );
        bytes32 structHash = keccak256(
            abi.encode(
                REPLACEMENT_TYPEHASH, broken, replacement.meter, replacement.nonce, replacement.deadline
            )
        );
        require(
            SignatureChecker.isValidSignatureNowCalldata(bound.owner, _hashTypedDataV4(structHash), ownerSignature),
            NotSignedByOwner(broken, bound.owner)
        );
        _useCheckedNonce(bound.owner, replacement.nonce);
        _unbind(broken, bound);
        _register(binding, deviceSignature);
        emit MeterReplaced(broken, binding.meter, bound.connectionPoint);
    }

    /// @notice Current owner and connection point of a meter; zeros where it is not bound.
    function meterOf(address meter) public view returns (Meter memory bound) {
        bound = _meters[meter];
        bound.owner = owners.currentWallet(bound.owner);
    }

    function _unbind(address meter, Meter memory bound) private {
        delete _meters[meter];
        delete meterAt[bound.connectionPoint];
        emit MeterRevoked(meter, bound.owner, bound.connectionPoint);
    }

    function _register(Binding calldata binding, bytes calldata signature) private {
        address meter = binding.meter;
        require(binding.owner != address(0) && binding.connectionPoint != 0, EmptyBinding(meter));
        require(block.timestamp <= binding.deadline, BindingExpired(meter, binding.deadline));

        bytes32 structHash = keccak256(
            abi.encode(
                BINDING_TYPEHASH, meter, binding.owner, binding.connectionPoint, binding.nonce, binding.deadline
            )
        );
        address signer = ECDSA.recoverCalldata(_hashTypedDataV4(structHash), signature);
        require(signer == meter, NotSignedByMeter(meter, signer));
        _useCheckedNonce(meter, binding.nonce);

        require(_meters[meter].owner == address(0), MeterAlreadyBound(meter));
        address other = meterAt[binding.connectionPoint];
        require(other == address(0), ConnectionPointTaken(binding.connectionPoint, other));

        _meters[meter] = Meter(binding.owner, binding.connectionPoint);
        meterAt[binding.connectionPoint] = meter;
        emit MeterBound(meter, binding.owner, binding.connectionPoint, binding.nonce);
    }
}
