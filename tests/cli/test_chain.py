"""``peergrid chain`` and ``peergrid verify --proof``: on a run's own chain, and on a node."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from eth_hash.auto import keccak

from contracts.deployment import Deployment, EscrowTerms, deploy
from contracts.journal import SqliteJournal
from contracts.market_contracts import MarketContracts
from contracts.rpc import RpcChain
from contracts.sender import Patience, Sender
from market.messages.signing import Signer, feeder_hash
from meters.identity import write_key
from tests.cli.conftest import Outcome, run_process
from tests.contracts import operator_process
from tests.contracts.anvil import Anvil

EUR = 1_000_000
THREE_DAYS_S = 3 * 86400 + 60
FIRST = "2016-06-10T00:00:00Z"
Peergrid = Callable[..., Outcome]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of four intervals, each settled by a batch of its own."""
    folder = tmp_path_factory.mktemp("chain") / "run"
    flags = ("--feeder", "simbench:1-LV-rural1--2-sw", "--date", "2016-06-10", "--intervals", 4)
    outcome = run_process("demo", *flags, "--settle-every", "interval", "--out", folder, "--json")
    assert outcome.status == 0, outcome.err
    return folder


@pytest.fixture
def anvil() -> Iterator[Anvil]:
    node = Anvil()
    yield node
    node.end()


def key_file(folder: Path, name: str) -> tuple[Path, Signer]:
    secret = keccak(name.encode())
    path = folder / f"{name}.key"
    write_key(path, secret)
    return path, Signer(secret)


def test_status_shows_that_all_credit_is_backed(day: Path, peergrid: Peergrid) -> None:
    status = peergrid("chain", "status", "--out", day, "--json").document
    assert status["backed"]
    assert status["supply_ueur"] + status["guarantee_ueur"] == status["backing_ueur"]
    assert min(status["supply_ueur"], status["guarantee_ueur"]) > 0
    assert (status["batches_pending"], status["batches_final"]) == (0, 4)
    text = peergrid("chain", "status", "--out", day)
    assert text.status == 0
    assert status["escrow"] in text.out


def test_balances_are_all_the_credit_there_is(day: Path, peergrid: Peergrid) -> None:
    rows = peergrid("chain", "balances", "--out", day, "--json").document["accounts"]
    status = peergrid("chain", "status", "--out", day, "--json").document
    assert sum(row["credit_ueur"] for row in rows) == status["supply_ueur"]
    assert {"load:0", "retailer", "network", "imbalance", "rounding"} <= {row["name"] for row in rows}
    one = peergrid("chain", "balances", rows[0]["address"], "--out", day, "--json").document["accounts"]
    assert one == rows[:1]


def test_a_household_proves_its_own_records_and_no_others(
    day: Path, tmp_path: Path, peergrid: Peergrid
) -> None:
    printed = peergrid("chain", "proof", "--out", day, "--household", "load:3", "--interval", FIRST)
    proof = tmp_path / "proof.json"
    proof.write_text(printed.out)

    report = peergrid("verify", "--proof", proof, "--out", day, "--json")
    assert report.status == 0
    records = report.document["records"]
    assert sorted(record["kind"] for record in records) == [
        "award",
        "clearing",
        "posting",
        "price",
        "reading",
    ]
    award = next(record for record in records if record["kind"] == "award")
    stored = sqlite3.connect(f"file:{day / 'market.sqlite'}?mode=ro", uri=True)
    (amount,) = stored.execute(
        "SELECT amount_neur FROM award JOIN meter USING (meter) JOIN interval USING (interval_start)"
        " WHERE connection_point = 'load:3' ORDER BY interval_start LIMIT 1"
    ).fetchone()
    stored.close()
    assert award["amount_neur"] == amount
    assert "not proved" in peergrid("verify", "--proof", proof, "--out", day).out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["batches"][0]["leaves"][0]["proof"].pop(), "does not lead to the root"),
        (lambda d: d["batches"][0]["leaves"][1]["value"].__setitem__(3, "{}"), "does not lead to the root"),
        (lambda d: d["batches"][0].__setitem__("root", "0x" + "11" * 32), "has the root"),
        (lambda d: d["batches"][0].__setitem__("block", 1), "was not settled in block 1"),
        (lambda d: d.__setitem__("market", "another"), "was not settled"),
        (lambda d: d.__setitem__("escrow", "0x" + "11" * 20), "there is no contract"),
        (lambda d: d.__setitem__("interval_start", d["interval_start"] + 900), "of another interval"),
    ],
)
def test_a_proof_that_was_changed_anywhere_does_not_hold(
    day: Path, tmp_path: Path, peergrid: Peergrid, change: Callable[[dict], None], said: str
) -> None:
    document = peergrid("chain", "proof", "--out", day, "--household", "load:3", "--interval", FIRST).document
    change(document)
    proof = tmp_path / "proof.json"
    proof.write_text(json.dumps(document))
    report = peergrid("verify", "--proof", proof, "--out", day, "--json")
    assert report.status == 1
    assert said in " ".join(report.document["wrong"])


