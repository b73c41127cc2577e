"""The learning rate of each step."""

from hypothesis import given
from hypothesis import strategies as st

from nucleate.training.schedule import learning_rate

steps = st.integers(0, 200)


@given(warm_up=st.integers(1, 50), begin=steps, length=st.integers(0, 100), peak=st.floats(1e-6, 1))
def test_it_rises_stays_and_falls_to_zero(warm_up, begin, length, peak):
    end = begin + length
    rates = [learning_rate(step, peak, warm_up=warm_up, cool_down=(begin, end)) for step in range(end + 2)]
    assert rates[end:] == [0, 0]
    assert all(0 < rate <= peak for rate in rates[:end])
    before, after = rates[: begin + 1], rates[begin:]
    if length:
        assert before == sorted(before)
    top = after.index(max(after))
    assert after[top:] == sorted(after[top:], reverse=True)


@given(step=steps, warm_up=st.integers(1, 50))
def test_until_an_end_is_decided_it_stays(step, warm_up):
    rate = learning_rate(step, 2.0, warm_up=warm_up)
    assert rate == (2.0 if step >= warm_up - 1 else 2.0 * (step + 1) / warm_up)
