"""What a flood costs, and how often receipts leave."""

from __future__ import annotations

from eth_hash.auto import keccak

from market.messages.models import ReceiptKind, ReceiptResult
from market.service.answer import Answer
from market.service.budget import STRANGERS, Allowance, Budget
from market.service.receipts import Pacing

ALLOWANCE = Allowance(per_s=10, burst=100, sync_cost=20)


def test_a_meter_that_floods_spends_its_own_budget_and_nobody_elses() -> None:
    budget = Budget({"a", "b"}, ALLOWANCE)
    allowed = sum(budget.spend("a", 0.0, is_sync=False) for _ in range(100_000))
    assert allowed == 100
    assert budget.spend("b", 0.0, is_sync=False)
    assert sum(budget.spend("a", 3.0, is_sync=False) for _ in range(100)) == 30
    assert sum(budget.spend("a", 1e6, is_sync=False) for _ in range(1_000)) == 100


def test_all_strangers_share_one_budget_and_need_no_memory_each() -> None:
    budget = Budget({"a"}, ALLOWANCE)
    strangers = [keccak(str(number).encode()).hex() for number in range(1_000)]
    assert sum(budget.spend(budget.owner(stranger), 0.0, is_sync=False) for stranger in strangers) == 100
    assert budget.owner("a") == "a"
    assert budget.owner("x") == STRANGERS


def test_a_question_costs_more_than_a_message() -> None:
    budget = Budget({"a"}, ALLOWANCE)
    assert sum(budget.spend("a", 0.0, is_sync=True) for _ in range(10)) == 5


def answer(up_to: int, kind: ReceiptKind = ReceiptKind.READING, result: int = 0, epoch: int = 0) -> Answer:
    return Answer("a", kind, up_to, ReceiptResult(result), b"", 0, epoch=epoch)


def test_cumulative_receipts_leave_at_once_then_at_most_one_a_second_with_the_latest() -> None:
    pacing = Pacing()
    assert [a.up_to for a in pacing.due([answer(0)], 0.0)] == [0]
    assert list(pacing.due([answer(1)], 0.5)) == []
    assert list(pacing.due([answer(2)], 0.9)) == []
    assert pacing.owes
    assert [a.up_to for a in pacing.due([], 1.1)] == [2]
    assert not pacing.owes
    assert list(pacing.due([answer(3)], 1.2)) == []
    assert [a.up_to for a in pacing.due([answer(0, epoch=1)], 1.3)] == [0]
    assert [a.up_to for a in pacing.rest()] == [3]


def test_refusals_and_receipts_of_orders_do_not_wait() -> None:
    pacing = Pacing()
    urgent = [answer(0), answer(7, result=2), answer(1, kind=ReceiptKind.ORDER), answer(2, ReceiptKind.ORDER)]
    assert len(list(pacing.due(urgent, 0.0))) == 4
    assert len(list(pacing.due(urgent, 0.1))) == 3
