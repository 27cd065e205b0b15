"""Work done by several threads at once."""

import threading

import pytest

from edge_seg.labelling import Crew


def test_one_works_on_the_callers_own_thread():
    with Crew(1) as crew:
        assert crew.start(threading.get_ident).result() == threading.get_ident()


def test_several_work_at_once_and_end_with_the_crew():
    meeting = threading.Barrier(2, timeout=10)
    with Crew(2) as crew:
        calls = [crew.start(meeting.wait) for _ in range(2)]
        assert sorted(call.result() for call in calls) == [0, 1]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("edge_seg-infer")]


@pytest.mark.parametrize("size", [1, 2])
def test_an_error_waits_for_the_other_results(size):
    with Crew(size) as crew:
        failed, done = crew.start(int, "x"), crew.start(int, "7")
        assert done.result() == 7
        assert isinstance(failed.exception(), ValueError)
