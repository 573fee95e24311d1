from hypothesis import given, settings

from tests.service.schedules import SCHEDULES, Come, Leave, Turn, Wait, check_schedule


@settings(max_examples=1000)
@given(SCHEDULES)
def test_everyone_gets_exactly_their_own_answer_once(
    schedule: list[Come | Leave | Wait | Turn],
) -> None:
    check_schedule(schedule)
