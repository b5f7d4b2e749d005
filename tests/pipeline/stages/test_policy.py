"""Policies as values: what they decide, what they refuse."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

import splitpipe as sp
from splitpipe.pipeline.stages.policy import RAISE, LeaveOut, Retry, decide, policy_of


def caught(raiser: Any) -> Exception:
    with pytest.raises(Exception) as found:  # noqa: PT011  any, on purpose
        raiser()
    return found.value


def stopped() -> Exception:
    """A StopIteration as it comes out of a generator."""

    def generator() -> Any:
        yield next(iter(()))

    return caught(lambda: next(generator()))


class TestDecisions:
    def test_words(self) -> None:
        assert policy_of(None) is None
        assert policy_of("raise") == RAISE
        assert policy_of("skip") == sp.skip()
        policy = sp.retry(2)
        assert policy_of(policy) is policy

    def test_skip_leaves_out_what_it_is_about(self) -> None:
        policy = sp.skip(errors=(KeyError, OSError))
        assert decide(policy, KeyError("k"), 0) is policy
        assert decide(policy, FileNotFoundError(), 0) is policy
        assert decide(policy, ValueError(), 0) is None
        assert decide(RAISE, ValueError(), 0) is None

    def test_retry_goes_to_the_next_policy(self) -> None:
        then = sp.skip(errors=(OSError, ValueError))
        policy = sp.retry(2, delay_s=0, then=then, errors=(OSError,))
        assert decide(policy, OSError(), 0) == 0.0
        assert decide(policy, OSError(), 1) == 0.0
        assert decide(policy, OSError(), 2) is then
        assert decide(policy, ValueError(), 0) is then
        assert decide(policy, KeyError(), 0) is None

    def test_retries_after_retries(self) -> None:
        last = sp.skip()
        policy = sp.retry(1, delay_s=0, then=sp.retry(2, delay_s=0, then=last))
        assert [decide(policy, OSError(), tries) for tries in range(4)] == [0.0, 0.0, 0.0, last]

    def test_delays_double_within_a_half_and_end_somewhere(self) -> None:
        policy = sp.retry(200, delay_s=0.5, most_delay_s=3.0)
        for tries, usual in enumerate((0.5, 1.0, 2.0, 3.0, 3.0)):
            for _ in range(20):
                assert usual / 2 <= policy.delay(tries) <= usual * 1.5
        assert policy.delay(10_000) <= 4.5

    @pytest.mark.parametrize(
        "error",
        [
            MemoryError(),
            KeyboardInterrupt(),
            SystemExit(),
            GeneratorExit(),
            sp.GraphError("g"),
            sp.BrokenChannel("c"),
            sp.BranchStalled("b"),
            sp.BudgetExceeded("b"),
            sp.StageFailed("s"),
            sp.ResumeError("r"),
            sp.CacheFull("c"),
            sp.LockedError("l"),
        ],
    )
    def test_what_is_no_fault_of_an_item_is_never_left_out(self, error: BaseException) -> None:
        assert decide(sp.skip(), error, 0) is None
        assert decide(sp.retry(3, then="skip"), error, 0) is None

    @pytest.mark.parametrize(
        "error", [sp.CorruptRecord("c"), sp.FormatError("f"), sp.RemoteError("r"), AssertionError()]
    )
    def test_damaged_data_are(self, error: Exception) -> None:
        assert isinstance(decide(sp.skip(), error, 0), LeaveOut)

    def test_a_stop_iteration_goes_by_both_names(self) -> None:
        error = stopped()
        assert type(error) is RuntimeError
        for errors in (StopIteration, RuntimeError, Exception):
            assert decide(sp.skip(errors=errors), error, 0) is not None
        assert decide(sp.skip(errors=KeyError), error, 0) is None


class TestBudgets:
    def test_a_number(self) -> None:
        policy = sp.skip(2)
        assert not policy.exceeded(2, 2)
        assert policy.exceeded(3, 1_000_000)
        assert sp.skip(0).exceeded(1, 1)

    def test_a_share_is_judged_when_there_is_something_to_judge(self) -> None:
        policy = sp.skip(0.1, after=100)
        assert not policy.exceeded(50, 99)
        assert policy.exceeded(50, 99, ended=True)
        assert not policy.exceeded(10, 100)
        assert policy.exceeded(11, 100)
        assert not sp.skip(1.0).exceeded(5000, 5000, ended=True)

    def test_none_is_any_number(self) -> None:
        assert not sp.skip().exceeded(10**9, 10**9, ended=True)

    def test_one_item_and_all_of_them_are_not_the_same(self) -> None:
        assert sp.skip(1).exceeded(2, 5000)
        assert not sp.skip(1.0).exceeded(2, 5000)


class TestRefusals:
    @pytest.mark.parametrize(
        "make",
        [
            lambda: policy_of("ignore"),
            lambda: policy_of(3),
            lambda: sp.skip(-1),
            lambda: sp.skip(1.5),
            lambda: sp.skip(float("nan")),
            lambda: sp.skip(True),
            lambda: sp.skip("many"),  # type: ignore[arg-type]
            lambda: sp.skip(after=0),
            lambda: sp.retry(0),
            lambda: sp.retry(1, delay_s=-1.0),
            lambda: sp.retry(1, then="again"),
            lambda: sp.skip(errors=()),
            lambda: sp.skip(errors=ValueError("an instance")),  # type: ignore[arg-type]
            lambda: sp.skip(errors=MemoryError),
            lambda: sp.skip(errors=(ValueError, KeyboardInterrupt)),
            lambda: sp.skip(errors=BaseException),
            lambda: sp.retry(2, errors=sp.PipelineError),
            lambda: sp.Pipeline(range(3)).map(str, on_error="ignore"),
            lambda: sp.Pipeline(lambda: iter(())).map(str).loader(on_error="ignore"),
            lambda: sp.Pipeline(lambda: iter(()), on_error="skip"),
            lambda: sp.Pipeline(range(3)).route(
                len, {0: lambda branch: branch.map(str, on_error=sp.skip(3))}
            ),
        ],
    )
    def test_what_means_nothing(self, make: Any) -> None:
        with pytest.raises(sp.GraphError):
            make()

    def test_options_that_do_not_exist(self) -> None:
        for name in ("map", "filter", "flat_map"):
            with pytest.raises(TypeError, match="wrokers"):
                getattr(sp.Pipeline(range(3)), name)(str, wrokers=2)
        with pytest.raises(TypeError, match="ordered"):
            sp.Pipeline(range(3)).shuffle(2, ordered=False)  # type: ignore[call-arg]


def test_they_are_values() -> None:
    policy = sp.retry(3, then=sp.quarantine("bad.jsonl", budget=0.5), errors=OSError)
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert isinstance(policy, Retry)
    assert str(policy) == "retry(3), then quarantine"


def test_a_description_tells_of_them(tmp_path: Any) -> None:
    pipe = sp.Pipeline(range(3)).map(str, on_error="skip", workers=2).batch(2, on_error="raise")
    assert repr(pipe) == (
        "Pipeline(range(0, 3)) > map(str, on_error=skip) x 2 > batch(2, on_error=raise)"
    )
    with pytest.raises(TypeError, match="not known"):
        len(pipe)
    with pytest.raises(TypeError, match="left out"):
        len(sp.Pipeline(range(3), on_error="skip"))
    assert len(sp.Pipeline(range(3), on_error=sp.retry(2)).map(str, on_error=sp.retry(1))) == 3
