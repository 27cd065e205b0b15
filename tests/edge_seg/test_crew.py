"""Work done by several threads at once."""

import threading

import pytest

from edge_seg.crew import Crew


def test_one_works_on_the_callers_own_thread():
    with Crew(1) as crew:
        assert crew.start(threading.get_ident).result() == threading.get_ident()


def test_several_work_at_once_and_end_with_the_crew():
    meeting = threading.Barrier(2, timeout=10)
    with Crew(2) as crew:
        calls = [crew.start(meeting.wait) for _ in range(2)]
        assert sorted(call.result() for call in calls) == [0, 1]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("edge_seg-infer")]


def test_an_error_comes_back_where_the_result_is_asked_for():
    def fail() -> None:
        raise ValueError("planted")

    with Crew(2) as crew, pytest.raises(ValueError, match="planted"):
        crew.start(fail).result()
