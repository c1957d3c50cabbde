"""A markup that learns from the prices it meets.

Zero intelligence plus: Cliff (1997), "Minimal-intelligence agents for bargaining behaviors in market-based
environments", HP Laboratories HPL-97-91. A trader asks its value × (1 + markup) and bids its value ×
(1 − markup). It raises a markup when the price was better than what it had asked for, lowers it when it was
left out at a price that it would have taken, by Widrow and Hoff's rule with momentum. One markup for each
device and side, of its first step, told by the last interval's price, in which the household's own order took
part; what is worth less than that step's limit, or costs more, keeps to its own value.
"""

from __future__ import annotations

from dataclasses import replace

from market.messages.models import Side
from meters.household.sites import drawn
from meters.strategies.interface import Memory, Offer, OfferedStep, Plan, Situation
from meters.strategies.truthful import truthful

_FIRST_MARKUP = 0.1
_LEARNING_RATE, _MOMENTUM = 0.3, 0.2
# Target prices lie up to this part of the price, and up to so many µEUR/kWh, beyond what was met.
_RELATIVE, _ABSOLUTE = 0.05, 5_000.0
_MARKUP_MAX = {Side.BID: 0.95, Side.ASK: 10.0}


def adaptive(situation: Situation) -> Offer:
    """The truthful offer with learnt markups; what cannot wait keeps bidding the cap."""
    honest = truthful(situation)
    learnt: Memory = dict(situation.memory)
    if situation.last is not None and situation.last.awarded_wh is not None:
        _learn(learnt, situation, situation.last)
    values: Memory = {}
    limits: dict[str, int] = {}
    steps = []
    for step in honest.steps:
        if step.limit_price >= situation.tariff.cap:
            steps.append(step)
            continue
        name = _name(step)
        markup = learnt.get(name, {"markup": _FIRST_MARKUP})["markup"]
        values.setdefault(name, step.limit_price)
        first = limits.setdefault(name, _marked(situation, step, markup))
        outer = max if step.side == Side.ASK else min
        steps.append(replace(step, limit_price=outer(first, step.limit_price)))
    for name, value in values.items():
        learnt[name] = {"markup": _FIRST_MARKUP, "momentum": 0.0} | learnt.get(name, {}) | {"value": value}
    return replace(honest, steps=tuple(steps), memory=learnt)


def _learn(learnt: Memory, situation: Situation, last: Plan) -> None:
    """Moves the markups of last interval's first steps of each device and side."""
    assert last.awarded_wh is not None
    bus_price = last.bus_price(situation.tariff.local_fee)
    if bus_price is None:
        return
    seen = set()
    for step, awarded_wh in zip(last.steps, last.awarded_wh, strict=True):
        name = _name(step)
        if name in seen or name not in learnt or step.limit_price >= situation.tariff.cap:
            continue
        seen.add(name)
        price = bus_price + (situation.tariff.local_fee if step.side == Side.BID else 0)
        better = price > step.limit_price if step.side == Side.ASK else price < step.limit_price
        if not better and awarded_wh > 0:
            continue
        beyond = drawn(situation.seed, situation.household, "target", situation.interval_start, name)
        away = 1 if better == (step.side == Side.ASK) else -1
        target = price + away * beyond * (_RELATIVE * abs(price) + _ABSOLUTE)
        one = learnt[name]
        push = _MOMENTUM * one["momentum"] + (1 - _MOMENTUM) * _LEARNING_RATE * (target - step.limit_price)
        value = one["value"]
        if value > 0:
            change = (step.limit_price + push) / value - 1
            markup = change if step.side == Side.ASK else -change
            learnt[name] = one | {
                "markup": min(max(markup, 0.0), _MARKUP_MAX[step.side]),
                "momentum": push,
            }


def _marked(situation: Situation, step: OfferedStep, markup: float) -> int:
    sign = 1 if step.side == Side.ASK else -1
    limit = round(step.limit_price + sign * markup * abs(step.limit_price))
    return min(max(limit, situation.tariff.floor), situation.tariff.cap)


def _name(step: OfferedStep) -> str:
    return f"{step.device} {step.side.name.lower()}"