def test_a_simulated_household_withdraws_and_deposits(day: Path, peergrid: Peergrid) -> None:
    who = ("--household", "load:5", "--out", day, "--json")
    announced = peergrid("chain", "withdraw", "--all", *who).document
    assert announced["credit_ueur"] == 0
    early = peergrid("chain", "withdraw", *who)
    assert early.status == 1
    assert "WithdrawalNotDue" in early.err
    paid = peergrid("chain", "withdraw", *who, "--at", announced["due_at"]).document
    assert paid["stablecoin_ueur"] == announced["pending_ueur"] > 0
    back = peergrid("chain", "deposit", "12.5", *who).document
    assert (back["credit_ueur"], back["pending_ueur"]) == (12_500_000, 0)
    assert back["stablecoin_ueur"] == paid["stablecoin_ueur"] - 12_500_000


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("status",), "--out, --rpc"),
        (("status", "--out", "nowhere"), "nowhere"),
        (("status", "--rpc", "http://127.0.0.1:1"), "--deployment"),
        (("status", "--rpc", "127.0.0.1:8545", "--deployment", "market.json"), "http://127.0.0.1:8545"),
        (("deposit", "0", "--household", "load:5"), "'0'"),
        (("deposit", "NaN", "--household", "load:5"), "'NaN'"),
        (("deposit", "1.0000001", "--household", "load:5"), "6 decimals"),
        (("withdraw", "1"), "--key"),
        (("withdraw", "1", "--all", "--household", "load:5"), "--all"),
        (("balances", "0x12"), "'0x12'"),
        (("proof", "--household", "load:999", "--interval", FIRST), "load:999"),
        (("proof", "--household", "load:3", "--interval", "noon"), "noon"),
        (("proof", "--household", "load:3", "--interval", "2016-06-11"), "is in no batch"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(
    day: Path, peergrid: Peergrid, arguments: tuple[str, ...], field: str
) -> None:
    place = () if arguments[0] == "status" else ("--out", str(day))
    outcome = peergrid("chain", *arguments, *place)
    assert outcome.status == 2
    assert field in outcome.err
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.needs("anvil")
def test_a_household_withdraws_everything_while_the_operators_process_is_gone(
    tmp_path: Path, anvil: Anvil, peergrid: Peergrid
) -> None:
    key, household = key_file(tmp_path, "household")
    program = Path(operator_process.__file__)
    operator = subprocess.Popen(
        [sys.executable, program, anvil.url, str(tmp_path), household.address],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert operator.stdout
    for line in operator.stdout:
        if line == "settled 4\n":
            break
    operator.kill()
    operator.communicate()
    assert operator.returncode == -signal.SIGKILL

    where = ("--rpc", anvil.url, "--deployment", tmp_path / operator_process.DEPLOYMENT, "--json")
    before = peergrid("chain", "balances", household.address, *where).document["accounts"][0]
    assert before["credit_ueur"] > 60 * EUR
    announced = peergrid("chain", "withdraw", "--all", "--key", key, *where).document
    assert (announced["credit_ueur"], announced["pending_ueur"]) == (0, before["credit_ueur"])
    RpcChain(anvil.url)._ask("evm_increaseTime", THREE_DAYS_S)
    RpcChain(anvil.url)._ask("evm_mine")
    paid = peergrid("chain", "withdraw", "--key", key, *where).document
    assert paid["stablecoin_ueur"] == before["credit_ueur"]
    assert (paid["credit_ueur"], paid["pending_ueur"]) == (0, 0)


@pytest.mark.needs("anvil")
def test_a_market_is_deployed_on_a_node_once(tmp_path: Path, anvil: Anvil, peergrid: Peergrid) -> None:
    key, operator = key_file(tmp_path, "operator")
    _, settler = key_file(tmp_path, "settler")
    node = RpcChain(anvil.url)
    node._ask("anvil_setBalance", operator.address, hex(10**24))
    file = tmp_path / "market.json"
    flags = ("--rpc", anvil.url, "--key", key, "--settler", settler.address, "--deployment", file, "--json")

    short = peergrid("chain", "deploy", *flags, "--admin-delay", 60)
    assert short.status == 2
    assert "longer than withdrawal_delay_s" in short.err

    first = peergrid("chain", "deploy", *flags)
    assert first.status == 0, first.err
    assert peergrid("chain", "deploy", *flags).document == first.document == json.loads(file.read_text())
    status = peergrid("chain", "status", "--rpc", anvil.url, "--deployment", file, "--json").document
    assert status["backed"]
    assert status["position_debit_max_ueur"] == 1000 * EUR
    assert Deployment.read(file).timelock == status["timelock"]


@pytest.mark.needs("anvil")
def test_the_settlers_bounds_change_when_the_timelocks_delay_is_over(
    tmp_path: Path, anvil: Anvil, peergrid: Peergrid
) -> None:
    key, operator = key_file(tmp_path, "operator")
    node, file = RpcChain(anvil.url), tmp_path / "market.json"
    node._ask("anvil_setBalance", operator.address, hex(10**24))
    where = ("--rpc", anvil.url, "--key", key, "--deployment", file, "--json")
    terms = ("--settler", operator.address, "--withdrawal-delay", 600, "--admin-delay", 900)
    assert peergrid("chain", "deploy", *where, *terms).status == 0

    nothing = peergrid("chain", "limits", "raise", *where)
    assert nothing.status == 2 and "--position-max" in nothing.err
    raised = ("limits", "raise", "--position-max", "2500.5", *where)
    announced = peergrid("chain", *raised)
    assert announced.status == 0, announced.err
    early = peergrid("chain", *raised, "--apply")
    assert early.status == 1 and "TimelockUnexpectedOperationState" in early.err
    node._ask("evm_increaseTime", 901)
    node._ask("evm_mine")
    applied = peergrid("chain", *raised, "--apply").document
    before = announced.document
    changed = {name for name in before if before[name] != applied[name]}
    assert changed == {"block", "position_debit_max_ueur"}
    assert applied["position_debit_max_ueur"] == 2_500_500_000


@pytest.mark.needs("anvil")
def test_a_newcomer_on_a_node_gets_demo_euros_and_deposits_them(
    tmp_path: Path, anvil: Anvil, peergrid: Peergrid
) -> None:
    file = tmp_path / "market.json"
    where = ("--rpc", anvil.url, "--deployment", file, "--json")
    (operators_key, operator), (key, newcomer) = (
        key_file(tmp_path, "operator"),
        key_file(tmp_path, "newcomer"),
    )
    for signer in (operator, newcomer):
        RpcChain(anvil.url)._ask("anvil_setBalance", signer.address, hex(10**24))
    made = peergrid("chain", "deploy", "--key", operators_key, "--settler", operator.address, *where)
    assert made.status == 0, made.err

    refused = peergrid("chain", "mint", "20", "--key", key, *where)
    assert refused.status == 1
    assert "OwnableUnauthorizedAccount" in refused.err
    minted = peergrid("chain", "mint", "20", "--to", newcomer.address, "--key", operators_key, *where)
    assert minted.status == 0, minted.err
    assert (minted.document["address"], minted.document["stablecoin_ueur"]) == (newcomer.address, 20_000_000)
    deposited = peergrid("chain", "deposit", "12.5", "--key", key, *where).document
    assert (deposited["credit_ueur"], deposited["stablecoin_ueur"]) == (12_500_000, 7_500_000)


@pytest.mark.needs("anvil")
def test_the_batches_of_a_day_give_the_same_balances_on_anvil(
    day: Path, tmp_path: Path, anvil: Anvil, peergrid: Peergrid
) -> None:
    stored = sqlite3.connect(f"file:{day / 'market.sqlite'}?mode=ro", uri=True)
    deposits = dict(stored.execute("SELECT address, deposit_ueur FROM account"))
    of_batch = "SELECT address, amount_ueur FROM position JOIN account USING (account) WHERE sequence = ?"
    batches = [
        (sequence, bytes.fromhex(root[2:]), dict(stored.execute(of_batch, (sequence,))))
        for sequence, root in stored.execute("SELECT sequence, root FROM batch ORDER BY sequence")
    ]
    (feeder,) = stored.execute("SELECT value FROM run WHERE key = 'feeder'").fetchone()
    stored.close()
    assert len(batches) == 4

    node = RpcChain(anvil.url)
    operator, settler = Signer(keccak(b"same operator")), Signer(keccak(b"same settler"))
    for signer in (operator, settler):
        node._ask("anvil_setBalance", signer.address, hex(10**24))
    journal = SqliteJournal(tmp_path / "journal.sqlite")
    by_operator, by_settler = (
        Sender(node, signer, journal, Patience(poll_s=0.01)) for signer in (operator, settler)
    )
    everything = sum(deposits.values())
    terms = EscrowTerms(
        name="Same",
        symbol="S",
        position_debit_max=everything,
        window_debit_max=everything,
        guarantee_max=everything,
    )
    contracts = MarketContracts(node, deploy(node, by_operator, journal, terms, settler.address))
    contracts.fund(by_operator, "fund", deposits)
    for sequence, root, positions in batches:
        contracts.settle(by_settler, feeder_hash(feeder), sequence, root, positions)
    journal.disconnect()

    rows = peergrid("chain", "balances", "--out", day, "--json").document["accounts"]
    embedded = {row["address"]: row["credit_ueur"] for row in rows if row["name"] != "load:5"}
    on_anvil = contracts.balances(deposits)
    assert {account: on_anvil[account] for account in embedded} == embedded
    assert len(embedded) == len(deposits) - 1  # one has withdrawn in another test
