import json

import pytest

from service.api.errors import plain_problem_json, problem_body
from service.problems import BadRequest, HeadersTooLarge, Overloaded, Problem


@pytest.mark.parametrize("kind", [BadRequest, HeadersTooLarge, Overloaded])
def test_a_problem_told_at_the_door_is_the_same_as_anywhere(kind: type[Problem]) -> None:
    problem = kind('what is "wrong" \\ and where: ü\r\n')
    assert json.loads(plain_problem_json(problem, "mine")) == problem_body(problem, "mine")
